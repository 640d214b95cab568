"""What readers give: rows as text, not yet judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

CHUNK_ROWS = 20_000


@dataclass(frozen=True)
class Broken:
    """A row that could not be read as one. `line` is where it starts, from 1."""

    line: int
    reason: str


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a file.

    cells: text columns named as fields. lines: Int64, line (or record) number of each row, from 1. broken:
    rows beside those. recoded: lines that were not UTF-8 and were read as Windows-1252.
    """

    cells: pl.DataFrame
    lines: pl.Series
    broken: tuple[Broken, ...] = ()
    recoded: int = 0

    @property
    def read(self) -> int:
        """Rows, broken ones included."""
        return self.cells.height + len(self.broken)


def of_rows(
    fields: Sequence[str],
    rows: Sequence[Sequence[str | None]],
    lines: Iterable[int],
    broken: Iterable[Broken] = (),
    recoded: int = 0,
) -> Chunk:
    """A chunk of rows that all have one cell for each field, in order."""
    columns = zip(*rows, strict=True) if rows else [()] * len(fields)
    cells = pl.DataFrame([pl.Series(f, c, dtype=pl.String) for f, c in zip(fields, columns, strict=True)])
    return Chunk(cells, pl.Series("line", list(lines), dtype=pl.Int64), tuple(broken), recoded)
