"""The office, without Kafka: a request goes in, an answer comes out, and a kill at any moment changes nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.rows import from_value, to_value
from stream_processors.clock import KEY, TOPIC
from stream_processors.control.alerts import Observed
from stream_processors.control.answers import load_purposes
from stream_processors.control.desk import Desk, Limits, Place
from stream_processors.control.office import (
    ALERT,
    ANSWER,
    AUDIT,
    BATCH,
    ENQUIRY,
    FINDING,
    RECONCILIATION,
    Came,
    Office,
    Said,
)
from stream_processors.control.signing import Request, signed
from stream_processors.quarantine import TOPIC as QUARANTINE
from stream_processors.runtime.account import TOPIC as ACCOUNTS
from stream_processors.runtime.account import Account
from stream_processors.runtime.records import HEARTBEAT_KEY
from tests.stream_processors.tables import REGISTRY

NOW = 1_700_000_000_000
COUNCIL, SECRET = "council-northam", b"n" * 32
QUESTIONS = f"identified.{COUNCIL}.enquiry"
PARTS = 3


def office(per_hour: int = 60) -> Office:
    return Office(
        REGISTRY, Desk(Limits(per_hour=per_hour), {COUNCIL: SECRET}.get, {COUNCIL}.__contains__), load_purposes(), PARTS
    )


def request(number: int = 1, asked: int = NOW, secret: bytes = SECRET) -> Request:
    return signed(f"{number:032x}", COUNCIL, asked, "c2VhbGVk", secret)


def asked(request_: Request, offset: int = 0) -> Came:
    value = to_value(ENQUIRY, request_.row, REGISTRY)
    return Came(ENQUIRY, Place(0, offset), request_.enquiry_id.encode(), value, NOW)


def finding(number: int, partition: int, records: int = 1) -> Came:
    held = [{"supplier": "dfe", "dataset": "absence", "records": records, "since": None, "until": date(2022, 12, 31)}]
    row = {"outcome": "found", "ref_hash": "f" * 32, "holdings": held if records else []}
    return Came(FINDING, Place(0, 0), f"{number:032x}|{partition}".encode(), to_value(FINDING, row, REGISTRY), NOW)


def row_of(said: Said) -> dict[str, Any]:
    assert said.value is not None
    return from_value(said.topic, said.value, REGISTRY)


def test_a_request_is_audited_and_passed_on_and_answered_when_every_partition_has_spoken() -> None:
    it = office()
    audit, question = it.take(asked(request()), NOW)
    assert (audit.topic, question.topic) == (AUDIT, QUESTIONS)
    assert row_of(audit)["decision"] == "accepted"
    assert row_of(question) == {"enquiry_id": request().enquiry_id, "sealed": "c2VhbGVk"}
    assert it.take(finding(1, 0), NOW) == it.take(finding(1, 2, records=0), NOW) == []
    answer, gone, audit = it.take(finding(1, 1), NOW + 5)
    assert (row_of(answer)["outcome"], row_of(answer)["holdings"][0]["records"]) == ("held", 2)
    assert (row_of(audit)["outcome"], row_of(audit)["ref_hash"]) == ("held", "f" * 32)
    assert (gone.topic, gone.key, gone.value) == (QUESTIONS, question.key, None)
    assert gone.partition == question.partition
    assert it.take(finding(1, 1), NOW + 9) == [], "once"


def test_a_finding_of_nobodys_enquiry_is_left_alone() -> None:
    it = office()
    assert [it.take(finding(7, p), NOW) for p in range(PARTS)] == [[]] * PARTS


@pytest.mark.parametrize(
    ("first", "then", "reason", "topics"),
    [
        (None, request(secret=b"w" * 32), "unauthenticated", [AUDIT]),
        (None, request(asked=NOW - 400_000), "stale", [AUDIT, ANSWER]),
        (request(1), request(1), "replayed", [AUDIT]),
        (request(1), request(2), "too_many", [AUDIT, ANSWER]),
    ],
)
def test_a_refusal_is_audited_under_a_key_of_its_own(
    first: Request | None, then: Request, reason: str, topics: list[str]
) -> None:
    """So that nobody can overwrite what was audited or answered under another's id."""
    it = office(per_hour=1)
    if first is not None:
        it.take(asked(first, 0), NOW)
    said = it.take(asked(then, 9), NOW)
    assert [s.topic for s in said] == topics
    assert said[0].key == f"{then.enquiry_id}|0|9".encode()
    assert (row_of(said[0])["decision"], row_of(said[0])["reason"]) == ("refused", reason)
    assert it.refusals == {Place(0, 9): reason}


