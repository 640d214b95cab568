"""Sources that a test makes: everything is there, and a canary is in what must never be on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from infra.console.sources import Chosen, Countdown, LedgerView, Requeued
from infra.monitoring.picture import Sample, Seen, Stage, picture
from infra.rest import Lag
from stream_processors.enquiry.person import PersonAsked

CANARY = "Quuxbegum"
TOKEN = "a-token-of-this-run"
LATE = Lag("join", "linkage.activity", 0, 100, 130)


@dataclass
class FakeSources:
    """`asked`: what was done. `failing`: raised by everything."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    failing: Exception | None = None

    def flow(self) -> list[Stage]:
        if self.failing:
            raise self.failing
        seen = (
            Seen("join", 1, 7, "catching up", {"3": 0.4}),
            Seen("route", 1, 8, "ready"),
            Seen("link", 1, 9, "stuck"),
        )
        return picture(Sample(0, [LATE], {}, seen), Sample(2, [LATE], {LATE: (30, 700.0)}, seen))

    def alerts(self) -> list[Mapping[str, Any]]:
        return [{"kind": "quarantine_ratio", "where": "dfe.person", "severity": "critical", "count": 1_200}]

    def batches(self) -> list[Mapping[str, Any]]:
        counts = {"read": 10, "rejected": 1, "published": 9, "accepted": 8, "quarantined": 1}
        one = {"supplier": "dfe", "dataset": "person", "batch_id": "b1", "state": "agreed", **counts}
        return [one, {**one, "supplier": "moj", "state": "pending", "accepted": None, "quarantined": None}]

    def quarantine(self) -> list[Mapping[str, Any]]:
        return [{"supplier": "dfe", "dataset": "person", "error": "BadId", "field": "UPN", "records": 1_234}]

    def requeue(self, chosen: Chosen, reason: str, by: str, *, execute: bool) -> Requeued:
        self.asked.append((chosen, reason, by, execute))
        return Requeued(execute, 1_200, {"superseded": 34}, "op1" if execute else None)

    def countdown(self) -> Countdown:
        return Countdown(date(2022, 12, 31), 120, {("dfe", "absence"): {0: 0, 30: 5, 365: 4_000}})

    def ledger(self) -> LedgerView:
        return LedgerView(3, {"expiry": 2, "erasure": 1}, [], ["certificate-2022-12-31.json"])

    def councils(self) -> list[str]:
        return ["council-northam"]

    def enquire(self, council: str, details: Mapping[str, str]) -> dict[str, Any]:
        PersonAsked.of(details)
        self.asked.append((council, dict(details)))
        holding = {"supplier": "dfe", "dataset": "absence", "records": 2, "since": "2015-09-01", "until": "2022-12-31"}
        held = [holding | {"purpose": "to compare attendance"}]
        return {"outcome": "held", "reason": None, "holdings": held, "how_to_object": "Write to your council."}
