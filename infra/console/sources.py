"""What the console shows and does, asked of the same functions as the commands ask."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from infra.monitoring.picture import Sample, Sampler, Stage, picture
from infra.settings import Settings

DUE_DAYS = (0, 30, 365)


@dataclass(frozen=True)
class Countdown:
    """Retention: the hard stop, days left until it, and records due by supplier and dataset on some days from now."""

    hard_stop: date
    days_left: int
    due: Mapping[tuple[str, str], Mapping[int, int]]


@dataclass(frozen=True)
class LedgerView:
    """The ledger of destruction: lines, lines by reason, what its check found, and certificates by file name."""

    lines: int
    by_reason: Mapping[str, int]
    faults: Sequence[str]
    certificates: Sequence[str] = ()


@dataclass(frozen=True)
class Requeued:
    """What a requeue did, or would do: records put back, and those left by reason."""

    executed: bool
    done: int
    left: Mapping[str, int]
    operation: str | None = None


@dataclass(frozen=True)
class Chosen:
    """Which entries of quarantine are meant."""

    supplier: str
    dataset: str
    error: str


class Sources(Protocol):
    """Everything that a page asks for. Whoever cannot answer raises KafkaException or ConnectionError."""

    def flow(self) -> list[Stage]:
        """The flow now, with rates since the look before."""

    def alerts(self) -> list[Mapping[str, Any]]:
        """Open alerts."""

    def batches(self) -> list[Mapping[str, Any]]:
        """Suppliers' batches and their reconciliation."""

    def quarantine(self) -> list[Mapping[str, Any]]:
        """Counts by supplier, dataset, error and field."""

    def requeue(self, chosen: Chosen, reason: str, by: str, *, execute: bool) -> Requeued:
        """Put entries back, or say what would be."""

    def countdown(self) -> Countdown:
        """What is due when."""

    def ledger(self) -> LedgerView:
        """What was destroyed."""

    def councils(self) -> list[str]:
        """Councils whose secret lies here: for them an enquiry can be asked."""

    def enquire(self, council: str, details: Mapping[str, str]) -> dict[str, Any]:
        """The answer to an enquiry.

        Raises:
            PersonError, EnquiryRefusedError, NotAnsweredError, KeyFileError: with words that hold no value.
        """


@dataclass
class ClusterSources:
    """The sources of a running stack."""

    settings: Settings
    _sampler: Sampler | None = None
    _before: Sample | None = None
    _looking: threading.Lock = field(default_factory=threading.Lock)

    def flow(self) -> list[Stage]:
        """See `Sources`."""
        with self._looking:
            self._sampler = self._sampler or Sampler(self.settings)
            now = self._sampler.sample()
            stages = picture(self._before, now)
            self._before = now
            return stages

    def alerts(self) -> list[Mapping[str, Any]]:
        """See `Sources`."""
        return self._rows("governance.alert")

    def batches(self) -> list[Mapping[str, Any]]:
        """See `Sources`."""
        return sorted(
            self._rows("governance.reconciliation"), key=lambda r: (r["supplier"], r["dataset"], r["batch_id"])
        )

    def quarantine(self) -> list[Mapping[str, Any]]:
        """See `Sources`."""
        from infra.monitoring.picture import quarantined_fields
        from schemas.registry import Registry

        registry = Registry(self.settings.registry, deadline_seconds=5)
        try:
            counts = quarantined_fields(self.settings, registry)
        finally:
            registry.close()
        names = ("supplier", "dataset", "error", "field")
        return [dict(zip(names, key, strict=True)) | {"records": n} for key, n in sorted(counts.items())]

    def requeue(self, chosen: Chosen, reason: str, by: str, *, execute: bool) -> Requeued:
        """See `Sources`."""
        from infra.operation import Operation, OperationLog, now_ms
        from infra.quarantine.entries import Filter
        from infra.quarantine.work import Work
        from schemas.registry import Registry
        from stream_processors.access import QUARANTINE
        from stream_processors.edition import edition_of

        settings = self.settings.acting_as(QUARANTINE)
        supplier, _ = edition_of(chosen.supplier)  # in all editions: it is the same record at its source
        meant = Filter((supplier,), (chosen.dataset,), (chosen.error,))
        work = Work(settings, "requeue", meant)
        if not execute:
            tally = work.preview()
            return Requeued(False, tally.done, tally.left)
        log = OperationLog(settings, Registry(settings.registry, deadline_seconds=10))
        what = {**vars(meant), "rate": None, "superseded": False}
        operation = Operation("quarantine_requeue", by, reason, what, now_ms())
        tally = work.execute(operation, log)
        return Requeued(True, tally.done, tally.left, operation.operation_id)

    def countdown(self) -> Countdown:
        """See `Sources`."""
        from infra.held import due
        from infra.policy import configured_policy

        stop, today = configured_policy(self.settings).hard_stop, datetime.now(UTC).date()
        found: dict[tuple[str, str], dict[int, int]] = {}
        for days in DUE_DAYS:
            for key, n in due(self.settings, today + timedelta(days), stop).items():
                found.setdefault(key, {})[days] = n
        return Countdown(stop, (stop - today).days, dict(sorted(found.items())))

    def ledger(self) -> LedgerView:
        """See `Sources`."""
        from infra.held import ledger_heads, ledger_lines
        from stream_processors.ledger import verify

        lines = ledger_lines(self.settings)
        faults = verify(lines, ledger_heads(self.settings))
        reasons = Counter(str(line["why"]) for line in lines)
        found = sorted(p.name for p in self._certificates())
        return LedgerView(len(lines), dict(reasons), faults, found)

    def councils(self) -> list[str]:
        """See `Sources`."""
        return sorted(p.stem for p in (self.settings.keys / "councils").glob("*.secret"))

    def enquire(self, council: str, details: Mapping[str, str]) -> dict[str, Any]:
        """See `Sources`."""
        from infra.enquirer import Enquirer
        from infra.keys import council_secret, read_enquiry_key, read_key
        from stream_processors.enquiry.person import PersonAsked

        asked = PersonAsked.of(details)
        secret = read_key(council_secret(self.settings, council))
        return Enquirer(council, secret, read_enquiry_key(self.settings), self.settings.control_port).ask(asked)

    def _certificates(self) -> list[Path]:
        from infra.destruction.journal import folder

        return list(folder(self.settings).glob("certificate*.json"))

    def _rows(self, topic: str) -> list[Mapping[str, Any]]:
        from infra.topic_table import table
        from schemas.registry import Registry
        from schemas.rows import from_value

        registry = Registry(self.settings.registry, deadline_seconds=5)
        try:
            return [from_value(topic, value, registry) for value in table(self.settings, topic).values()]
        finally:
            registry.close()
