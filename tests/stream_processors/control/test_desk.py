"""Who is let in: a council that signs, lately, once, and not too often. The audit is all that a new desk needs."""

from __future__ import annotations

from typing import Any

import pytest

from stream_processors.control.desk import HOUR_MS, Desk, Limits, Place
from stream_processors.control.signing import Request, signed

SECRETS = {"council-northam": b"n" * 32, "council-southam": b"s" * 32, "council-eastham": b"e" * 32}
NOW = 1_700_000_000_000


def request(
    number: int = 1, council: str = "council-northam", asked: int = NOW, secret: bytes | None = None
) -> Request:
    return signed(f"{number:032x}", council, asked, "c2VhbGVk", secret or SECRETS.get(council, b"?" * 32))


@pytest.fixture
def desk() -> Desk:
    return Desk(Limits(per_hour=3, skew_ms=300_000), SECRETS.get, lambda council: council != "council-eastham")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (request(), None),
        (request(secret=b"w" * 32), "unauthenticated"),
        (request(council="council-nowhere"), "unauthenticated"),
        (request(council="council-eastham"), "unknown"),
        (request(council="dfe"), "malformed"),
        (request(council="nobody"), "malformed"),
        (request(asked=NOW - 300_001), "stale"),
        (request(asked=NOW + 300_001), "stale"),
        (request(asked=NOW - 300_000), None),
    ],
)
def test_who_is_let_in(desk: Desk, asked: Request, reason: str | None) -> None:
    assert desk.refusal(asked, NOW) == reason


def test_a_request_is_let_in_once(desk: Desk) -> None:
    desk.let_in(request(), NOW, Place(0, 5))
    assert desk.refusal(request(), NOW + 1, Place(0, 6)) == "replayed"
    assert desk.refusal(request(), NOW + 1) == "replayed"


def test_the_same_record_met_again_is_no_replay(desk: Desk) -> None:
    """Faust reads a record again that it had not committed when it was killed."""
    desk.let_in(request(), NOW, Place(0, 5))
    assert desk.refusal(request(), NOW, Place(0, 5)) is None


def test_a_replay_is_remembered_for_as_long_as_it_is_fresh(desk: Desk) -> None:
    early = request(asked=NOW + 300_000)
    desk.let_in(early, NOW, Place(0, 1))
    for i in range(40):
        desk.let_in(request(100 + i, "council-southam"), NOW + 600_000, Place(1, i))
    assert desk.refusal(early, NOW + 600_000, Place(0, 9)) == "replayed"


def test_one_council_may_ask_so_often_in_an_hour(desk: Desk) -> None:
    for i in range(3):
        assert desk.refusal(request(i), NOW + i) is None
        desk.let_in(request(i), NOW + i, Place(0, i))
    later = NOW + HOUR_MS - 1
    assert desk.refusal(request(9, asked=later), later) == "too_many"
    assert desk.refusal(request(9, "council-southam", asked=later), later) is None, "the other council still may"
    assert desk.refusal(request(9, asked=later + 1), later + 1) is None, "the first is an hour ago"


def test_refused_requests_do_not_count(desk: Desk) -> None:
    for i in range(9):
        assert desk.refusal(request(i, secret=b"w" * 32), NOW) == "unauthenticated"
    assert desk.refusal(request(), NOW) is None


def test_a_new_desk_goes_on_from_the_audit(desk: Desk) -> None:
    def audit(number: int, decision: str, offset: int) -> tuple[str, dict[str, Any]]:
        row = {"council": "council-northam", "asked_ms": NOW, "partition": 0, "offset": offset, "decision": decision}
        return f"{number:032x}", row

    desk.recall([audit(1, "accepted", 1), audit(2, "accepted", 2), audit(3, "refused", 3), audit(4, "accepted", 4)])
    assert desk.refusal(request(1), NOW, Place(0, 7)) == "replayed"
    assert desk.refusal(request(1), NOW, Place(0, 1)) is None
    assert desk.refusal(request(3), NOW, Place(0, 3)) == "too_many"


def test_the_desk_does_not_grow(desk: Desk) -> None:
    for i in range(2_000):
        desk.let_in(request(i), NOW + i * 60_000, Place(0, i))
    assert len(desk.entries) < 100