def test_heartbeats_tombstones_and_records_without_key_say_nothing() -> None:
    it = office()
    for topic in (ENQUIRY, FINDING, QUARANTINE, BATCH, TOPIC):
        assert it.take(Came(topic, Place(0, 0), HEARTBEAT_KEY, None, NOW), NOW) == []
        assert it.take(Came(topic, Place(0, 0), None, b"x", NOW), NOW) == []
    assert it.take(Came(ENQUIRY, Place(0, 0), b"e" * 32, None, NOW), NOW) == []
    assert it.take(Came(FINDING, Place(0, 0), b"e|0", None, NOW), NOW) == []


def test_a_record_that_is_none_is_refused_loudly_and_quarantined_without_its_content() -> None:
    it, came = office(), Came(ENQUIRY, Place(2, 7), b"e" * 32, b"zq9x" * 3, NOW)
    with pytest.raises(ValueError, match="magic") as refused:
        it.take(came, NOW)
    assert "zq9x" not in str(refused.value)
    said = it.quarantine(came, "WireError")
    assert (said.topic, said.key) == (QUARANTINE, b"governance.enquiry|2|7")
    assert row_of(said)["error"] == "WireError"


@dataclass
class World:
    """Topics as tables, requests as a log, and an office that can be killed while it sends."""

    tables: dict[str, dict[bytes, bytes | None]] = field(default_factory=dict)
    requests: list[Came] = field(default_factory=list)
    sent: list[Said] = field(default_factory=list)
    it: Office = field(default_factory=office)

    def put(self, said: Said) -> None:
        self.tables.setdefault(said.topic, {})[said.key] = said.value
        self.sent.append(said)

    def table(self, topic: str) -> Mapping[bytes, bytes]:
        return {k: v for k, v in self.tables.get(topic, {}).items() if v is not None}

    def deliver(self, came: Came, die_after: int | None = None) -> None:
        """A record comes; with `die_after`, the office dies after so many of its sends, and another starts."""
        if came.topic == ENQUIRY:
            self.requests.append(came)
        else:
            assert came.key is not None
            self.tables.setdefault(came.topic, {})[came.key] = came.value
        said = self.it.take(came, NOW)
        for s in said[:die_after]:
            self.put(s)
        if die_after is not None:
            self.restart()

    def restart(self) -> None:
        self.it = office()
        for s in self.it.recall(self.table, self.requests, NOW):
            self.put(s)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 7), st.one_of(st.none(), st.integers(0, 3))), max_size=20))
def test_killed_at_any_moment_and_told_anything_again_it_ends_as_if_it_had_not_been(
    deliveries: list[tuple[int, int | None]],
) -> None:
    """Two enquiries and their findings, in any order, again and again, with a kill after any of the sends."""
    world = World()
    records = [asked(request(n), n) for n in (0, 1)] + [finding(n, p) for n in (0, 1) for p in range(PARTS)]
    for index, die_after in deliveries:
        world.deliver(records[index], die_after)
    world.restart()
    for record in [*records, *records]:  # at least once
        world.deliver(record)
    answers = {k.decode(): from_value(ANSWER, v, REGISTRY) for k, v in world.table(ANSWER).items()}
    assert {k: (a["outcome"], a["holdings"][0]["records"]) for k, a in answers.items()} == {
        f"{n:032x}": ("held", PARTS) for n in (0, 1)
    }
    audits = {k.decode(): from_value(AUDIT, v, REGISTRY) for k, v in world.table(AUDIT).items()}
    assert {k: (a["decision"], a["outcome"]) for k, a in audits.items()} == {
        f"{n:032x}": ("accepted", "held") for n in (0, 1)
    }
    assert world.table(QUESTIONS) == {}, "no question is left lying"
    assert {v for s in world.sent if s.topic == ANSWER for v in [row_of(s)["outcome"]]} == {"held"}


def batch(starts: list[int], ends: list[int], published: int) -> Came:
    row = {
        "supplier": "dfe",
        "dataset": "absence",
        "batch_id": "b" * 32,
        "read": published,
        "published": published,
        "rejected": 0,
        "warnings": 0,
        "starts": starts,
        "ends": ends,
        "published_ms": NOW,
        "publication": "0" * 15 + "1",
        "open": False,
        "counts": [end - start for start, end in zip(starts, ends, strict=True)],
        "digests": ["0" * 16] * len(ends),
        "duplicates": 0,
    }
    return Came(BATCH, Place(0, 0), b"dfe|absence|" + b"b" * 32, to_value(BATCH, row, REGISTRY), NOW)


