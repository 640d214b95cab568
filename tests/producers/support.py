"""What the tests of the producers share."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from producers import readers
from producers.chunks import Broken
from producers.files import publish_file
from producers.rows import Converted
from producers.totals import Totals
from schemas.codec import encode
from schemas.contracts import Contract, identified

TODAY = date(2026, 3, 1)
PERSON = identified("dwp", "person")
MARK = "zq9x"
"""Put into values that must not come out anywhere."""


@dataclass
class Kept:
    """A sink that keeps what it is given."""

    sent: list[Converted] = field(default_factory=list)
    announced: list[Totals] = field(default_factory=list)

    def send(self, converted: Converted) -> None:
        self.sent.append(converted)

    def flush(self) -> int:
        return len(self.rows)

    def announce(self, totals: Totals) -> None:
        self.announced.append(totals)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for c in self.sent for row in c.batch.to_pylist()]

    def messages(self, contract: Contract) -> list[tuple[str, bytes]]:
        return [pair for c in self.sent for pair in zip(c.keys.to_list(), encode(c.batch, contract), strict=True)]


@dataclass(frozen=True)
class Read:
    rows: list[tuple[int, dict[str, str | None]]]
    broken: list[Broken]
    recoded: int


def read(data: bytes, suffix: str = ".csv", contract: Contract = PERSON) -> Read:
    """All chunks as one: the rows with the cells that they have."""
    chunks = list(readers.read(io.BytesIO(data), suffix, contract))
    rows = [
        (line, {k: v for k, v in row.items() if v is not None})
        for chunk in chunks
        for line, row in zip(chunk.lines.to_list(), chunk.cells.iter_rows(named=True), strict=True)
    ]
    return Read(rows, [b for c in chunks for b in c.broken], sum(c.recoded for c in chunks))


def publish_bytes(
    data: bytes, folder: Path, name: str = "file.csv", dataset: str = "person", supplier: str = "dwp"
) -> tuple[Totals, Kept]:
    """A file of these bytes through everything but Kafka; its rejects under `folder`."""
    path = folder / name
    path.write_bytes(data)
    kept = Kept()
    return publish_file(path, supplier, dataset, kept, folder / "rejects", TODAY), kept


def rejects_of(totals: Totals) -> list[tuple[str, str, str]]:
    """Lines of the rejects file, without its header."""
    if totals.rejects is None:
        return []
    lines = totals.rejects.read_text().splitlines()
    assert lines[0] == "line,field,reason"
    return [tuple(line.split(",", 2)) for line in lines[1:]]  # type: ignore[misc]
