"""When the real clock may tick: only if it agrees with the time that has passed.

A clock that somebody sets a day forth is the one way to destroy too early, so a reading counts only if the wall clock
has moved by as much as the monotonic one since the reading before. A clock that was corrected ticks again one interval
later; one that jumps to and fro never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from schemas.registry import SchemaIds
from schemas.rows import to_value
from stream_processors.clock import TOPIC

TOLERANCE_MS = 5_000


@dataclass(frozen=True)
class Reading:
    """The wall clock (ms since 1970) and the monotonic clock (ms since anything) at one moment."""

    wall_ms: int
    monotonic_ms: int

    @property
    def day(self) -> date:
        """The day in UTC."""
        return datetime.fromtimestamp(self.wall_ms / 1000, UTC).date()


def may_tick(before: Reading | None, now: Reading, tolerance_ms: int = TOLERANCE_MS) -> bool:
    """Whether a reading is to be believed; the first one never is."""
    if before is None:
        return False
    wall, passed = now.wall_ms - before.wall_ms, now.monotonic_ms - before.monotonic_ms
    return abs(wall - passed) <= tolerance_ms


def tick_value(day: date, ids: SchemaIds) -> bytes:
    """A tick, the same for every partition of `governance.clock`; its key is `stream_processors.clock.KEY`."""
    return to_value(TOPIC, {"as_of": day}, ids)