def counted(partition: int, read: int, quarantined: int = 0) -> list[bytes]:
    """Accounts of pseudonymise: of all that it has read of a partition, and of the batch."""
    counts = {"accepted": read - quarantined, "quarantined": quarantined}
    return [
        to_value(
            ACCOUNTS,
            Account("pseudonymise", "identified.dfe.absence", partition, name, next=read, read=read, counts=counts).row,
            REGISTRY,
        )
        for name in ("", "0" * 15 + "1")
    ]


def test_a_batch_is_reconciled_as_pseudonymise_goes_on_and_said_once() -> None:
    it = office()
    it.take(batch([0, 0], [10, 10], 20), NOW)
    assert [row_of(s)["state"] for s in it.reconcile([*counted(0, 10), *counted(1, 4)], NOW)] == ["pending"]
    assert it.reconcile(counted(1, 5), NOW) == [], "nothing new for the supplier"
    (said,) = it.reconcile(counted(1, 10, quarantined=1), NOW)
    assert (row_of(said)["state"], row_of(said)["accepted"], row_of(said)["quarantined"]) == ("agreed", 19, 1)
    assert said.topic == RECONCILIATION


def test_quarantine_counts_against_what_was_published() -> None:
    it = office()
    it.take(batch([0, 0], [50, 50], 100), NOW)
    for offset in range(12):
        it.take(Came(QUARANTINE, Place(0, 0), f"identified.dfe.absence|1|{offset}".encode(), b"x", NOW), NOW)
        it.take(Came(QUARANTINE, Place(0, 0), f"linkage.contribution|1|{offset}".encode(), b"x", NOW), NOW)
    assert it.quarantined() == [Observed("quarantine_ratio", "dfe.absence", "critical", 12)]
    (said,) = it.alert(it.quarantined(), ["quarantine_ratio"], NOW)
    assert (said.topic, said.key) == (ALERT, b"quarantine_ratio|dfe.absence")
    (over,) = it.alert([], ["quarantine_ratio"], NOW)
    assert (over.key, over.value) == (said.key, None)


def test_an_alert_outlives_a_restart() -> None:
    world = World()
    for s in world.it.alert([Observed("clock_withheld", "x", "critical", 1)], ["clock_withheld"], NOW - 50):
        world.put(s)
    world.restart()
    assert world.it.alert([Observed("clock_withheld", "x", "critical", 1)], ["clock_withheld"], NOW) == []
    assert world.it.alerts["clock_withheld|x"].first_seen_ms == NOW - 50


def test_a_tick_goes_to_every_partition() -> None:
    said = office().tick(date(2022, 12, 31))
    assert [(s.topic, s.partition, s.key) for s in said] == [(TOPIC, p, KEY) for p in range(PARTS)]
    assert {row_of(s)["as_of"] for s in said} == {date(2022, 12, 31)}


def test_every_partition_of_ours_gets_a_heartbeat_and_nobody_elses() -> None:
    partitions = [("linkage.link", 1), ("identified.dfe.person", 0), ("state.join", 0), ("kafkasql-journal", 0)]
    said = office().heartbeats(partitions)
    assert [(s.topic, s.partition) for s in said] == [
        ("identified.dfe.person", 0),
        ("linkage.link", 1),
        ("state.join", 0),
    ]
    assert {(s.key, s.value) for s in said} == {(HEARTBEAT_KEY, None)}


def told(it: Office, said: list[Said]) -> Office:
    """What was said comes back, as it does to every instance."""
    for s in said:
        assert it.take(Came(TOPIC, Place(s.partition, 0), s.key, s.value, NOW), NOW) == []
    return it


def test_a_day_is_told_once_and_never_back() -> None:
    it = office()
    day, next_day = date(2022, 12, 30), date(2022, 12, 31)
    told(it, it.tick(day))
    assert it.tick(day) == []
    assert not it.tells_back(day)
    assert len(it.tick(next_day)) == PARTS
    told(it, it.tick(next_day))
    assert it.tick(day) == []
    assert it.tells_back(day)


def test_a_kill_between_two_partitions_leaves_none_untold() -> None:
    said = office().tick(date(2022, 12, 31))
    it = told(office(), said[:1])
    assert [s.partition for s in it.tick(date(2022, 12, 31))] == [1, 2]
