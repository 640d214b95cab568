"""Control totals of a file: what was read is what was published and what was rejected, to the row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.rows import Warnings

DUPLICATE = "duplicate_key"
MOST_KEYS = 16_000_000
"""Keys remembered to find duplicates, 8 bytes each; of a longer file only the first so many are compared."""
_Hashes = npt.NDArray[np.uint64]


@dataclass
class Totals:
    """Of one file. Holds once it is published: `read == published + rejected`.

    warnings: how often, by field and reason; about the row as a whole: field `row`.
    rejects: the file that says why, if any row was rejected.
    """

    file: str
    topic: str
    digest: str
    read: int = 0
    published: int = 0
    rejected: int = 0
    warnings: Warnings = field(default_factory=Counter)
    rejects: Path | None = None
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For `--json` and the ledger; warnings nested by field."""
        by_field: dict[str, dict[str, int]] = {}
        for (name, reason), count in sorted(self.warnings.items()):
            by_field.setdefault(name, {})[reason] = count
        return {
            "file": self.file,
            "topic": self.topic,
            "digest": self.digest,
            "read": self.read,
            "published": self.published,
            "rejected": self.rejected,
            "warnings": by_field,
            "rejects": str(self.rejects) if self.rejects else None,
            "seconds": round(self.seconds, 3),
        }


class SeenKeys:
    """Counts keys of a file that came before, in bounded memory: sorted runs of hashes (64 bits).

    Two keys of the same hash count as one; with `MOST_KEYS` keys that happens once in 100,000 files.
    """

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._runs: list[_Hashes] = []
        self._most = most

    def again(self, keys: pl.Series) -> int:
        """How many of the keys came before, in this series or an earlier one."""
        if not len(keys) or sum(map(len, self._runs)) >= self._most:
            return 0
        hashes = keys.hash().to_numpy()
        fresh: _Hashes = np.unique(hashes)
        new = np.ones(len(fresh), dtype=bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, fresh), len(run) - 1)
            new &= run[at] != fresh
        fresh = fresh[new]
        if len(fresh):
            self._add(fresh)
        return len(hashes) - len(fresh)

    def _add(self, run: _Hashes) -> None:
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        self._runs.append(run)
