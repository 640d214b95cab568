"""What was rejected of a batch: the lines of its rejects file, found by the batch's id."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

_DIGITS = 8  # of the digest, as `rejects_path` names files by


@dataclass(frozen=True)
class Rejected:
    """One bad field of a rejected row. `line` from 1; `field` empty: the row as a whole."""

    line: int
    field: str
    reason: str


def rejected_of(folder: Path, supplier: str, dataset: str, batch_id: str, most: int = 10_000) -> list[Rejected] | None:
    """Up to `most` lines of the rejects file of a batch; None if it is not on this machine."""
    found = sorted((folder / supplier / dataset).glob(f"*.{batch_id[:_DIGITS]}.rejects.csv"))
    if not found:
        return None
    out: list[Rejected] = []
    with found[0].open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            out.append(Rejected(int(row["line"]), row["field"], row["reason"]))
            if len(out) == most:
                break
    return out
