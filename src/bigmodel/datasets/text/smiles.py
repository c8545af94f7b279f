"""SMILES strings (Weininger 1988), cut into atoms, bonds, brackets and rings (after Schwaller et al. 2019)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigmodel.errors import DataError
from bigmodel.formatting import truncate

_ELEMENTS = re.findall(  # the periodic table
    "[A-Z][a-z]?",
    "HHeLiBeBCNOFNeNaMgAlSiPSClArKCaScTiVCrMnFeCoNiCuZnGaGeAsSeBrKrRbSrYZrNbMoTcRuRhPdAgCdInSnSbTeIXeCsBa"
    "LaCePrNdPmSmEuGdTbDyHoErTmYbLuHfTaWReOsIrPtAuHgTlPbBiPoAtRnFrRaAcThPaUNpPuAmCmBkCfEsFmMdNoLr"
    "RfDbSgBhHsMtDsRgCnNhFlMcLvTsOg",
)
_AROMATIC = ["se", "as", "te", "b", "c", "n", "o", "p", "s"]
_COMMON = ["[C@H]", "[C@@H]", "[C@]", "[C@@]", "[nH]", "[N+]", "[O-]", "[n+]"]  # bracket atoms that are one token
_IN_BRACKETS = [*sorted(_ELEMENTS, key=len, reverse=True), *_AROMATIC, "@@", "@", "+", "-", ":", "*", *"0123456789"]
_ATOM = re.compile(r"\[[^\[\]]+\]|Cl|Br|[BCNOPSFIbcnops*.=#$:/\\()%0-9-]")
_PART = re.compile("|".join(map(re.escape, _IN_BRACKETS)))
_TOKENS = list(dict.fromkeys([*_COMMON, "[", "]", *_IN_BRACKETS, *r".=#$/\()%"]))
_NUMBERS = {token: number for number, token in enumerate(_TOKENS)}


class SmilesTokenizer:
    """A `Tokenizer` with the same tokens for all data, so that weights trained on one data set fit another.

    An atom outside of brackets is a token, and so are the commonest bracket atoms; others are a token for each of their
    parts, as `[`, `Na`, `+`, `]`. It does not check whether rings and branches close.
    """

    size = len(_TOKENS)
    spec: Mapping[str, Any] = {"name": "smiles"}  # a checkpoint has no more of them, so the tokens may never change

    def encode(self, text: str) -> NDArray[np.int64]:
        parts = [part for atom in _ATOM.findall(text) for part in _parts(atom)]
        if (known := "".join(parts)) != text:
            pairs = enumerate(zip(known, text, strict=False))
            place = next((n for n, (one, other) in pairs if one != other), len(known))
            raise DataError(
                f"'{truncate(text)}' is not a SMILES string: unexpected '{truncate(text[place])}', "
                f"character {place + 1}"
            )
        return np.array([_NUMBERS[part] for part in parts], dtype=np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(_TOKENS[token] for token in tokens)


def _parts(atom: str) -> list[str]:
    return [atom] if atom in _NUMBERS else ["[", *_PART.findall(atom), "]"]
