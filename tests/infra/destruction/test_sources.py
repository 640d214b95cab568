"""A supplier's record that has expired and is still at its source stands against a proof."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from confluent_kafka import Message

from infra.destruction.proof import Proof
from infra.destruction.sources import AtSource
from infra.destruction.topics import Held, take
from tests.stream_processors.tables import CONTEXT, REGISTRY, framed

TOPIC = "identified.dfe.absence"
HELD = timedelta(CONTEXT.policy.periods["dfe.absence"].days)
DAY = date(2015, 1, 1)
CONFIRMED = {(t, 0): (DAY - date(1970, 1, 1)).days for t in ("linkage.identity", "linkage.activity")}


@dataclass
class Fake:
    """What is read of a message."""

    of: str
    at: int
    named: bytes
    holds: bytes | None

    def topic(self) -> str:
        return self.of

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return self.named

    def value(self) -> bytes | None:
        return self.holds

    def timestamp(self) -> tuple[int, int]:
        return (2, 0)


def absence(at: int, record: str, expires: date) -> Fake:
    row = {"UPN": "A1", "record_id": record, "PeriodEnd": expires - HELD}
    return Fake(TOPIC, at, f"A1|{record}".encode(), framed(TOPIC, row))


def found(*messages: Fake, confirmed: dict[tuple[str, int], int] = CONFIRMED) -> list[tuple[str, str]]:
    proof, tables = Proof("kept to the ledger", 0), {m.of: Held() for m in messages}
    at_source = AtSource(CONTEXT.policy, REGISTRY, confirmed)
    for m in messages:
        real: Message = m
        take(tables, real)
        at_source.take(real)
    at_source.find(proof, tables)
    return [(f.kind, f.where) for f in proof.findings]


def test_what_has_expired_by_the_confirmed_day_is_found_and_nothing_else() -> None:
    assert found(absence(0, "r0", DAY), absence(1, "r1", DAY + timedelta(1))) == [("overdue", f"{TOPIC}-0@0")]


def test_what_was_deleted_or_replaced_since_is_no_finding() -> None:
    over = [absence(n, f"r{n}", DAY) for n in range(2)]
    assert found(*over, Fake(TOPIC, 2, b"A1|r0", None), absence(3, "r1", DAY + timedelta(9))) == []


def test_before_a_day_is_confirmed_nothing_is_overdue() -> None:
    assert found(absence(0, "r0", DAY), confirmed={}) == []


def test_what_nobody_can_read_is_held_until_the_hard_stop() -> None:
    assert found(Fake(TOPIC, 0, b"A1|r0", b"\x01nonsense")) == []
    stop = {key: (CONTEXT.policy.hard_stop - date(1970, 1, 1)).days for key in CONFIRMED}
    assert found(Fake(TOPIC, 0, b"A1|r0", b"\x01nonsense"), confirmed=stop) == [("overdue", f"{TOPIC}-0@0")]


def test_quarantine_and_enquiries_are_no_datasets() -> None:
    assert (
        found(Fake("identified.dfe.quarantine", 0, b"k", b"v"), Fake("identified.council-x.enquiry", 0, b"k", b"v"))
        == []
    )
