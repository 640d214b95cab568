"""Deletions whose bytes may still be on the local broker's disk: those that its cleaner has not come to.

The cleaner writes down how far it has cleaned each partition (`cleaner-offset-checkpoint`). A tombstone before that has
taken its key's older values with it; the first one after it is the oldest whose bytes may be there. Only what comes
after the checkpoint is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.destruction.segments import PartitionFolder, UnreadableSegmentError, batches, partition_folders, segments
from infra.destruction.topics import PERSONAL
from stream_processors.runtime.records import HEARTBEAT_KEY

CHECKPOINT = "cleaner-offset-checkpoint"


@dataclass(frozen=True)
class Waiting:
    """Of a topic: in how many partitions a deletion waits for the cleaner, and when the oldest came (ms since 1970)."""

    topic: str
    partitions: int
    oldest_ms: int


@dataclass(frozen=True)
class Deletions:
    """What waits, the oldest first; `unread`: partitions that there was no time to look at, or that cannot be read."""

    waiting: tuple[Waiting, ...]
    unread: int


def deletions(data: Path, seconds: float = 5.0, clock: Callable[[], float] = time.monotonic) -> Deletions:
    """What waits in the topics that hold personal data, below a broker's log directory."""
    until = clock() + seconds
    cleaned = checkpoint(data)
    oldest: dict[str, list[int]] = {}
    unread = 0
    for folder in partition_folders(data):
        if folder.deleted or folder.topic.partition(".")[0] not in PERSONAL:
            continue
        if clock() > until:
            unread += 1
            continue
        try:
            first = _first(folder, cleaned.get((folder.topic, folder.partition), 0))
        except (UnreadableSegmentError, OSError):
            unread += 1
            continue
        if first is not None:
            oldest.setdefault(folder.topic, []).append(first)
    found = [Waiting(topic, len(times), min(times)) for topic, times in oldest.items()]
    return Deletions(tuple(sorted(found, key=lambda w: (w.oldest_ms, w.topic))), unread)


def checkpoint(data: Path) -> dict[tuple[str, int], int]:
    """The offset up to which each partition is cleaned."""
    try:
        lines = (data / CHECKPOINT).read_text().splitlines()
    except OSError:
        return {}
    rows = [line.rsplit(" ", 2) for line in lines[2:]]
    return {(topic, int(partition)): int(offset) for topic, partition, offset in rows}


def _first(folder: PartitionFolder, start: int) -> int | None:
    current = [s.path for s in segments(folder.path) if not s.retired]
    for i, path in enumerate(current):
        if i + 1 < len(current) and int(current[i + 1].name[:20]) <= start:
            continue  # it ends before
        for batch in batches(path):
            for r in batch.records():
                if r.offset >= start and r.value is None and r.key != HEARTBEAT_KEY:
                    return r.time
    return None
