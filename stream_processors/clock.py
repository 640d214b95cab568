"""What day it is, as ticks of `governance.clock` say: a day counts once it is confirmed, and never goes back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

import msgpack

from schemas import contracts, wire
from schemas.codec import decode
from stream_processors.runtime.records import Inputs

ROW = b"clock"
"""Where a processor's state keeps the clock: in its changelog, for the topic holds the last tick only."""

EPOCH = date(1970, 1, 1)
"""Day 0 of Avro's dates."""
_CONTRACT = contracts.contract("governance/clock")
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

    def after(self, inputs: Iterable[Inputs]) -> Clock:
        """The clock after the ticks of a batch; inputs of other topics are passed over."""
        now = self
        for batch in inputs:
            bodies = [v[wire.HEADER_BYTES :] for v in batch.values if v is not None] if batch.topic == TOPIC else []
            for day in decode(bodies, _CONTRACT).column("as_of").to_pylist() if bodies else ():
                now = now.tick((day - EPOCH).days)
        return now

    @property
    def day(self) -> date | None:
        """The confirmed day."""
        return None if self.confirmed is None else EPOCH + timedelta(self.confirmed)

    def packed(self) -> bytes:
        """As `ROW` has it."""
        row: bytes = msgpack.packb([self.confirmed, self.pending])
        return row

    @classmethod
    def unpacked(cls, row: bytes | None) -> Clock:
        """From a row; without one, a clock that was told nothing."""
        return cls(*msgpack.unpackb(row)) if row else cls()


DAY_DIGITS = 10


def day_key(days: int) -> bytes:
    """A day as text that sorts as days do, those before 1970 included (Avro's dates have 32 bits)."""
    return b"%010d" % (days + 2**31)


def day_of(key: bytes) -> int:
    """The day of such a text."""
    return int(key) - 2**31


def days_up_to(day: int, after: int | None) -> list[bytes]:
    """Prefixes of the keys of days up to `day`; those that lie wholly at or before `after` are left out where they can
    be."""
    last, known = day_key(day), day_key(after) if after is not None else b""
    found = [last[:i] + bytes([d]) for i in range(DAY_DIGITS) for d in range(ord("0"), last[i])]
    return [p for p in [*found, last] if p >= known[: len(p)]]
