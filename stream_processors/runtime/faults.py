"""Where a crash test may kill a worker: the steps around a commit, by name. Nothing happens unless one is asked for."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import Literal, get_args

Point = Literal[
    "taken",  # a batch is consumed, nothing is produced
    "produced",  # outputs are with the producer, the offsets are not
    "offsets_sent",  # outputs and offsets are in the open transaction
    "committed",  # Kafka has it, the local store does not
    "applied",  # both have it
    "restoring",  # half of a state is rebuilt
]


@dataclass
class Faults:
    """Kill this process with SIGKILL when a point is reached for the n-th time."""

    point: Point | None = None
    after: int = 1
    _seen: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Faults:
        """`point:n`, or an empty text for none.

        Raises:
            ValueError: no such point.
        """
        if not text:
            return cls()
        point, _, after = text.partition(":")
        if point not in get_args(Point):
            raise ValueError(f"no such fault point; there are {', '.join(get_args(Point))}")
        return cls(point, int(after or 1))  # type: ignore[arg-type]

    def reach(self, point: Point) -> None:
        """Die here, if that was asked for."""
        if point != self.point:
            return
        self._seen[point] = self._seen.get(point, 0) + 1
        if self._seen[point] >= self.after:
            os.kill(os.getpid(), signal.SIGKILL)
