"""Whatever comes between: at rest a supplier's topic holds what the supplier said last, less what has expired."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_processors.clock import TOPIC as CLOCK
from stream_processors.clock import Clock
from stream_processors.runtime.driver import Driver
from stream_processors.runtime.partition import partition_of
from stream_processors.topology import build
from tests.stream_processors.tables import CONTEXT, PARTITIONS, decoded, framed

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
TOPIC = "identified.dfe.absence"
SUBJECT = "A1"
PARTITION = partition_of(SUBJECT, PARTITIONS)
TASK = ("pseudonymise", PARTITION)
KEYS = [f"{SUBJECT}|r{n}".encode() for n in range(3)]
START = date(2015, 1, 1)
HELD = timedelta(CONTEXT.policy.periods["dfe.absence"].days)


def record(key: bytes, expires: int, version: int) -> bytes:
    """A record that expires so many days from the start."""
    ended = START + timedelta(expires) - HELD
    ids = {"UPN": SUBJECT, "record_id": key.decode().partition("|")[2]}
    return framed(TOPIC, {**ids, "PeriodEnd": ended, "SessionsPossible_3Term": version})


class World:
    """pseudonymise on one partition, with a supplier and a clock."""

    def __init__(self) -> None:
        self.driver = Driver([build("pseudonymise", CONTEXT)], PARTITIONS)
        self.clock = Clock()
        self.last: dict[bytes, bytes | None] = {}

    def write(self, key: bytes, value: bytes | None) -> None:
        self.driver.append(TOPIC, PARTITION, key, value)
        self.last[key] = value

    def tick(self, n: int) -> None:
        day = START + timedelta(n)
        self.driver.append(CLOCK, PARTITION, b"clock", framed(CLOCK, {"as_of": day}))
        self.clock = self.clock.tick((day - date(1970, 1, 1)).days)

    def behind(self) -> bool:
        return TASK in self.driver.ready()

    def compact(self, drop_tombstones: bool) -> None:
        """Of what was read: a worker that reads what it wrote before the cleaner comes (ADR 25)."""
        if not self.behind():
            for topic in (TOPIC, CLOCK):
                self.driver.log(topic, PARTITION).compact(drop_tombstones)

    def run(self, most: int) -> None:
        for _ in range(200):
            if not self.behind():
                return
            self.driver.step(TASK, most)
        raise AssertionError("it comes to no rest")

    def should(self) -> dict[bytes, bytes]:
        """What the supplier said last, less what has expired."""
        confirmed = self.clock.confirmed or 0
        over = date(1970, 1, 1) + timedelta(confirmed)
        return {k: v for k, v in self.last.items() if v is not None and decoded(TOPIC, v)["PeriodEnd"] + HELD > over}


EVENTS = st.lists(
    st.one_of(
        *[st.tuples(st.just("put"), st.sampled_from(KEYS), st.integers(-3, 12))] * 3,
        st.tuples(st.just("gone"), st.sampled_from(KEYS)),
        *[st.tuples(st.just("day"), st.sampled_from([0, 1, 1, 1, 2, 3, -1]))] * 2,
        *[st.tuples(st.just("step"), st.integers(1, 3), st.sampled_from([None, None, "before", "after"]))] * 4,
        st.tuples(st.just("crash")),
        st.tuples(st.just("compact"), st.booleans()),
        st.tuples(st.just("lag")),
    ),
    min_size=8,
    max_size=40,
)


@QUICK
@given(EVENTS, st.integers(1, 3))
def test_at_rest_a_source_holds_what_was_said_last_less_what_has_expired(
    events: list[tuple[Any, ...]], most: int
) -> None:
    world, version, now = World(), 0, 0
    world.tick(-1)
    world.tick(0)
    for n, key in enumerate(KEYS):
        world.write(key, record(key, n + 1, version))
    world.run(10)
    for kind, *what in events:
        if kind == "put":
            version += 1
            world.write(what[0], record(what[0], now + what[1], version))
        elif kind == "gone":
            world.write(what[0], None)
        elif kind == "day":
            world.tick(now + what[0])
            now += max(what[0], 0)
        elif kind == "step" and world.behind():
            world.driver.step(TASK, *what)
        elif kind == "crash":
            world.driver.crash(TASK)
        elif kind == "lag":
            world.driver.lag(TASK)
        elif kind == "compact":
            world.compact(what[0])
    world.run(most)
    # Of the clock it knows what the topic still holds, so after a restart it waits for two more ticks.
    for _ in range(2):
        now += 1
        world.tick(now)
        world.run(most)
    assert world.driver.table(TOPIC) == world.should()
    activities = world.driver.table("linkage.activity")
    assert len(activities) == len(world.should())
