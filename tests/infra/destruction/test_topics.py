"""What stands against a proof in the topics, told by tables: each rule finds what it is for, and nothing else."""

from __future__ import annotations

import hashlib
from typing import Any

from infra.destruction.bounds import bound
from infra.destruction.named import Destroyed, names
from infra.destruction.proof import Proof
from infra.destruction.topics import Held, grounded, not_live, not_overdue

S1, S2, P1, R1, R2 = (c * 32 for c in "12345")


def rows(*keys: str, expires: int = 100) -> Held:
    held = Held({k.encode(): (0, i) for i, k in enumerate(keys)})
    held.expires = {k.encode(): expires for k in keys}
    return held


def line(key: str, topic: str = "linkage.activity", offset: int = 99) -> dict[str, Any]:
    return {"record": hashlib.sha256(key.encode()).hexdigest(), "topic": topic, "partition": 0, "offset": offset}


def found(proof: Proof) -> list[tuple[str, str]]:
    return [(f.kind, f.where) for f in proof.findings]


def proof() -> Proof:
    return Proof("kept to the ledger", 0)


def test_a_destroyed_record_that_lives_is_found_where_it_lies() -> None:
    is_ = proof()
    not_live(is_, {"linkage.activity": rows(f"{S1}|{R1}")}, [line(f"{S1}|{R1}", offset=0)], Destroyed([]))
    assert found(is_) == [("live", "linkage.activity-0@0")]


def test_what_was_made_of_a_destroyed_record_is_found_by_its_key() -> None:
    is_ = proof()
    lines = [line(S1, "linkage.identity")]
    destroyed = Destroyed(ln["record"] for ln in lines)
    tables = {"linkage.candidate": rows(f"{S1}|block"), "state.route": rows(S1), "linkage.link": rows(f"{S2}|block")}
    not_live(is_, tables, lines, destroyed)
    assert found(is_) == [("live", "linkage.candidate-0@0"), ("live", "state.route-0@0")]


def test_what_was_supplied_again_is_no_finding() -> None:
    is_ = proof()
    destroyed = Destroyed([line(f"{S1}|{R1}")["record"]])
    destroyed.lives([f"{S1}|{R1}".encode()])
    tables = {"linkage.activity": rows(f"{S1}|{R1}"), "state.join": rows(f"{S1}|{R1}")}
    not_live(is_, tables, [line(f"{S1}|{R1}")], destroyed)
    assert found(is_) == []


def test_references_are_found_in_any_bytes() -> None:
    destroyed = Destroyed(line(k)["record"] for k in (S1, f"{S2}|{R2}"))
    assert destroyed.named_in(b"\x00way|" + S1.encode() + b"\xff")
    assert destroyed.named_in(f"x{S2}|{R2}y".encode())
    assert not destroyed.named_in(f"{S2}|{R1}".encode())
    assert set(names(f"{S1}|{R1}".encode())) == {f"{S1}|{R1}".encode(), S1.encode(), R1.encode()}


def test_what_has_expired_by_the_confirmed_day_and_what_the_hard_stop_ends_is_overdue() -> None:
    is_ = proof()
    tables = {"linkage.activity": rows(S1, expires=100), "linkage.identity": rows(S2, expires=900)}
    confirmed = {("linkage.activity", 0): 99, ("linkage.identity", 0): 500}
    not_overdue(is_, tables, confirmed, 501)
    assert found(is_) == []
    not_overdue(is_, tables, {("linkage.activity", 0): 100, ("linkage.identity", 0): 500}, 500)
    assert found(is_) == [("overdue", "linkage.identity-0@0"), ("overdue", "linkage.activity-0@0")]


def test_nothing_downstream_stands_on_nothing() -> None:
    is_ = proof()
    tables = {
        "linkage.identity": rows(S1),
        "linkage.activity": rows(f"{S1}|{R1}"),
        "linkage.candidate": rows(f"{S1}|b", f"{S2}|b"),
        "linkage.link": rows(f"{S2}|b"),
        "linkage.contribution": rows(f"{P1}|{R1}", f"{P1}|{R2}"),
        "research.person": rows("a", "b"),
    }
    grounded(is_, tables)
    assert found(is_) == [
        ("ungrounded", "linkage.candidate-0@1"),
        ("ungrounded", "linkage.link-0@0"),
        ("ungrounded", "linkage.contribution-0@1"),
        ("ungrounded", "research.person"),
    ]


def test_findings_without_number_are_counted() -> None:
    is_ = proof()
    for i in range(1_500):
        is_.find("live", f"t-0@{i}")
    is_.find("left", "x")
    assert len(is_.findings) == 1_002
    assert sum(f.count for f in is_.findings) == 1_501


def test_the_bound_is_what_the_settings_add_up_to() -> None:
    hours = {
        "segment.ms": "21600000",
        "max.compaction.lag.ms": "21600000",
        "delete.retention.ms": "604800000",
        "file.delete.delay.ms": "60000",
    }
    found_ = bound(hours, backoff_ms=15_000, heartbeat_ms=3_600_000)
    assert found_.value_ms == 6 * 3_600_000 + 3_600_000 + 2 * 15_000 + 30_000 + 60_000
    assert found_.key_ms == 2 * found_.value_ms + 7 * 24 * 3_600_000
