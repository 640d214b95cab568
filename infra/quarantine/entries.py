"""Quarantined records as columns of numbers, and what may be done with each. Pure: no broker, no value of a record.

An entry costs some fifty bytes whatever the size of its record, so a partition of a million entries is looked at in
50 MB.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_processors.quarantine import TOLD
from stream_processors.runtime.account import ATTEMPTS

_PREFIX = "__connect.errors."
_TOPIC, _PARTITION, _OFFSET, _ERROR = (
    _PREFIX + name for name in ("topic", "partition", "offset", "exception.class.name")
)
_FIELD = "lethe.errors.field"
_KEEPS_ITS_FAULT = "WrongPartition"
CLASSES = (
    "NullKey", "BadMagicByte", "UnknownSchemaId", "Undecodable", "RecordTooLarge", "KeyMismatch", "BadId",
    "WrongPartition", "OutOfDomain",
)  # fmt: skip
"""Why a supplier's record is in quarantine."""
LATER = ("RefusedByGuard", "Expired")
"""Why a contribution is not published; see `refused.py`."""

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class Place:
    """What an entry says of the record that failed. `source_offset` -1: it does not say."""

    topic: str
    partition: int
    source_offset: int
    error: str
    field: str
    attempts: int
    told: bytes
    """The key that `governance.quarantine` tells of it under; empty if it does not say."""


def place_of(headers: Headers | None) -> Place:
    """The headers of an entry, read; those that are missing or not numbers come out as unknown."""
    found = {k: v.decode(errors="replace") for k, v in headers or () if v is not None}

    def number(name: str, default: int) -> int:
        text = found.get(name, "")
        return int(text) if text.isdecimal() else default

    return Place(
        found.get(_TOPIC, ""),
        number(_PARTITION, -1),
        number(_OFFSET, -1),
        found.get(_ERROR, "Unknown"),
        found.get(_FIELD, ""),
        number(ATTEMPTS, 0),
        found.get(TOLD, "").encode(),
    )


