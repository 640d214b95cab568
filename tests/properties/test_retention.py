"""Retention without a broker: whatever happens on the way, at rest nothing is held that has expired, all else is, and
the ledger has one line for each record that was destroyed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_processors import ledger, oracle
from stream_processors.clock import Clock
from stream_processors.retention import AT_ONCE, Retention
from stream_processors.retention_policy import Period
from stream_processors.runtime.driver import Driver, Record
from tests.examples import examples
from tests.properties.test_convergence import happen, histories
from tests.stream_processors.tables import CONTEXT, PARTITIONS, RESEARCH_KEY, TOKEN_KEY, Flow, decoded, framed, wide

QUICK = settings(deadline=None, max_examples=examples(100), suppress_health_check=list(HealthCheck))
TODAY = date(2021, 6, 1)
TOPIC, CLOCK, LEDGER = "linkage.activity", "governance.clock", "governance.ledger"
TASK = ("retention.activity", 0)
KEYS = tuple(f"{wide('s1')}|{wide(f'r{i}')}".encode() for i in range(3))


def day(n: int) -> date:
    return TODAY + timedelta(n)


def activity(expires: int, version: int = 0) -> bytes:
    """An activity that expires `expires` days from today."""
    item = {"sessions_possible": version}
    return framed(TOPIC, {"supplier": "dfe", "dataset": "absence", "expires_on": day(expires), "absence": item})


class World:
    """Retention on one partition, and pseudonymise played by the test."""

    def __init__(self, seed: int = 0, at_once: int = AT_ONCE) -> None:
        retention = Retention("activity", CONTEXT.policy, CONTEXT.schema_ids, at_once=at_once)
        self.driver = Driver([retention], 1, seed)
        self.clock = Clock()
        self.last: dict[bytes, bytes | None] = {}
        self.archive: dict[int, Record] = {}

    def write(self, key: bytes, value: bytes | None) -> None:
        self.driver.append(TOPIC, 0, key, value)
        self.last[key] = value

    def tick(self, n: int) -> None:
        self.driver.append(CLOCK, 0, b"clock", framed(CLOCK, {"as_of": day(n)}))
        self.clock = self.clock.tick((day(n) - date(1970, 1, 1)).days)

    def step(self, most: int, crash: str | None = None) -> None:
        self.driver.step(TASK, most, crash)
        self.note()

    def run(self, most: int) -> None:
        while TASK in self.driver.ready():
            self.step(most)

    def note(self) -> None:
        """Remember all records, so that compaction does not hide them from the test."""
        self.archive.update({r.offset: r for r in self.driver.log(TOPIC, 0).records})

    def compact(self, drop_tombstones: bool) -> None:
        self.note()
        if not self.driver.behind(TASK, TOPIC):
            self.driver.log(TOPIC, 0).compact(drop_tombstones)
            self.driver.log("state.retention.activity", 0).compact(drop_tombstones)

    @property
    def confirmed(self) -> date:
        return date(1970, 1, 1) + timedelta(self.clock.confirmed or 0)

    def lines(self) -> list[dict[str, Any]]:
        return [decoded(LEDGER, r.value) for r in self.driver.log(LEDGER, 0).records if r.value is not None]

    def should(self) -> dict[bytes, bytes]:
        return {
            k: v for k, v in self.last.items() if v is not None and decoded(TOPIC, v)["expires_on"] > self.confirmed
        }

    def check(self) -> None:
        self.note()
        table = self.driver.table(TOPIC)
        assert table == self.should()
        lines = self.lines()
        assert ledger.verify(lines) == []
        assert len({line["offset"] for line in lines}) == len(lines)
        for line in lines:
            record = self.archive[line["offset"]]
            assert record.key is not None
            assert record.value is not None
            assert line["record"] == hashlib.sha256(record.key).hexdigest()
            assert decoded(TOPIC, record.value)["expires_on"] == line["expires_on"]
            if line["why"] == "withdrawal":
                assert line["by"] == "dfe"
                assert line["as_of"] is None or line["as_of"] <= self.confirmed
                if line["tombstone"] is not None:
                    by = self.archive[line["tombstone"]]
                    assert (by.key, by.value) == (record.key, None)
                    assert by.offset > record.offset
            else:
                assert line["expires_on"] <= line["as_of"] <= self.confirmed
        # A record that pseudonymise has deleted has its line, whatever retention did meanwhile.
        offsets = {line["offset"] for line in lines}
        for deletion in self.archive.values():
            before = [r for r in self.archive.values() if r.key == deletion.key and r.offset < deletion.offset]
            last = max(before, key=lambda r: r.offset, default=None)
            if deletion.value is None and not deletion.headers and last is not None and last.value is not None:
                assert last.offset in offsets
        destroyed = {self.archive[line["offset"]].value for line in lines}
        assert {v for v in self.last.values() if v is not None and v not in table.values()} <= destroyed
        state = self.driver.state(TASK)
        assert state["due"].keys() == table.keys()
        assert sorted(k[10:] for k in state["calendar"]) == sorted(table)


EVENTS = st.lists(
    st.one_of(
        *[st.tuples(st.just("put"), st.sampled_from(KEYS), st.integers(-3, 12))] * 3,
        st.tuples(st.just("gone"), st.sampled_from(KEYS)),
        *[st.tuples(st.just("day"), st.sampled_from([0, 1, 1, 1, 2, 3, -1, 1, 365]))] * 2,
        *[st.tuples(st.just("step"), st.integers(1, 4), st.sampled_from([None, None, "before", "after"]))] * 3,
        st.tuples(st.just("crash"), st.booleans()),
        st.tuples(st.just("compact"), st.booleans()),
        st.tuples(st.just("lag")),
    ),
    min_size=8,
    max_size=40,
)


@QUICK
@given(EVENTS, st.integers(1, 3), st.sampled_from([1, 2, AT_ONCE]))
def test_at_rest_what_has_expired_is_gone_and_all_else_is_there(
    events: list[tuple[Any, ...]], most: int, at_once: int
) -> None:
    """`at_once`: what a tick ends goes in parts, between which all else may happen."""
    world, version, now = World(at_once=at_once), 0, 0
    world.tick(-1)
    world.tick(0)
    for n, key in enumerate(KEYS):  # so that the first day that passes finds something to destroy
        world.write(key, activity(n // 2 + 1))
    world.run(10)
    for kind, *what in events:
        if kind == "put":
            version += 1
            world.write(what[0], activity(now + what[1], version))
        elif kind == "gone":
            world.write(what[0], None)
        elif kind == "day":
            world.tick(now + what[0])
            now += what[0] if 0 <= what[0] <= 3 else 0
        elif kind == "step":
            if TASK in world.driver.ready():
                world.step(*what)
        elif kind == "crash":
            world.driver.crash(TASK, lose_state=what[0])
        elif kind == "lag":
            world.driver.lag(TASK)
        else:
            world.compact(what[0])
    world.run(most)
    world.check()


@QUICK
@given(st.lists(st.sampled_from([0, 1, 1, 1, 2, 5]), min_size=1, max_size=30), st.data())
def test_a_clock_that_is_wrong_on_one_tick_destroys_nothing_early(gaps: list[int], data: st.DataObject) -> None:
    """Days come late, twice or not at all; one tick is a year off, or more than a day ahead of all before."""
    days = [sum(gaps[:i]) for i in range(1, len(gaps) + 1)]
    wrong = data.draw(st.integers(0, len(days)))
    off = data.draw(st.sampled_from([-365, -1, 2, 30, 365]))
    highest, clock = max(days[:wrong], default=0), Clock()
    times = data.draw(st.integers(1, 2))
    for i, true in enumerate([*days[:wrong], *[highest + off] * times, *days[wrong:]]):
        clock = clock.tick(true)
        real = days[: max(1, i + 1 if i < wrong else wrong if i < wrong + times else i - times + 1)]
        assert clock.confirmed is None or clock.confirmed <= max(real)


@QUICK
@given(st.data(), st.integers(1, 4))
def test_one_wrong_tick_and_ticks_lost_repeated_or_late_expire_nothing_early_and_bring_nothing_back(
    data: st.DataObject, most: int
) -> None:
    """One tick a day. On one day the clock is a day fast or slow; some ticks are lost, come again, or come late."""
    world, days = World(), 8
    for n, key in enumerate(KEYS):
        world.write(key, activity(2 + 2 * n))
    wrong = data.draw(st.integers(1, days))
    off = data.draw(st.sampled_from([-1, 1]))
    gone: set[bytes] = set()
    for real in range(1, days + 1):
        told = real + off if real == wrong else real
        fate = data.draw(st.sampled_from(["told", "told", "lost", "again", "late"]))
        if fate == "late":  # the tick of the day before comes after this one
            world.tick(told)
            world.tick(real - 1)
        elif fate != "lost":
            world.tick(told)
        if fate == "again":
            world.tick(told)
        world.run(most)
        live = world.driver.table(TOPIC).keys()
        for n, key in enumerate(KEYS):
            assert key in live or 2 + 2 * n <= real, "nothing goes before its day"
        assert not gone & live, "what is gone stays gone"
        gone |= set(KEYS) - live
    for later in range(days + 1, days + 4):  # the clock goes right again
        world.tick(later)
        world.run(most)
    assert not world.driver.table(TOPIC)
    world.check()


TWO_DAYS = st.lists(st.integers(18_600, 19_360), min_size=2, max_size=2, unique=True).map(sorted)
# The driver's records are all received on 1 January 1970: councils' persons are held until the hard stop (day 19357),
# dfe's until 2021-09-30 (day 18900). Events of 2013 are held until 2022.
RECEIPT = {"council.person": 36_525, "dwp.person": 36_525, "dfe.person": 18_900}
LONG = CONTEXT.policy.model_copy(
    update={
        "periods": {**CONTEXT.policy.periods, **{n: Period(after="receipt", days=d) for n, d in RECEIPT.items()}},
    }
)


@settings(QUICK, max_examples=examples(6))
@given(histories(), TWO_DAYS, st.integers(1, 30))
def test_the_whole_flow_holds_what_the_oracle_holds_on_that_day(events: list[Any], days: list[int], batch: int) -> None:
    flow = Flow(context=replace(CONTEXT, policy=LONG))
    ticks = [*days, days[-1] + 1]
    for i, event in enumerate(events):
        happen(flow, event)
        if i % 7 == 3 and ticks:
            tell(flow, ticks.pop(0))
    for day_number in ticks:
        tell(flow, day_number)
    flow.run(batch)
    as_of = date(1970, 1, 1) + timedelta(days[-1] + 1)
    expected = oracle.research(
        received(flow),
        TOKEN_KEY,
        RESEARCH_KEY,
        CONTEXT.catalogue,
        CONTEXT.areas.by_postcode,
        flow.epochs.leads,
        policy=LONG.model_dump(),
        as_of=as_of,
    )
    assert oracle.equal(expected, flow.research()) + oracle.equal_links(expected, flow.links()) == []
    lines = [
        decoded(LEDGER, r.value)
        for p in range(PARTITIONS)
        for r in flow.driver.log(LEDGER, p).records
        if r.value is not None
    ]
    assert ledger.verify(lines) == []


def tell(flow: Flow, day_number: int) -> None:
    value = framed(CLOCK, {"as_of": date(1970, 1, 1) + timedelta(day_number)})
    for partition in range(PARTITIONS):
        flow.driver.append(CLOCK, partition, b"clock", value)


def received(flow: Flow) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Live supplier records with the day of receipt: of all of them the first of the driver's time."""
    return {
        supplier: {
            dataset: [row | {oracle.RECEIVED: date(1970, 1, 1)} for row in rows] for dataset, rows in datasets.items()
        }
        for supplier, datasets in flow.live().items()
    }
