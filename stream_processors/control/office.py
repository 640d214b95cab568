"""What the control plane does with each record, without Kafka: a record in, records out, and what is remembered.

Everything that it remembers is on topics. An office that starts anew is told what is on them (`recall`), handles again
what was not finished, and goes on: whatever the moment of a kill was, nothing is lost, and what is said twice is the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from schemas import contracts
from schemas.registry import SchemaIds
from schemas.rows import from_value, to_value
from stream_processors.clock import KEY as CLOCK_KEY
from stream_processors.clock import TOPIC as CLOCK
from stream_processors.control import alerts
from stream_processors.control.alerts import Alert, Kind, Observed
from stream_processors.control.answers import Gathering, Purposes, answer
from stream_processors.control.clock import tick_value
from stream_processors.control.desk import HOUR_MS, Desk, Entry, Place, Reason
from stream_processors.control.reconcile import reconciled, topic_of
from stream_processors.control.signing import Request
from stream_processors.quarantine import TOPIC as QUARANTINE
from stream_processors.runtime.account import TOPIC as ACCOUNTS
from stream_processors.runtime.account import Account
from stream_processors.runtime.partition import partition_of
from stream_processors.runtime.records import HEARTBEAT_KEY

ENQUIRY, FINDING = "governance.enquiry", "governance.finding"
ANSWER, AUDIT, ALERT = "governance.answer", "governance.audit", "governance.alert"
BATCH, RECONCILIATION = "governance.batch", "governance.reconciliation"
ZONES = frozenset({"identified", "linkage", "research", "governance", "state"})
_ANSWERED: frozenset[Reason] = frozenset({"stale", "unknown", "too_many"})
"""Refusals that are answered on the topic. To answer the others would be to answer whoever used another's id."""


@dataclass(frozen=True)
class Came:
    """A record as it came: where from, and when the broker took it (ms since 1970)."""

    topic: str
    place: Place
    key: bytes | None
    value: bytes | None
    time_ms: int


