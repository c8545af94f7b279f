"""Answer a shell that asks what could follow on a command line."""

from __future__ import annotations

from collections.abc import Iterator

from bigmodel.commands.completion.candidates import Candidate, list_candidates
from bigmodel.commands.completion.typed_line import quote_for, split_line
from bigmodel.formatting import truncate

_LONGEST_MEANING = 70


def answer(shell: str, line: str, part: str = "") -> Iterator[str]:
    """Yield a line for each candidate, in the form that the shell's script reads.

    `line` is the command line up to the cursor. bash replaces only `part` of its last word, what stands behind the last
    `=` or `:`, and takes words as they are; zsh and fish quote whole words themselves.
    """
    typed = split_line(line)
    kept = split_line(line[: len(line) - len(part)] if part else line)
    for candidate in list_candidates(typed.words, typed.current):
        if shell == "fish":
            yield f"{candidate.word}\t{_meaning(candidate)}"
        elif shell == "zsh":
            yield f"{_sign(candidate)}{candidate.word}\t{_meaning(candidate)}"
        elif (text := quote_for(candidate.word[len(kept.current) :], kept.quote)) is not None:
            yield _sign(candidate) + text


def _sign(candidate: Candidate) -> str:
    return "+" if candidate.is_open else " "


def _meaning(candidate: Candidate) -> str:
    return truncate(candidate.meaning, _LONGEST_MEANING)
