"""retention: what has expired is destroyed where it lies, with a line in the ledger; what is hit by mistake returns."""

from __future__ import annotations

from datetime import date

import pytest

from schemas import contracts, released
from stream_processors.clock import Clock
from stream_processors.envelope import envelope
from tests.properties.test_retention import KEYS, TASK, World, activity
from tests.stream_processors.tables import framed

K = KEYS[0]


@pytest.fixture
def world() -> World:
    """One record that expires tomorrow, and today confirmed."""
    world = World()
    world.write(K, activity(1, version=1))
    world.tick(-1)
    world.tick(0)
    world.run(10)
    world.check()
    assert world.lines() == []
    return world


def expire(world: World, day: int = 1) -> None:
    """A step that takes only the tick, so that what was written before it lies unread before the tombstone."""
    world.tick(day)
    log = world.driver.log("linkage.activity", 0)
    unread, log.records = log.records[1:], log.records[:1]
    end, log.end = log.end, 1
    world.step(10)
    said = log.records[1:]
    log.records, log.end = [*log.records[:1], *unread], end
    for r in said:
        log.append(r.key, r.value, r.time, r.headers)


def test_a_record_is_destroyed_on_the_day_it_expires_and_no_earlier(world: World) -> None:
    world.tick(1)
    world.run(10)
    world.check()
    assert world.driver.table("linkage.activity") == {}
    assert [(line["why"], line["supplier"], line["dataset"], line["offset"]) for line in world.lines()] == [
        ("expiry", "dfe", "absence", 0)
    ]


def test_a_correction_that_lies_before_the_tombstone_is_said_again(world: World) -> None:
    world.write(K, activity(9, version=2))
    expire(world)
    world.run(10)
    world.check()
    assert world.driver.table("linkage.activity") == {K: activity(9, version=2)}


def test_what_lies_after_the_tombstone_is_left_alone(world: World) -> None:
    world.write(K, activity(9, version=2))
    expire(world)
    world.write(K, activity(9, version=3))
    world.run(10)
    world.check()
    assert world.driver.table("linkage.activity") == {K: activity(9, version=3)}


def test_a_tombstone_that_is_under_way_is_not_said_twice(world: World) -> None:
    expire(world, 1)
    expire(world, 2)
    world.run(10)
    world.check()
    assert len(world.lines()) == 1


def test_a_deletion_that_lies_before_the_tombstone_stays_one(world: World) -> None:
    world.write(K, activity(9, version=2))
    world.write(K, None)
    expire(world)
    world.run(1)
    world.check()
    assert world.driver.table("linkage.activity") == {}


@pytest.mark.parametrize("last", [activity(9, version=3), None])
def test_what_pseudonymise_writes_before_the_record_that_is_said_again_has_the_last_word(
    world: World, last: bytes | None
) -> None:
    world.write(K, activity(9, version=2))
    expire(world)
    world.step(1)  # the correction
    log = world.driver.log("linkage.activity", 0)
    world.step(1)  # the tombstone: says the correction again
    again = log.records.pop()
    log.end -= 1
    world.write(K, last)
    log.append(again.key, again.value, again.time, again.headers)
    world.run(1)
    world.check()
    assert world.driver.table("linkage.activity").get(K) == last


def test_what_came_while_a_tombstone_was_under_way_outlives_the_state(world: World) -> None:
    world.write(K, activity(9, version=2))
    expire(world)
    world.step(1)
    world.compact(drop_tombstones=False)
    world.driver.log("linkage.activity", 0).compact(drop_tombstones=False)  # the correction is in no log any more
    world.driver.crash(TASK, lose_state=True)
    world.run(1)
    assert world.driver.table("linkage.activity") == {K: activity(9, version=2)}


def test_a_record_that_comes_expired_is_destroyed_at_once(world: World) -> None:
    world.write(KEYS[1], activity(0))
    world.run(10)
    world.check()
    assert [line["why"] for line in world.lines()] == ["late"]
    world.write(KEYS[1], activity(0))
    world.run(10)
    assert [line["sequence"] for line in world.lines()] == [0, 1]


def test_a_record_that_was_said_again_expires_in_its_turn(world: World) -> None:
    world.write(K, activity(3, version=2))
    expire(world)
    world.run(10)
    for n in (2, 3):
        world.tick(n)
    world.run(10)
    world.check()
    assert [line["why"] for line in world.lines()] == ["expiry", "expiry"]


def test_at_the_hard_stop_nothing_is_held_whatever_it_was_promised() -> None:
    world = World()
    world.write(K, activity(5_000))
    for n in (578, 579):  # 2022-12-31 is day 578
        world.tick(n)
    world.run(10)
    assert world.driver.table("linkage.activity") == {}
    assert [(line["why"], line["expires_on"]) for line in world.lines()] == [("hard_stop", date(2022, 12, 31))]


