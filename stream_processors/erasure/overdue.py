"""In pseudonymise: what has expired leaves its source, too, and what came meanwhile stays.

retention destroys at the head of the linkage zone, and cannot tell which record of a supplier stands behind a
reference. pseudonymise can: when a day is confirmed it looks through what it has read of its partition, and from then
on at each record that it reads.

A supplier may write a key between the record that expired and the tombstone, which then hits what it was not meant for.
So what is written here carries a mark: up to which offset the log was known. It is read back, and if the supplier has
written in between, that is written again, with a mark of its own. See ADR 25.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import overload

import msgpack
import polars as pl

from schemas import contracts
from schemas.contracts import Contract
from schemas.registry import SchemaIds
from stream_processors import clock
from stream_processors.clock import Clock
from stream_processors.erasure.reading import held_until, received
from stream_processors.retention_policy import RetentionPolicy, expires_on
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import Table, View

TABLES = (Table("today", "memory"), Table("ending", "memory"))
"""The clock and the offset up to which it was told, the day that was looked through for, how many marks are under way;
and by topic and key which."""
READS = (clock.TOPIC,)
MARK = "lethe.source"
"""Header of what pseudonymise writes over a supplier's record because it expired: the offset up to which it knew the
log of the key."""

WINDOW = "lethe.window"
"""Header beside a mark where the record did not expire but its subject's linkage window ended: the day, ISO 8601."""

_TOLD, _SWEPT, _UNDER_WAY = b"told", b"swept", b"under way"
_MOST_DIGITS = 18


