"""The pages of the documentation, taken apart: code blocks, headings with their anchors, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
ENGLISH = [page for page in PAGES if ".zh-CN." not in page]  # test_docs_links.py holds the others to these
INSTALLS = re.compile(r"make |pip install |\. \.venv/bin/activate$")
WHOLE = ("docs/getting-started.md", "docs/python.md", "docs/contributing.md")  # each worked through as a whole
_FENCE = re.compile(r"(?:^`(?P<file>[^`\n]+)`\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


@dataclass(frozen=True)
class Block:
    """A code block; `file` is the name that stands above it where it is a file's content."""

    page: str
    section: str
    language: str
    text: str
    file: str | None

    @property
    def lines(self) -> list[str]:
        """Command lines, without comments; one that ends in a backslash is joined with the next."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [re.sub(r"\s+#.*| +$", "", re.sub(r" {2,}", " ", line)) for line in lines if line.strip()]

    @property
    def session(self) -> str:
        """What is worked through in one go: a section, or a whole page."""
        return self.page if self.page in WHOLE else f"{self.page}: {self.section}"


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def prose_of(page: str) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", text_of(page))


@cache
def blocks_of(page: str) -> tuple[Block, ...]:
    return tuple(_blocks(page))


def _blocks(page: str) -> Iterator[Block]:
    text = text_of(page)
    for found in _FENCE.finditer(text):
        above = re.findall(r"^## (.+)$", text[: found.start()], re.MULTILINE)
        yield Block(page, above[-1] if above else "", found["language"], found["text"], found["file"])


def sessions() -> dict[str, list[Block]]:
    """Blocks that are worked through in order: those beside a file, Python, or a run that they name themselves.

    Blocks that install are left out: their environment is the one that is there.
    """
    found: dict[str, list[Block]] = {}
    for page in ENGLISH:
        for block in blocks_of(page):
            if not any(INSTALLS.match(line) for line in block.lines):
                found.setdefault(block.session, []).append(block)
    return {
        name: blocks
        for name, blocks in found.items()
        if any(block.file or block.language == "python" or "RUN=$(" in block.text for block in blocks)
    }


def headings_of(page: str) -> list[tuple[int, str]]:
    """Level and title of each heading."""
    return [(len(marks), title) for marks, title in re.findall(r"^(#+) (.+)$", prose_of(page), re.MULTILINE)]


def anchors_of(page: str) -> set[str]:
    """The anchors of the headings, as GitHub and the site make them."""
    titles = [re.sub(r"[^\w\- ]", "", title.lower()) for _, title in headings_of(page)]
    return {title.strip().replace(" ", "-") for title in titles}


def links_of(page: str) -> list[str]:
    """The targets of all links and pictures."""
    return [first or second for first, second in _LINK.findall(prose_of(page))]