@dataclass(frozen=True)
class Filter:
    """Which entries. Empty or None: all. Times are when they were quarantined, since <= t < until, ms since 1970.
    Editions are those whose processors put them there, by the names that people use."""

    suppliers: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    editions: tuple[str, ...] = ()

    def of(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that are meant."""
        chosen = pl.lit(True)
        if self.datasets:
            chosen &= pl.col("dataset").is_in(self.datasets)
        if self.errors:
            chosen &= pl.col("error").is_in(self.errors)
        if self.since_ms is not None:
            chosen &= pl.col("at_ms") >= self.since_ms
        if self.until_ms is not None:
            chosen &= pl.col("at_ms") < self.until_ms
        return rows.filter(chosen)


@dataclass
class Collector:
    """Entries of one partition of one quarantine topic, in log order."""

    names: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    _columns: dict[str, array[int]] = field(
        default_factory=lambda: {
            "key": array("q"), "offset": array("q"), "at_ms": array("q"), "source_offset": array("q"),
            "size": array("l"), "name": array("l"), "attempts": array("l"), "partition": array("l"), "live": array("b"),
        }
    )  # fmt: skip

    def add(self, key: bytes, offset: int, at_ms: int, size: int | None, headers: Headers | None) -> None:
        """One record of the topic; `size` of its value in bytes, None for a tombstone."""
        dataset, _, source_key = key.partition(b"|")
        place = place_of(headers)
        name = (dataset.decode(errors="replace"), place.error, place.field, place.topic)
        for column, number in (
            ("key", hash(source_key)),
            ("offset", offset),
            ("at_ms", at_ms),
            ("source_offset", -1 if source_key.startswith(b"@") else place.source_offset),
            ("size", size or 0),
            ("name", self.names.setdefault(name, len(self.names))),
            ("attempts", place.attempts),
            ("partition", place.partition),
            ("live", size is not None),
        ):
            self._columns[column].append(number)

    def latest(self) -> pl.DataFrame:
        """The entries that are still there: the last of each key, unless that is a tombstone.

        Columns: dataset, error, field, source (topic), key (a hash of this process), offset, at_ms, source_offset,
        size, attempts, partition (the source's).
        """
        numbers = pl.DataFrame({k: np.asarray(v, dtype=np.int64) for k, v in self._columns.items()})
        parts = list(zip(*self.names, strict=True)) or [()] * 4
        names = pl.DataFrame(
            dict(zip(("dataset", "error", "field", "source"), parts, strict=True)),
            schema=dict.fromkeys(("dataset", "error", "field", "source"), pl.Categorical),
        ).with_row_index("name")
        joined = numbers.join(names.cast({"name": pl.Int64}), on="name", how="left", maintain_order="left")
        last = joined.unique(("dataset", "key"), keep="last", maintain_order=True)
        return last.filter(pl.col("live") == 1).drop("live", "name")


def decide(
    rows: pl.DataFrame, newest: Mapping[str, Mapping[str, NDArray[np.int64]]], home: str, at: int
) -> pl.DataFrame:
    """What may happen to each entry, as a column `why`: empty for one that may be put back.

    A record goes back only while it is itself the last word on its key: the very record of its source topic that
    failed. If there is a newer one, or none any more, putting it back would undo a correction or raise what was
    deleted.

    Args:
        rows: as of `Collector.latest`, of one partition.
        newest: source topic to `key` (sorted hashes) and `offset` (of the last record of each key; -1 for none).
        home: the supplier's topics without the dataset, `identified.<supplier>.`.
        at: the partition of the quarantine topic.
    """
    said = np.full(len(rows), -1, dtype=np.int64)
    topics, keys = rows["source"].cast(pl.String), rows["key"].to_numpy()
    for topic, found in newest.items():
        mine = (topics == topic).fill_null(False).to_numpy()
        if len(found["key"]):
            place = np.searchsorted(found["key"], keys[mine]).clip(max=len(found["key"]) - 1)
            said[mine] = np.where(found["key"][place] == keys[mine], found["offset"][place], -1)
    lost = (pl.col("source").cast(pl.String) != home + pl.col("dataset").cast(pl.String)) | (pl.col("partition") != at)
    return rows.with_columns(newest=pl.Series(said)).with_columns(
        why=pl.when(lost | (pl.col("source_offset") < 0))
        .then(pl.lit("no_place"))
        .when(pl.col("newest") != pl.col("source_offset"))
        .then(pl.lit("superseded"))
        .when(pl.col("error").cast(pl.String) == _KEEPS_ITS_FAULT)
        .then(pl.lit("wrong_partition"))
        .otherwise(pl.lit(""))
    )


def follow_newest(
    keys: NDArray[np.int64], newest: NDArray[np.int64], seen: Sequence[bytes | None], offsets: Sequence[int]
) -> None:
    """Take in records of a source topic: set, in place, the last offset of those keys that are asked for (sorted)."""
    if not len(keys) or not seen:
        return
    hashes = np.fromiter((hash(k) for k in seen), dtype=np.int64, count=len(seen))
    place = np.searchsorted(keys, hashes).clip(max=len(keys) - 1)
    asked = keys[place] == hashes
    np.maximum.at(newest, place[asked], np.asarray(offsets, dtype=np.int64)[asked])


def counts(rows: pl.DataFrame, by: Sequence[str] = ("dataset", "error", "field")) -> pl.DataFrame:
    """Entries by dataset, class of error and field: records, bytes, attempts at most, first_ms, last_ms."""
    return (
        rows.group_by(by)
        .agg(
            records=pl.len(),
            bytes=pl.col("size").sum(),
            attempts=pl.col("attempts").max(),
            first_ms=pl.col("at_ms").min(),
            last_ms=pl.col("at_ms").max(),
        )
        .with_columns(pl.col(by).cast(pl.String))
        .sort(by)
    )


@dataclass(frozen=True)
class Pace:
    """At most `rate` records a second, on the average since it began."""

    rate: float | None
    began: float

    def wait(self, done: int, now: float) -> float:
        """Seconds to wait before the next, after so many."""
        return max(0.0, self.began + done / self.rate - now) if self.rate else 0.0