def test_a_tick_costs_what_expires_and_not_what_is_held(world: World) -> None:
    for i in range(300):
        world.write(b"s|%032d" % i, activity(100 + i))
    world.run(1000)
    task = world.driver._state[TASK]
    read: list[bytes] = []
    scan = task.store.scan

    def counted(table: str, prefix: bytes):  # type: ignore[no-untyped-def]
        for row in scan(table, prefix):
            read.append(row[0])
            yield row

    task.store.scan = counted  # type: ignore[method-assign]
    world.tick(1)
    world.run(1)
    assert len(read) == 1


@pytest.mark.parametrize("version", released.versions())
@pytest.mark.parametrize("name", ["linkage/identity", "linkage/activity"])
def test_the_envelope_comes_first_in_every_version(version: str, name: str) -> None:
    old = next(c for c in released.released(version) if c.name == name)
    head = [f for f in contracts.contract(name).json["fields"][:3] if f["name"] != "doc"]
    assert old.json["fields"][:3] == head


def test_the_envelope_of_an_identity_has_no_dataset() -> None:
    row = {
        "supplier": "moj",
        "role": "department",
        "expires_on": date(1970, 1, 11),
        "epoch": 1,
        "catalogue": "1",
        "blocks": ["1:a"],
        "tokens": ["k01:b"],
        "statements": [],
        "encodings": [],
    }
    assert envelope("linkage.identity", framed("linkage.identity", row)) == (10, "moj", None)


@pytest.mark.parametrize(
    ("ticks", "confirmed"),
    [
        ([], None),
        ([5], None),  # the first alone
        ([5, 5], None),  # told twice
        ([5, 6], 6),
        ([5, 9], 5),  # the second waits in its turn
        ([5, 6, 7, 8], 8),
        ([5, 6, 372, 7], 7),  # a year ahead, once
        ([5, 6, 372, 372, 7], 7),
        ([5, 6, 2, 7], 7),  # back, once
        ([5, 6, 10, 11], 11),  # lost ticks
        ([5, 6, 8, 7, 9, 10], 10),  # out of order
        ([0, 20_000, 20_001], 20_001),  # a clock that began in 1970
    ],
)
def test_a_day_counts_once_it_is_confirmed(ticks: list[int], confirmed: int | None) -> None:
    clock = Clock()
    for day in ticks:
        clock = clock.tick(day)
    assert clock.confirmed == confirmed


@pytest.mark.parametrize("how", ["in one go", "killed before each commit", "killed after each commit", "two in hand"])
def test_what_a_tick_ends_is_destroyed_in_parts_of_bounded_size(how: str) -> None:
    world, most = World(at_once=7), 7
    for i in range(30):
        world.write(b"s|%032d" % i, activity(1 if i % 5 else 400))
    world.tick(-1)
    world.tick(0)
    world.run(100)
    world.tick(1)
    sizes: list[int] = []
    log = world.driver.log("governance.ledger", 0)
    while not sizes or len(log.records) < 24:
        before = len(log.records)
        if how.startswith("killed"):
            world.step(100, crash=how.split()[1])
            if how == "killed before each commit":
                assert len(log.records) == before
                world.step(100)
        else:
            world.driver.step(TASK, 100, ahead=100 if how == "two in hand" else 0)
        sizes.append(len(log.records) - before)
    assert max(sizes) <= most * (2 if how == "two in hand" else 1), "no part is larger"
    assert sum(sizes) == 24
    world.run(100)
    world.check()
    assert len(world.driver.table("linkage.activity")) == 6


@pytest.mark.parametrize(
    ("lost", "expected"),
    [(False, [2, 1]), (True, [0, 2, 1])],  # a rebuilt calendar has what is under way, too
)
def test_after_a_start_a_step_without_records_goes_on_where_the_parts_had_come_to(
    lost: bool, expected: list[int]
) -> None:
    world = World(at_once=2)
    for i in range(5):
        world.write(b"s|%032d" % i, activity(1))
    for n in (-1, 0):
        world.tick(n)
    world.run(100)
    world.tick(1)
    world.step(100)
    assert len(world.lines()) == 2
    world.driver.crash(TASK, lose_state=lost)
    task = world.driver._state[TASK]
    parts, more = [], True
    while more:
        step = task.step([])
        parts.append(sum(len(e.keys) for e in step.outputs.emits if e.topic == "governance.ledger"))
        task.commit(step, task.store.position())
        more = step.outputs.more
    assert parts == expected
