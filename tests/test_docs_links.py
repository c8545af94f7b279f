"""The pages hold together: links and anchors lead somewhere, every page is on the site, both languages say the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import yaml

from pages import ENGLISH, PAGES, ROOT, anchors_of, blocks_of, headings_of, links_of, text_of

TRANSLATED = ("README.md", "docs/getting-started.md")


def translation(page):
    return page.replace(".md", ".zh-CN.md")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in links_of(page):
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert path.is_relative_to(ROOT), link
        assert path.exists(), link
        if anchor:
            assert anchor in anchors_of(str(path.relative_to(ROOT))), link


def test_the_search_of_the_site_takes_words_as_they_are_typed():
    """A typed word is a prefix, which lunr does not stem: `resume` is none of the stem `resum`. Its trimmer keeps no
    Chinese.
    """
    (settings,) = [plugin["search"] for plugin in yaml.load(text_of("mkdocs.yml"), yaml.BaseLoader)["plugins"][:1]]
    assert settings["pipeline"] == ["stopWordFilter"]


def test_every_page_is_on_the_site_and_every_place_of_the_site_is_a_page():
    def pages(entry):
        return [entry] if isinstance(entry, str) else [page for part in entry for page in pages(part)]

    nav = yaml.load(text_of("mkdocs.yml"), yaml.BaseLoader)["nav"]
    listed = sorted(re.findall(r"'([\w.-]+\.md)'", repr(nav)))
    here = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}
    brought = {"index.md", "index.zh-CN.md", "security.md", "changelog.md"}
    assert listed == sorted(here | brought)


def test_chinese_pages_have_a_chinese_navigation():
    def titles(entry):
        if isinstance(entry, str):
            return []
        if isinstance(entry, list):
            return [title for part in entry for title in titles(part)]
        return [title for name, below in entry.items() for title in (name, *titles(below))]

    nav = yaml.load(text_of("mkdocs.yml"), yaml.BaseLoader)["nav"]
    english = {title for title in titles(nav) if title.isascii()} - {"bigmodel-train", "Slurm", "Ray"}
    translated = text_of("scripts/site.py").partition("_CHINESE = {")[2].partition("}")[0]
    assert english == {*re.findall(r'^ +"(.+?)": "', translated, re.MULTILINE)}


def test_the_readme_is_two_screens():
    assert len(text_of("README.md").splitlines()) <= 110
    assert len(text_of("README.md")) <= 6000


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_each_row_of_what_is_supported_has_one_link(page):
    rows = [row for row in text_of(page).splitlines() if row.startswith("| [")]
    assert len(rows) > 8
    assert {row.count("](") for row in rows} == {1}


@pytest.mark.parametrize("page", TRANSLATED)
def test_both_languages_have_the_same_headings_commands_and_pictures(page):
    other = translation(page)
    assert [level for level, _ in headings_of(page)] == [level for level, _ in headings_of(other)]
    assert [(block.language, block.text) for block in blocks_of(page)] == [
        (block.language, block.text) for block in blocks_of(other)
    ]
    assert [row.count("|") for row in text_of(page).splitlines() if row.startswith("|")] == [
        row.count("|") for row in text_of(other).splitlines() if row.startswith("|")
    ]
    assert targets(page) == targets(other)


def targets(page):
    """Where the links lead, the language and the anchor aside."""
    return sorted({link.partition("#")[0].replace(".zh-CN", "") for link in links_of(page)} - {""})


@pytest.mark.parametrize("page", TRANSLATED)
def test_each_language_links_to_the_other(page):
    name = page.rpartition("/")[2]
    assert translation(name) in links_of(page)
    assert name in links_of(translation(page))


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_no_other_host(tmp_path):
    pytest.importorskip("material", reason="the site needs mkdocs-material: pip install 'bigmodel-train[docs]'")
    # with --quiet mkdocs does not count its warnings
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").glob("*.html"))
    assert len(pages) > len(ENGLISH) - 2
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r"(?:src|srcset)=\"(?:https?:)?//[^\"]*|<link[^>]*href=\"(?:https?:)?//[^\"]*", html)
        if page.name != "404.html":  # whose links begin at the root of a host
            for name in re.findall(r'src="([^":]+)"', html):
                assert (tmp_path / "site" / name.partition("#")[0]).exists(), f"{page.name}: {name}"


def test_what_make_installs_runs_every_command_of_the_readme():
    """The last of README's commands draws a page, which needs an extra."""
    assert "bigmodel-report" in text_of("README.md")
    installed = re.findall(
        r"^\$\(VENV\)/\.installed(?:-test|-dev)?:.*\n(?:\t@.*\n)*\t\$\(INSTALL\) (.*)$", text_of("Makefile"), re.M
    )
    assert installed == ["--editable '.[plots]'", "--editable '.[test,plots]'", "--editable '.[dev,plots]'"]