@dataclass(frozen=True)
class Said:
    """A record to send."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None


@dataclass
class Office:
    """All that the control plane remembers."""

    ids: SchemaIds
    desk: Desk
    purposes: Purposes
    partitions: int
    gathering: Gathering = field(init=False)
    answered: dict[str, int] = field(default_factory=dict)
    refusals: dict[Place, Reason] = field(default_factory=dict)
    batches: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    reconciliations: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    accounts: dict[tuple[str, str], dict[int, Account]] = field(default_factory=dict)
    """What pseudonymise has counted, by topic and publication, and by partition."""
    failed: dict[str, set[str]] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    told: dict[int, date] = field(default_factory=dict)
    """The last day that each partition of the clock was told."""

    def __post_init__(self) -> None:
        self.gathering = Gathering(self.partitions)

    def take(self, came: Came, now_ms: int) -> list[Said]:
        """Handle one record of a topic that the control plane reads.

        Raises: whatever a record that is not what it should be makes fail; the caller quarantines it.
        """
        if came.key is None or came.key == HEARTBEAT_KEY:
            return []
        handlers: dict[str, Callable[[Came, str, int], list[Said]]] = {
            ENQUIRY: self._enquiry,
            FINDING: self._finding,
            BATCH: self._batch,
            CLOCK: self._told,
            QUARANTINE: self._failed,
        }
        return handlers[came.topic](came, came.key.decode(), now_ms)

    # Enquiries.

    def _enquiry(self, came: Came, key: str, now_ms: int) -> list[Said]:
        if came.value is None:
            return []
        row = from_value(ENQUIRY, came.value, self.ids)
        request = Request(key, **row)
        reason = self.desk.refusal(request, came.time_ms, came.place)
        if reason is not None:
            return self._refused(request, reason, came, now_ms)
        if key in self.answered:
            return []
        self.desk.let_in(request, came.time_ms, came.place)
        topic = contracts.enquiry_topic(request.council)
        value = to_value(topic, {"enquiry_id": key, "sealed": request.sealed}, self.ids)
        return [
            self._say(AUDIT, key, self._audit(self.desk.entries[key])),
            Said(topic, self._partition(key), came.key or b"", value),
        ]

    def _refused(self, request: Request, reason: Reason, came: Came, now_ms: int) -> list[Said]:
        key = request.enquiry_id
        self.refusals[came.place] = reason
        entry = Entry(request.council[:64], came.time_ms, came.place)
        audit = self._audit(entry) | {"decision": "refused", "reason": reason}
        said = [self._say(AUDIT, f"{key[:64]}|{came.place.partition}|{came.place.offset}", audit)]
        if reason in _ANSWERED:
            row = {
                "council": request.council,
                "outcome": "refused",
                "reason": reason,
                "answered_ms": now_ms,
                "holdings": [],
                "how_to_object": self.purposes.how_to_object,
            }
            said.append(self._say(ANSWER, key, row))
        return said

    def _finding(self, came: Came, key: str, now_ms: int) -> list[Said]:
        enquiry_id, _, partition = key.partition("|")
        if came.value is None or enquiry_id in self.answered or enquiry_id not in self.desk.entries:
            return []
        complete = self.gathering.add(enquiry_id, int(partition), from_value(FINDING, came.value, self.ids))
        return self._answer(enquiry_id, complete, now_ms) if complete else []

    def _answer(self, enquiry_id: str, findings: list[Mapping[str, Any]], now_ms: int) -> list[Said]:
        entry = self.desk.entries[enquiry_id]
        row = answer(entry.council, findings, self.purposes, now_ms)
        audit = self._audit(entry) | {
            "outcome": row["outcome"],
            "reason": row["reason"],
            "answered_ms": now_ms,
            "ref_hash": next((f["ref_hash"] for f in findings if f["ref_hash"]), None),
        }
        self.gathering.done(enquiry_id)
        self.answered = {k: at for k, at in self.answered.items() if at > now_ms - 2 * HOUR_MS} | {enquiry_id: now_ms}
        # The question goes as soon as it is answered; what is between goes within the hour. The audit comes last: what
        # it says is done is done, whatever happens now.
        question = Said(contracts.enquiry_topic(entry.council), self._partition(enquiry_id), enquiry_id.encode(), None)
        return [self._say(ANSWER, enquiry_id, row), question, self._say(AUDIT, enquiry_id, audit)]

    def _audit(self, entry: Entry) -> dict[str, Any]:
        return {
            "council": entry.council,
            "asked_ms": entry.received_ms,
            "partition": entry.place.partition,
            "offset": entry.place.offset,
            "decision": "accepted",
            "reason": None,
            "outcome": None,
            "ref_hash": None,
            "answered_ms": None,
        }

    # The clock, reconciliation and alerts.

    def tick(self, day: date) -> list[Said]:
        """A tick to every partition of the clock that has not been told the day: one a day, and never back.

        One a day, since a second one that is a day fast would be believed (ADR 12).
        """
        value = tick_value(day, self.ids)
        late = [p for p in range(self.partitions) if p not in self.told or self.told[p] < day]
        return [Said(CLOCK, p, CLOCK_KEY, value) for p in late]

    def heartbeats(self, partitions: Iterable[tuple[str, int]]) -> list[Said]:
        """A tombstone on the reserved key to every partition of Lethe's topics.

        Segments roll only when something is written: a partition that is idle is never cleaned, and what was deleted
        from it stays on the disk.
        """
        ours = [(t, p) for t, p in partitions if t.partition(".")[0] in ZONES]
        return [Said(topic, partition, HEARTBEAT_KEY, None) for topic, partition in sorted(ours)]

    def tells_back(self, day: date) -> bool:
        """Whether the day lies before one that was told: then the clock is wrong, or was when it told that."""
        return any(told > day for told in self.told.values())

    def _told(self, came: Came, key: str, now_ms: int) -> list[Said]:  # noqa: ARG002
        if key.encode() == CLOCK_KEY and came.value is not None:
            self.told[came.place.partition] = from_value(CLOCK, came.value, self.ids)["as_of"]
        return []

    def _batch(self, came: Came, key: str, now_ms: int) -> list[Said]:  # noqa: ARG002
        if came.value is None:
            self.batches.pop(key, None)
            self.reconciliations.pop(key, None)
            return [Said(RECONCILIATION, self._partition(key), key.encode(), None)]
        row = from_value(BATCH, came.value, self.ids)
        if not row["open"]:
            self.batches[key] = row
        return []

    def _failed(self, came: Came, key: str, now_ms: int) -> list[Said]:  # noqa: ARG002
        where = self.failed.setdefault(key.partition("|")[0], set())
        (where.discard if came.value is None else where.add)(key)
        return []

    def reconcile(self, counted: Iterable[bytes], now_ms: int) -> list[Said]:
        """What has changed for the suppliers. `counted`: the accounts of pseudonymise that are new since the last
        look, as `governance.account` has them."""
        for value in counted:
            account = Account.of_row(from_value(ACCOUNTS, value, self.ids))
            self.accounts.setdefault((account.topic, account.batch), {})[account.partition] = account
        said = []
        for key, batch in self.batches.items():
            names = {"", batch["publication"]}
            of = [a for name in names for a in self.accounts.get((topic_of(batch), name), {}).values()]
            row = reconciled(batch, of, now_ms)
            if row != self.reconciliations.get(key):
                self.reconciliations[key] = row
                said.append(self._say(RECONCILIATION, key, row))
        return said

    def quarantined(self) -> list[Observed]:
        """Datasets of which too much is in quarantine."""
        published: dict[str, int] = {}
        for batch in self.batches.values():
            name = topic_of(batch).removeprefix("identified.")
            published[name] = published.get(name, 0) + batch["published"]
        failed = {
            topic.removeprefix("identified."): len(where)
            for topic, where in self.failed.items()
            if topic.startswith("identified.")
        }
        return alerts.quarantined(published, failed)

    def alert(self, observed: Iterable[Observed], kinds: Iterable[Kind], now_ms: int) -> list[Said]:
        """What has changed of the alerts of these kinds."""
        said = []
        for id_, alert_ in alerts.changes(self.alerts, observed, set(kinds), now_ms).items():
            if alert_ is None:
                del self.alerts[id_]
                said.append(Said(ALERT, self._partition(id_), id_.encode(), None))
            else:
                self.alerts[id_] = alert_
                said.append(self._say(ALERT, id_, alert_.row))
        return said

    # After a start.

    def recall(self, table: Callable[[str], Mapping[bytes, bytes]], logs: Iterable[Came], now_ms: int) -> list[Said]:
        """Remember what is on the topics, and finish what was not finished.

        `table`: a topic's last value by key. `logs`: every record of `governance.enquiry` and of `governance.clock`, in
        the order of each partition: Faust may have committed one that was in hand when it stopped.
        """

        def rows(topic: str) -> dict[str, dict[str, Any]]:
            return {k.decode(): from_value(topic, v, self.ids) for k, v in table(topic).items()}

        audits = rows(AUDIT)
        self.desk.recall((k, row) for k, row in audits.items() if row["asked_ms"] > now_ms - 2 * HOUR_MS)
        # Answered is what was answered and audited: between the two, it is answered again.
        done = {k for k, row in audits.items() if row["outcome"] is not None}
        self.answered = {k: row["answered_ms"] for k, row in rows(ANSWER).items() if k in done}
        self.batches = {k: row for k, row in rows(BATCH).items() if not row["open"]}
        self.reconciliations = dict(rows(RECONCILIATION))
        self.alerts = {k: Alert(**row) for k, row in rows(ALERT).items()}
        for key in table(QUARANTINE):
            self._failed(Came(QUARANTINE, Place(0, 0), key, b"", 0), key.decode(), now_ms)
        said: list[Said] = []
        refused = {(r["partition"], r["offset"]) for r in audits.values() if r["decision"] == "refused"}
        for came in logs:
            if came.topic != ENQUIRY or (came.place.partition, came.place.offset) not in refused:
                said += self._finished(came, now_ms)
        for found, value in table(FINDING).items():
            said += self._finished(Came(FINDING, Place(0, 0), found, value, now_ms), now_ms)
        self.refusals.clear()
        return said

    def _finished(self, came: Came, now_ms: int) -> list[Said]:
        try:
            return self.take(came, now_ms)
        except Exception:  # quarantined when it came
            return []

    def quarantine(self, came: Came, error: str) -> Said:
        """Where a record lies that could not be handled, and the class of the error."""
        row = {
            "supplier": "control",
            "topic": came.topic,
            "partition": came.place.partition,
            "offset": came.place.offset,
            "error": error,
            "field": None,
        }
        return self._say(QUARANTINE, f"{came.topic}|{came.place.partition}|{came.place.offset}", row)

    def _say(self, topic: str, key: str, row: Mapping[str, Any]) -> Said:
        return Said(topic, self._partition(key), key.encode(), to_value(topic, row, self.ids))

    def _partition(self, key: str) -> int:
        return partition_of(key, self.partitions)
