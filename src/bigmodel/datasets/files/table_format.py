"""The format of a table's file, and the result of parsing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow

MAX_COLUMNS = 50_000
SHOWN = 5  # mistakes in one report; a wrong role or folder would give one a row
_TABS = ("tab", "\\t")  # a tab, as it can be typed on a command line
STAND_INS = frozenset(  # usual words for a missing value, in lower case
    {"n/a", "#n/a", "na", "<na>", "n.a.", "nan", "-nan", "nat", "null", "nil", "none", "missing", "-", "--", "?"}
)
_SPELLED = {"semicolon": ";", "comma": ",", "space": " ", "pipe": "|"}


@dataclass(frozen=True)
class TableFormat:
    r"""Format of a table's file. Only `strip` and `missing` apply to files that are not text.

    `columns` name the columns of a file without a header, or with `header=True` replace the names in it. With `header`
    None the first line is a header where it has all columns that are needed, or where no names are given.
    `separator` is one character, `tab` or `\t`; None: a tab in .tsv, else a comma.
    Lines that begin with `comment`, and empty ones, are passed over.
    `strip` are characters removed from both ends of a value; `missing` are the values that then stand for none.
    Unless `quoted`, a quotation mark is a letter like others.
    `encoding` None is UTF-8; a byte order mark is no part of the text.
    `broken` skip leaves out rows with too few or too many fields.
    """

    columns: Sequence[str] | None = None
    separator: str | None = ","
    comment: str | None = None
    strip: str = " "
    missing: Sequence[str] = ("",)
    quoted: bool = True
    encoding: str | None = None
    decimal: Literal[".", ","] = "."
    header: bool | None = None
    broken: Literal["refuse", "skip"] = "refuse"

    def __post_init__(self) -> None:
        if self.separator is not None:
            delimiter(self.separator)
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal: must be '.' or ',', not '{self.decimal}'")
        if self.comment == "":
            raise ValueError("comment: is empty, so every line would begin with it; leave it null")


def changed_fields(options: Any, *names: str) -> dict[str, Any]:
    """Return the fields, of these names or all, that differ from the defaults of their dataclass.

    A processor's spec holds such options only: specs that were saved before an option existed stay as they were.
    """
    changed = {}
    for one in fields(options):
        value = getattr(options, one.name)
        plain, default = (list(v) if isinstance(v, (list, tuple)) else v for v in (value, one.default))
        if (not names or one.name in names) and plain != default:
            changed[one.name] = plain
    return changed


def delimiter(separator: str | None, file: str = "") -> str:
    """Return the character between two fields.

    Raises:
        ValueError: it is not one character of ASCII, which is all that pyarrow takes.
    """
    if separator is None:
        return "\t" if file.lower().removesuffix(".gz").removesuffix(".zst").endswith((".tsv", ".tab")) else ","
    if separator.lower() in _TABS:
        return "\t"
    found = _SPELLED.get(separator.lower(), separator)
    if len(found) != 1 or not found.isascii() or found in '"\r\n\0':
        raise ValueError(f"separator: must be one ASCII character, or tab, not '{separator}'")
    return found


@dataclass
class Parsed:
    """A table as a parser found it: all columns as strings, but for those of files that know types.

    `line(n)` is the place of row n in the file, from 1. `bad` has what is wrong with a row as a whole, by its index.
    `skipped` describes rows that were left out. `notes` are lines for users.
    """

    names: Sequence[str]
    columns: Sequence[pyarrow.ChunkedArray]
    line: Callable[[int], int]
    bad: Mapping[int, str] = field(default_factory=dict)
    short: Mapping[int, int] = field(default_factory=dict)  # rows of too few fields, and how many they have
    skipped: Sequence[str] = ()  # a line for each row that was left out
    notes: Sequence[str] = ()
    header_line: int = 1
