"""Which records on disk are dead: deleted, replaced or aborted, and not cleaned away yet; and since when.

One pass over a partition's segments, in order of offset, with one entry in memory for each of its keys.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from infra.destruction.segments import Batch, Segment, UnreadableSegmentError, batches


@dataclass(slots=True)
class Dead:
    """Dead values of a partition. `since`: when the oldest died (ms since 1970), `offset`: where it lies."""

    count: int = 0
    since: int | None = None
    offset: int = -1

    def add(self, since: int, offset: int) -> None:
        """Count one."""
        self.count += 1
        if self.since is None or since < self.since:
            self.since, self.offset = since, offset


@dataclass(slots=True)
class OnDisk:
    """What a partition's segments hold. `live`: values that a reader gets. `destroyed`: dead values at offsets that the
    ledger names; `undead`: live ones at such offsets. `unreadable`: files that could not be read to their end."""

    records: int = 0
    live: int = 0
    dead: Dead = field(default_factory=Dead)
    destroyed: Dead = field(default_factory=Dead)
    undead: list[int] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    bytes: int = 0


def on_disk(
    folder_segments: list[Segment],
    ledgered: frozenset[int] | set[int],
    now_ms: int,
    look: Callable[[Batch], None] = lambda _: None,
) -> OnDisk:
    """What lies in a partition. `ledgered`: offsets of destroyed records; `look` is shown each batch, decompressed."""
    found = OnDisk()
    current = [s for s in folder_segments if not s.retired]
    ends = _markers(current, found)
    last: dict[bytes, tuple[int, bool]] = {}
    """Key to the offset of its last record, and whether it has a value."""
    values = 0
    for segment in current:
        for batch in _read(segment, found, look):
            aborted_at = _aborted(batch, ends)
            for r in batch.records():
                found.records += 1
                if r.value is not None:
                    found.bytes += len(r.value)
                if aborted_at is not None:
                    if r.value is not None:
                        _bury(found, r.offset, aborted_at, ledgered)
                    continue
                key = r.key if r.key is not None else b""
                before = last.get(key)
                if before is not None and before[1]:
                    values -= 1
                    _bury(found, before[0], r.time, ledgered)
                last[key] = (r.offset, r.value is not None)
                values += r.value is not None
    found.live = values
    found.undead = sorted(offset for offset, has_value in last.values() if has_value and offset in ledgered)
    for segment in (s for s in folder_segments if s.retired):
        _retired(segment, found, last, ledgered, now_ms, look)
    return found


def _bury(found: OnDisk, offset: int, since: int, ledgered: frozenset[int] | set[int]) -> None:
    found.dead.add(since, offset)
    if offset in ledgered:
        found.destroyed.add(since, offset)


def _retired(
    segment: Segment,
    found: OnDisk,
    last: dict[bytes, tuple[int, bool]],
    ledgered: frozenset[int] | set[int],
    now_ms: int,
    look: Callable[[Batch], None],
) -> None:
    """A file on its way out: what is live lies elsewhere too; the rest is dead at least since the file was renamed."""
    try:
        since = min(now_ms, int(segment.path.stat().st_ctime * 1000))
    except FileNotFoundError:
        return
    for batch in _read(segment, found, look):
        for r in batch.records():
            if r.value is not None and last.get(r.key or b"") != (r.offset, True):
                _bury(found, r.offset, since, ledgered)


def _read(segment: Segment, found: OnDisk, look: Callable[[Batch], None]) -> Iterator[Batch]:
    try:
        for batch in batches(segment.path):
            look(batch)
            yield batch
    except FileNotFoundError:  # the broker has removed it, which is what is wanted
        return
    except UnreadableSegmentError as e:
        found.unreadable.append(str(e))


Ends = dict[int, tuple[list[int], list[tuple[bool, int]]]]
"""Producer to the offsets of its markers, and for each whether it committed, and when."""


def _markers(current: list[Segment], found: OnDisk) -> Ends:
    ends: Ends = {}
    for segment in current:
        for batch in _read(segment, found, lambda _: None):
            if batch.marker is not None:
                offsets, kinds = ends.setdefault(batch.producer, ([], []))
                offsets.append(batch.offset)
                kinds.append((batch.marker, batch.time))
    found.unreadable.clear()  # the second pass says so again
    return ends


def _aborted(batch: Batch, ends: Ends) -> int | None:
    """When the batch's transaction was aborted, if it was. A marker that the cleaner has removed was a commit's: it
    removes what was aborted before it removes the marker."""
    if not batch.transactional or batch.producer not in ends:
        return None
    offsets, kinds = ends[batch.producer]
    at = bisect_left(offsets, batch.offset)
    if at == len(offsets):
        return None
    committed, time = kinds[at]
    return None if committed else time
