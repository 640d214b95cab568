"""Canaries: simulated files in which every identifier can be told apart from anything else, to see where it turns up.

A word of its own is added to every text of an identifying field, the same in all files, so that what was equal stays
equal and people are linked as before. Postcodes and dates of birth are left as they are, or nobody would be found by
them: their values are the canaries. `truth/canaries.json` lists all of them by field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from schemas.contracts import Contract, Field

FILE = "canaries.json"
_AS_THEY_ARE = ("postcode", "date_of_birth")
_LETTERS = "bcdfghjklmnpqrstvwxz"


def word(field: str) -> str:
    """The canary of a field: letters only, since names lose all else, and nothing that a name ends in."""
    number = sum(ord(c) * 31**i for i, c in enumerate(field))
    tail = "".join(_LETTERS[number // 20**i % 20] for i in range(4))
    return f"zq{tail}xj"


def planted(contract: Contract, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of a file with the canary of each field at the end of every text of it; missing stays missing."""
    return frame.with_columns((pl.col(f.name) + word(f.name)).alias(f.name) for f in _texts(contract))


def _texts(contract: Contract) -> list[Field]:
    return [
        f
        for f in contract.fields
        if f.classification == "identifier" and f.kind == "string" and f.name not in _AS_THEY_ARE
    ]


class Planted:
    """What was planted, gathered file by file."""

    def __init__(self) -> None:
        self._by_field: dict[str, set[str]] = {}

    def add(self, contract: Contract, frame: pl.DataFrame) -> pl.DataFrame:
        """Plant canaries in a file's rows, and take note of them."""
        out = planted(contract, frame)
        for f in contract.fields:
            if f.classification != "identifier":
                continue
            if f.name in _AS_THEY_ARE:
                values = {str(v) for v in out.get_column(f.name).drop_nulls().unique().to_list()}
            else:
                values = {word(f.name)}
            self._by_field.setdefault(f.name, set()).update(values)
        return out

    def write(self, folder: Path) -> None:
        """Write the list."""
        listed = {field: sorted(values) for field, values in sorted(self._by_field.items())}
        (folder / FILE).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8", newline="\n")


def read(folder: Path) -> Mapping[str, list[str]]:
    """Canaries by field, of a simulation that was asked for them."""
    found: dict[str, list[str]] = json.loads((folder / "truth" / FILE).read_text())
    return found
