"""Which enquiries are let in: authentic, fresh, not seen before, and not too many.

What it remembers is `governance.audit`: a desk that starts anew is told what is in it, and goes on as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.contracts import UnknownSupplierError, kind_of
from stream_processors.control.signing import Request, authentic

HOUR_MS = 3_600_000
Reason = Literal["malformed", "unauthenticated", "stale", "replayed", "unknown", "too_many"]


@dataclass(frozen=True)
class Place:
    """Where a request lies in `governance.enquiry`."""

    partition: int
    offset: int


@dataclass(frozen=True)
class Entry:
    """An enquiry that was let in, when (ms since 1970, the broker's clock) and from where."""

    council: str
    received_ms: int
    place: Place


@dataclass(frozen=True)
class Limits:
    """per_hour: enquiries of one council. skew_ms: how far a council's clock may be off, and how long a request is
    fresh."""

    per_hour: int = 60
    skew_ms: int = 300_000


@dataclass
class Desk:
    """State of the decision: who was let in during the last hour, by the enquiry's id."""

    limits: Limits
    secret_of: Callable[[str], bytes | None]
    is_supplier: Callable[[str], bool]
    """Whether the council has topics: a question to one that has none would be waited for, and hold up all others'."""
    entries: dict[str, Entry] = field(default_factory=dict)

    def refusal(self, request: Request, received_ms: int, place: Place | None = None) -> Reason | None:
        """Why a request is not let in, or None. Changes nothing.

        The same record met again (`place`) is no replay: a worker that was killed goes on where it was.
        """
        if not request.well_formed or not _is_council(request.council):
            return "malformed"
        if not authentic(request, self.secret_of(request.council)):
            return "unauthenticated"
        known = self.entries.get(request.enquiry_id)
        if known is not None:
            return None if known.place == place else "replayed"
        if not self.is_supplier(request.council):
            return "unknown"
        if abs(received_ms - request.asked_ms) > self.limits.skew_ms:
            return "stale"
        since = received_ms - HOUR_MS
        lately = sum(e.council == request.council and e.received_ms > since for e in self.entries.values())
        return "too_many" if lately >= self.limits.per_hour else None

    def let_in(self, request: Request, received_ms: int, place: Place) -> None:
        """Remember it. What is older than an hour and a stale request can be is forgotten."""
        horizon = received_ms - HOUR_MS - 2 * self.limits.skew_ms
        self.entries = {k: e for k, e in self.entries.items() if e.received_ms > horizon}
        self.entries.setdefault(request.enquiry_id, Entry(request.council, received_ms, place))

    def recall(self, audits: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Take in records of `governance.audit` by key."""
        for key, row in audits:
            if row["decision"] == "accepted":
                place = Place(row["partition"], row["offset"])
                self.entries[key] = Entry(row["council"], row["asked_ms"], place)


def _is_council(name: str) -> bool:
    try:
        return kind_of(name) == "council"
    except UnknownSupplierError:
        return False
