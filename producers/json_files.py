"""JSON Lines: one object a line, its values text, numbers, true, false or null."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from producers.chunks import CHUNK_ROWS, Broken, Chunk, of_rows
from producers.header import Columns, UnusableFileError
from producers.lines import blocks, text_lines

_NESTED = "holds a list or an object where a single value belongs"


class _NotARowError(ValueError):
    """The line is no row; the message says why and holds no value."""


def read(file: IO[bytes], columns: Columns) -> Iterator[Chunk]:
    """The rows; line numbers are the file's.

    Raises:
        UnusableFileError: the file is one JSON list, no name in the first objects is a field, or a name is
        not a field.
    """
    rows = _Rows(columns)
    for block in blocks(file):
        if block.too_long:
            rows.broken.append(Broken(block.first, "is longer than a row may be"))
            continue
        lines, recoded = text_lines(block.data)
        rows.recoded += recoded
        for number, line in enumerate(lines, block.first):
            rows.take(number, line)
            if len(rows) >= CHUNK_ROWS:
                yield rows.chunk()
        if len(rows):
            yield rows.chunk()
    if len(rows):
        yield rows.chunk()


class _Rows:
    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._index = {name: i for i, name in enumerate(columns.names)}
        self._places: dict[str, int] = {}
        self._begun = False
        self._clear()

    def _clear(self) -> None:
        self._cells: list[list[str | None]] = []
        self._lines: list[int] = []
        self.broken: list[Broken] = []
        self.recoded = 0

    def __len__(self) -> int:
        return len(self._cells) + len(self.broken)

    def chunk(self) -> Chunk:
        """What was taken since the last chunk."""
        out = of_rows(self._columns.names, self._cells, self._lines, self.broken, self.recoded)
        self._clear()
        return out

    def take(self, number: int, line: str) -> None:
        """One line; a blank one is no row."""
        if not line.strip():
            return
        if not self._begun and line.lstrip().startswith("["):
            raise UnusableFileError("is one JSON list; write one object a line (JSON Lines)")
        try:
            pairs = _pairs(line)
            self._begin(pairs)
            cells: list[str | None] = [None] * len(self._index)
            seen = set()
            for name, value in pairs:
                place = self._place(name, number)
                if place in seen:
                    raise _NotARowError("has a field twice")
                seen.add(place)
                cells[place] = _text(value)
        except _NotARowError as e:
            self.broken.append(Broken(number, str(e)))
            return
        self._cells.append(cells)
        self._lines.append(number)

    def _begin(self, pairs: list[tuple[str, Any]]) -> None:
        if not self._begun and pairs:
            self._begun = True
            if not self._columns.known([name for name, _ in pairs]):
                self._columns.match([name for name, _ in pairs])  # raises

    def _place(self, name: str, number: int) -> int:
        place = self._places.get(name)
        if place is None:
            field = self._columns.field(name)
            if field is None:
                self._columns.match([*self._columns.names, name])  # raises, naming the column
                raise UnusableFileError(f"unknown column in line {number}")
            place = self._places[name] = self._index[field]
        return place


class _Pairs(list[tuple[str, Any]]):
    """An object, its names in order and none of them lost."""


def _pairs(line: str) -> _Pairs:
    try:
        loaded = json.loads(line, object_pairs_hook=_Pairs, parse_int=str, parse_float=str, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _NotARowError("is not JSON, or is cut off") from None
    if not isinstance(loaded, _Pairs):
        raise _NotARowError("is not a JSON object")
    return loaded


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _text(value: Any) -> str | None:
    """The cell of a value. Numbers stay as they were written."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise _NotARowError(_NESTED)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _NotARowError("holds half of a surrogate pair, which is no text") from None
    return value
