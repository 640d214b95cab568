"""Which column of a file is which field: names are compared whatever their case and how words are parted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from schemas.contracts import Contract

_PARTING = re.compile(r"[\s\-_.]+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ .-]{0,63}")
_SHOWN = 5


class UnusableFileError(ValueError):
    """A file of which nothing, or nothing more, can be taken. The message never holds a value."""


def plain(name: str) -> str:
    """The name by which columns are compared."""
    return _PARTING.sub("_", name.strip()).casefold()


class Columns:
    """The fields that a file may have by the names that files use for them; those of `required` must be there.

    lenient: columns that are no field are named `?<number>`, and short rows are blank at their end, instead of being
    refused; for files that others have made for other ends.
    """

    def __init__(self, names: Iterable[str], required: Iterable[str], *, lenient: bool = False) -> None:
        self.names = tuple(names)
        self.lenient = lenient
        self.required = tuple(required)
        self._by_plain = {plain(n): n for n in self.names}

    @classmethod
    def of(cls, contract: Contract) -> Columns:
        """The fields of a contract; required are those that may not be null."""
        return cls((f.name for f in contract.fields), (f.name for f in contract.fields if not f.nullable))

    def field(self, column: str) -> str | None:
        """The field that a column is, if it is one."""
        return self._by_plain.get(plain(column))

    def known(self, columns: Sequence[str]) -> int:
        """How many of the columns are fields."""
        return sum(self.field(c) is not None for c in columns)

    def match(self, columns: Sequence[str]) -> tuple[str, ...]:
        """The field of each column, in order.

        Raises:
            UnusableFileError: no column is a field, one is not, one comes twice, or a field that must be
            there is not.
        """
        found = [self.field(c) for c in columns]
        if not any(found):  # perhaps there is no header: then these are somebody's data and must not be shown
            raise UnusableFileError(f"no column is known; the columns must be {', '.join(self.names)}")
        unknown = [_shown(c, i) for i, c in enumerate(columns) if found[i] is None]
        if unknown and not self.lenient:
            unknown[_SHOWN:] = [f"and {len(unknown) - _SHOWN} more"] if len(unknown) > _SHOWN else []
            raise UnusableFileError(f"unknown column: {', '.join(unknown)}; the columns are {', '.join(self.names)}")
        fields = tuple(f"?{i + 1}" if f is None else f for i, f in enumerate(found))
        twice = sorted({f for f in fields if fields.count(f) > 1})
        if twice:
            raise UnusableFileError(f"column comes twice: {', '.join(twice)}")
        missing = [n for n in self.required if n not in fields]
        if missing:
            raise UnusableFileError(f"required column is missing: {', '.join(missing)}")
        return fields


def _shown(column: str, index: int) -> str:
    return column.strip() if _NAME.fullmatch(column.strip()) else f"column {index + 1} (its name is not a plain word)"