class _Marks(Sequence[list[tuple[str, bytes]]]):
    """The headers of what is written over records at these offsets, made when they are asked for: a day can end a
    million records, and their headers would take more memory than all else that is said of them."""

    def __init__(self, after: Sequence[int], window: date | None) -> None:
        self._after = after
        self._besides = [(WINDOW, window.isoformat().encode())] if window is not None else []

    @overload
    def __getitem__(self, index: int) -> list[tuple[str, bytes]]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[tuple[str, bytes]]]: ...
    def __getitem__(self, index: int | slice) -> list[tuple[str, bytes]] | list[list[tuple[str, bytes]]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return [(MARK, b"%d" % self._after[index]), *self._besides]

    def __len__(self) -> int:
        return len(self._after)


@dataclass(slots=True)
class _Way:
    """A mark that has not been read back. `came`: whether the supplier wrote the key meanwhile; `latest`: what."""

    after: int
    came: bool = False
    latest: bytes | None = None

    def packed(self) -> bytes:
        packed: bytes = msgpack.packb([self.after, self.came, self.latest])
        return packed


class SourceExpiry:
    """Holds after each step: of what was read of the partition, no record that has expired by the confirmed day lives
    at its source without a tombstone written after it."""

    def __init__(self, policy: RetentionPolicy, schema_ids: SchemaIds) -> None:
        self._policy, self._ids = policy, schema_ids

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> None:
        """What day it is. Each tick counts once, though at a start all of them are recalled and then read."""
        for batch in inputs:
            if batch.topic != clock.TOPIC or not batch.offsets:
                continue
            told = int(view.get_many("today", [_TOLD])[0] or b"0")
            new = batch.only([row for row, offset in enumerate(batch.offsets) if offset >= told])
            view.put("today", clock.ROW, self._clock(view).after([new]).packed())
            view.put("today", _TOLD, str(max(told, batch.offsets[-1] + 1)).encode())

    def day(self, view: View) -> date | None:
        """The confirmed day, or None."""
        return self._clock(view).day

    def sweep(self, view: View, out: Outputs) -> None:
        """If a day was confirmed: tombstones for all that was read before this batch and has expired by it."""
        day = self.day(view)
        done = day.isoformat().encode() if day is not None else None
        if day is None or view.get_many("today", [_SWEPT]) == [done]:
            return
        view.put("today", _SWEPT, done)
        found: dict[str, dict[bytes, int]] = {}
        for batch in view.history("identified.*"):
            _, supplier, dataset = batch.topic.split(".")
            if dataset == contracts.ENQUIRY:
                continue
            over = self.over(batch, contracts.identified(supplier, dataset), day)
            held = found.setdefault(batch.topic, {})
            if not over and not held:
                continue
            for row, (key, offset) in enumerate(zip(batch.keys, batch.offsets, strict=True)):
                if key is None:
                    continue
                if row in over:
                    held[key] = offset
                else:
                    held.pop(key, None)
        for topic, held in found.items():
            known = self.known(view, topic, list(held))
            self.end(view, topic, {k: at for k, at in held.items() if known.get(k) != at}, out)

    def over(self, batch: Inputs, contract: Contract, day: date, rows: Iterable[int] | None = None) -> set[int]:
        """Rows (of these, of all) with a value that may no longer be held on a day."""
        valued = [r for r in (range(len(batch.keys)) if rows is None else rows) if batch.values[r] is not None]
        until = held_until(self._policy, batch, contract, self._ids, valued)
        return {row for row, ends in until.items() if ends <= day}

    def over_of(
        self, batch: Inputs, contract: Contract, day: date, rows: Sequence[int], frame: pl.DataFrame
    ) -> set[int]:
        """The same of rows that are decoded: `frame` has a row for each of `rows`."""
        over = frame.select(expires_on(self._policy, contract, received(batch, rows)) <= day).to_series()
        return set(itertools.compress(rows, over))

    def end(self, view: View, topic: str, keys: Mapping[bytes, int], out: Outputs, window: date | None = None) -> None:
        """Tombstones over records at these offsets. `window`: the day by which their subjects' windows had ended, if
        it is not that they have expired."""
        self._say(view, topic, dict.fromkeys(keys), keys, out, window)
        if window is None:
            out.count("expired", len(keys))

    def known(self, view: View, topic: str, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Of keys whose tombstone has not been read back, the offset of the record that it is over."""
        return {key: way.after for key, way in self._ways(view, topic, keys).items()}

    def put_back(self, view: View, batch: Inputs, out: Outputs) -> Inputs:
        """A batch of a supplier's records in which each mark that has hit what the supplier wrote stands for that,
        which is written again besides."""
        marks = {row: after for row in range(len(batch.keys)) if (after := mark_of(batch, row)) is not None}
        if not marks and not self._under_way(view):
            return batch
        distinct = list({k for k in batch.keys if k is not None})
        had = self._ways(view, batch.topic, distinct)
        ways = {key: replace(way) for key, way in had.items()}
        unknown = {key: after for row, after in marks.items()
                   if (key := batch.keys[row]) is not None and key not in ways
                   and batch.offsets[row] not in batch.superseded}  # fmt: skip
        between = self._written_before(view, batch.topic, unknown)
        values, headers = list(batch.values), list(batch.headers or [None] * len(batch.keys))
        again: dict[bytes, tuple[bytes | None, int]] = {}
        for row, (key, value, offset) in enumerate(zip(batch.keys, batch.values, batch.offsets, strict=True)):
            if key is None:
                continue
            after, way = marks.get(row), ways.get(key)
            if after is None:
                again.pop(key, None)
                if way is not None:
                    way.came, way.latest = True, value
                elif key in unknown and offset > unknown[key]:
                    between[key] = value
                continue
            if way is not None and way.after == after:
                del ways[key]
                came, latest = way.came, way.latest
            elif way is None and key in unknown:
                came, latest = key in between, between.pop(key, None)
            else:
                continue  # said again while all is read anew, or another mark of the key is still to come
            if came and latest != value:
                values[row], headers[row] = latest, None
                again[key] = (latest, offset)
                ways[key] = _Way(offset)
        gone = [key for key in had if key not in ways]
        self._keep(view, batch.topic, {**dict.fromkeys(gone), **ways})
        self._say(
            view, batch.topic, {k: v for k, (v, _) in again.items()}, {k: at for k, (_, at) in again.items()}, out
        )
        out.count("put_back", len(again))
        return replace(batch, values=values, headers=headers)

    def _written_before(self, view: View, topic: str, after: Mapping[bytes, int]) -> dict[bytes, bytes | None]:
        """What the supplier wrote last of each key beyond an offset, in what was read before: of marks that an earlier
        process has left."""
        found: dict[bytes, bytes | None] = {}
        if not after:
            return found
        for batch in view.history(topic):
            for row, (key, offset) in enumerate(zip(batch.keys, batch.offsets, strict=True)):
                if key is not None and offset > after.get(key, offset) and mark_of(batch, row) is None:
                    found[key] = batch.values[row]
        return found

    def _say(
        self,
        view: View,
        topic: str,
        values: Mapping[bytes, bytes | None],
        after: Mapping[bytes, int],
        out: Outputs,
        window: date | None = None,
    ) -> None:
        self._keep(view, topic, {key: _Way(at) for key, at in after.items()})
        marks = _Marks([after[key] for key in values], window)
        out.emit(topic, view.partition, list(values), list(values.values()), marks)

    def _ways(self, view: View, topic: str, keys: Sequence[bytes]) -> dict[bytes, _Way]:
        if not self._under_way(view):
            return {}
        rows = view.get_many("ending", [_row(topic, key) for key in keys])
        return {key: _Way(*msgpack.unpackb(row)) for key, row in zip(keys, rows, strict=True) if row is not None}

    def _keep(self, view: View, topic: str, ways: Mapping[bytes, _Way | None]) -> None:
        had = view.get_many("ending", [_row(topic, key) for key in ways])
        n = self._under_way(view)
        for (key, way), row in zip(ways.items(), had, strict=True):
            view.put("ending", _row(topic, key), way.packed() if way is not None else None)
            n += (way is not None) - (row is not None)
        view.put("today", _UNDER_WAY, str(n).encode())

    def _under_way(self, view: View) -> int:
        return int(view.get_many("today", [_UNDER_WAY])[0] or b"0")

    def _clock(self, view: View) -> Clock:
        return Clock.unpacked(view.get_many("today", [clock.ROW])[0])


def mark_of(batch: Inputs, row: int) -> int | None:
    """The offset that a mark on a record names, or None without one. A supplier may have written anything there."""
    for name, value in (batch.headers[row] if batch.headers else None) or ():
        if name == MARK and value is not None and value.isdigit() and len(value) <= _MOST_DIGITS:
            return int(value)
    return None


def window_of(batch: Inputs, row: int) -> date | None:
    """The day that stands beside a mark where a linkage window ended, or None. A supplier may have written anything."""
    if mark_of(batch, row) is not None and batch.headers is not None:
        for name, value in batch.headers[row] or ():
            if name == WINDOW and value is not None:
                try:
                    return date.fromisoformat(value.decode())
                except ValueError:
                    return None
    return None


def _row(topic: str, key: bytes) -> bytes:
    return topic.encode() + b"\0" + key
