"""What day it is, as ticks of `governance.clock` say: a day counts once it is confirmed, and never goes back."""

from __future__ import annotations

from dataclasses import dataclass

TOPIC = "governance.clock"
KEY = b"clock"


@dataclass(frozen=True, slots=True)
class Clock:
    """`confirmed`: the day that all up to it has expired at. `pending`: a day that waits for a later tick.

    Days since 1970-01-01; None before there was one.
    """

    confirmed: int | None = None
    pending: int | None = None

    def tick(self, day: int) -> Clock:
        """The clock after a tick.

        The day after the confirmed one, and that one itself, count at once. A tick further ahead, and the very first,
        waits until a later day is told, and is forgotten if an earlier one is: so a clock that was wrong on one tick,
        by years or told twice, destroys nothing early. What lies before the confirmed day changes nothing of it.
        """
        confirmed, pending = self.confirmed, self.pending
        if pending is not None and day > pending:
            confirmed, pending = pending, None
        elif pending is not None and day < pending:
            pending = None
        if confirmed is None or day > confirmed + 1:
            pending = day
        elif day > confirmed:
            confirmed = day
        return Clock(confirmed, pending)
