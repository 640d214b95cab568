"""What moves between a processor and the log: batches of keys and values, a partition of a topic at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

HEARTBEAT_KEY = b"__heartbeat__"
"""Reserved on every topic: a null value under it makes segments roll. No processor sees it."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Records of one partition of one topic, in log order. `times` are the broker's, in ms since 1970.

    `headers` are those of each record, for a processor that declares to look at them; not while state is restored.
    """

    topic: str
    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    offsets: Sequence[int]
    times: Sequence[int]
    headers: Sequence[Sequence[tuple[str, bytes]] | None] | None = None
    superseded: frozenset[int] = frozenset()
    """Offsets of records that a later one of the same key, further on in the log, replaces: of these nothing is to be
    said. Known only while a processor that keeps nothing reads its inputs again."""

    def latest(self) -> dict[bytes, bytes | None]:
        """Last value of each key, in order of first appearance: what a table holds after this batch."""
        return {k: v for k, v in zip(self.keys, self.values, strict=True) if k is not None}

    def only(self, rows: Sequence[int]) -> Inputs:
        """Some of its records, by their places."""
        return Inputs(
            self.topic,
            self.partition,
            [self.keys[r] for r in rows],
            [self.values[r] for r in rows],
            [self.offsets[r] for r in rows],
            [self.times[r] for r in rows],
            [self.headers[r] for r in rows] if self.headers is not None else None,
            self.superseded,
        )


@dataclass(frozen=True, slots=True)
class Emit:
    """Records for one topic. `partitions` has one entry per record, or one for all. A null value is a tombstone."""

    topic: str
    partitions: Sequence[int] | int
    keys: Sequence[bytes]
    values: Sequence[bytes | None]
    headers: Sequence[list[tuple[str, bytes]]] | None = None


@dataclass(slots=True)
class Outputs:
    """What one step says, and counts of it by name (for logs and control totals; never a value of a person).

    `tallies`: what became of the records of an input, by topic and publication (empty for all), for its account.
    `more`: not all was said that is to be said: a step without records says what comes next.
    """

    emits: list[Emit] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    tallies: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    more: bool = False

    def emit(
        self,
        topic: str,
        partitions: Sequence[int] | int,
        keys: Sequence[bytes],
        values: Sequence[bytes | None],
        headers: Sequence[list[tuple[str, bytes]]] | None = None,
    ) -> None:
        """Add records, if there are any."""
        if len(keys):
            self.emits.append(Emit(topic, partitions, keys, values, headers))

    def tally(self, topic: str, name: str, n: int, batch: str = "") -> None:
        """Add to what became of the records of a topic."""
        if n:
            of = self.tallies.setdefault((topic, batch), {})
            of[name] = of.get(name, 0) + n

    def count(self, name: str, n: int = 1) -> None:
        """Add to a count."""
        if n:
            self.counts[name] = self.counts.get(name, 0) + n
