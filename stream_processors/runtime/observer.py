"""What a worker tells whoever watches it: batches, places in the log, restores. Watching changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from stream_processors.runtime.records import Emit, Inputs

Part = Literal["compute", "commit", "apply"]
Ending = Literal["committed", "aborted", "session_lost"]


@dataclass(frozen=True)
class Place:
    """Where a worker is on one partition of one input, in offsets: the next that it reads, and the end of the log."""

    topic: str
    partition: int
    next: int
    end: int


@dataclass(frozen=True)
class Batch:
    """One committed batch. `seconds`: how long each part took; `counts`: what the processor counted, by name."""

    inputs: Sequence[Inputs]
    outputs: Sequence[Emit]
    counts: Mapping[str, int]
    seconds: Mapping[Part, float] = field(default_factory=dict)


class Observer(Protocol):
    """Told from the worker's own thread; must return at once and raise nothing."""

    def turned(self) -> None:
        """The loop has made a turn: it lives."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """These partition numbers are served from now on, restored and caught up with their own state."""

    def revoked(self) -> None:
        """No partition is served until the next assignment."""

    def restoring(self, partition: int, topic: str, done: int, end: int) -> None:
        """State of a partition is restored from a topic: offsets read so far, and where it ends."""

    def batch(self, batch: Batch) -> None:
        """A batch is committed and applied."""

    def ended(self, how: Ending) -> None:
        """A transaction ended, or a session was lost."""

    def places(self, places: Sequence[Place]) -> None:
        """Where the worker is, about once a second."""


class Unobserved:
    """Nobody watches."""

    def turned(self) -> None:
        """Nothing."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """Nothing."""

    def revoked(self) -> None:
        """Nothing."""

    def restoring(self, partition: int, topic: str, done: int, end: int) -> None:
        """Nothing."""

    def batch(self, batch: Batch) -> None:
        """Nothing."""

    def ended(self, how: Ending) -> None:
        """Nothing."""

    def places(self, places: Sequence[Place]) -> None:
        """Nothing."""
