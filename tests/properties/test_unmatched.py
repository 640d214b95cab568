"""Whatever comes between: who belongs to nobody when the linkage window ends goes, and nobody else, and nothing new."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_processors import clock
from stream_processors.refs import Refs
from stream_processors.runtime.driver import Driver
from stream_processors.runtime.partition import partition_of
from stream_processors.runtime.records import HEARTBEAT_KEY
from stream_processors.topology import build
from stream_processors.unmatched import TOPIC, WAITS
from tests.examples import examples
from tests.stream_processors.tables import CONTEXT, PARTITIONS, TOKEN_KEY, framed

QUICK = settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
PEOPLE, EVENTS_OF = "identified.dfe.person", "identified.dfe.absence"
SUBJECTS = ["A1", *[s for s in (f"B{n}" for n in range(99)) if partition_of(s, PARTITIONS) == 0][:2]]
SUBJECTS[0] = next(s for s in (f"A{n}" for n in range(99)) if partition_of(s, PARTITIONS) == 0)
START = date(2015, 1, 1)
WINDOW = timedelta(CONTEXT.policy.linkage_window_days)
DAY_MS = 86_400_000
RUNNING = ("pseudonymise", "join")


def refs() -> dict[str, bytes]:
    import polars as pl

    frame = pl.DataFrame({"id": SUBJECTS}).select(ref=Refs(TOKEN_KEY).subject("dfe", pl.col("id")))
    return {s: ref.encode() for s, ref in zip(SUBJECTS, frame["ref"], strict=True)}


REFS = refs()


class World:
    """pseudonymise and join on one partition, with a supplier, a clock, and claims as link would make them.

    `now` counts days from the end of the window of what came at the start.
    """

    def __init__(self) -> None:
        self.driver = Driver([build(name, CONTEXT) for name in RUNNING], PARTITIONS)
        self.now = 0
        self.moment = 0
        self.linked: dict[str, bool] = {}
        self.said: dict[tuple[str, bytes], bytes | None] = {}
        self.came: dict[str, int] = {}

    def ms(self) -> int:
        """A moment of today later than all before."""
        self.moment += 1
        days = (START + WINDOW - date(1970, 1, 1)).days + self.now
        self.driver.now = days * DAY_MS + self.moment
        return self.driver.now

    def write(self, topic: str, key: bytes, value: bytes | None, ago: int = 0) -> None:
        self.driver.append(topic, 0, key, value, self.ms() - ago * DAY_MS)
        self.said[topic, key] = value

    def person(self, subject: str, n: int, ago: int = 0) -> None:
        self.write(PEOPLE, subject.encode(), framed(PEOPLE, {"UPN": subject, "surname": f"S{n}"}), ago)
        self.came[subject] = self.now - ago

    def event(self, subject: str, n: int, ago: int = 0) -> None:
        row = {"UPN": subject, "record_id": f"r{n % 2}", "PeriodEnd": date(2014, 7, 1), "SessionsPossible_3Term": n}
        self.write(EVENTS_OF, f"{subject}|r{n % 2}".encode(), framed(EVENTS_OF, row), ago)

    def link(self, subject: str, linked: bool) -> None:
        row = {"supplier": "dfe", "role": "department", "expires_on": date(2022, 1, 1), "claimed": [], "epoch": 1}
        row |= {"outcome": "linked" if linked else "waiting", "leading": 1}
        row |= {"person_ref": "p" * 32, "match_key": "k02"} if linked else {"person_ref": None, "match_key": None}
        self.driver.append("linkage.link", 0, REFS[subject] + b"|1:a", framed("linkage.link", row), self.ms())
        self.linked[subject] = linked

    def tick(self) -> None:
        self.now += 1
        day = START + WINDOW + timedelta(self.now)
        self.driver.append(clock.TOPIC, 0, clock.KEY, framed(clock.TOPIC, {"as_of": day}), self.ms())
        for topic in ("linkage.activity", "linkage.link"):
            self.driver.append(topic, 0, HEARTBEAT_KEY, None, self.ms())

    def ready(self) -> list[tuple[str, int]]:
        return [key for key in self.driver.ready() if key[1] == 0]

    def compact(self, drop_tombstones: bool) -> None:
        """Of what was read: workers that read what they wrote before the cleaner comes (ADR 25)."""
        if not self.ready():
            for topic in (PEOPLE, EVENTS_OF, clock.TOPIC, "linkage.activity", "linkage.link", TOPIC):
                self.driver.log(topic, 0).compact(drop_tombstones)

    def rest(self, most: int) -> None:
        for _ in range(400):
            ready = self.ready()
            if not ready:
                return
            self.driver.step(ready[0], most)
        raise AssertionError("it comes to no rest")

    def should(self) -> dict[bytes, bytes]:
        """What the supplier said last, less of whom nobody was found and whose window is over."""
        return {
            key: value
            for (topic, key), value in self.said.items()
            if topic == PEOPLE and value is not None and not self.over(key.decode())
        }

    def over(self, subject: str) -> bool:
        return not self.linked.get(subject) and self.came[subject] + WINDOW.days <= self.now


SUBJECT = st.sampled_from(SUBJECTS)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("person"), SUBJECT, st.sampled_from([0, WINDOW.days - 2, WINDOW.days])),
        st.tuples(st.just("event"), SUBJECT),
        st.tuples(st.just("gone"), SUBJECT),
        *[st.tuples(st.just("link"), SUBJECT, st.booleans())] * 2,
        *[st.tuples(st.just("day"))] * 3,
        *[st.tuples(st.just("step"), st.sampled_from(RUNNING), st.integers(1, 4),
                    st.sampled_from([None, None, None, "before", "after"]))] * 6,
        st.tuples(st.just("crash"), st.sampled_from(RUNNING), st.booleans()),
        st.tuples(st.just("compact"), st.booleans()),
        st.tuples(st.just("lag"), st.sampled_from(RUNNING)),
    ),
    min_size=8,
    max_size=50,
)  # fmt: skip


def begun(most: int) -> World:
    """One who is linked, and two of whom nobody was found; all came a window ago, with an event each."""
    world = World()
    for n, subject in enumerate(SUBJECTS):
        world.person(subject, n, ago=WINDOW.days - 3)
        world.event(subject, n, ago=WINDOW.days - 3)
        world.link(subject, n == 0)
    world.rest(most)
    return world


def played(world: World, events: list[tuple[Any, ...]]) -> None:
    for n, (kind, *what) in enumerate(events):
        if kind == "person":
            world.person(what[0], 10 + n, what[1])
        elif kind == "event":
            world.event(what[0], 10 + n)
        elif kind == "gone":
            world.write(PEOPLE, what[0].encode(), None)
        elif kind == "link":
            world.link(*what)
        elif kind == "day":
            world.tick()
        elif kind == "step" and (what[0], 0) in world.ready():
            world.driver.step((what[0], 0), what[1], what[2])
        elif kind == "crash":
            world.driver.crash((what[0], 0), lose_state=what[1])
        elif kind == "lag":
            world.driver.lag((what[0], 0))
        elif kind == "compact":
            world.compact(what[0])


@QUICK
@given(EVENTS, st.integers(1, 4))
def test_who_is_linked_or_came_anew_stays_and_who_belongs_to_nobody_goes(
    events: list[tuple[Any, ...]], most: int
) -> None:
    world = begun(most)
    played(world, [e for e in events if e[0] != "link"])
    world.rest(most)
    for _ in range(4):
        world.tick()
        world.rest(most)
    assert world.driver.table(PEOPLE) == world.should()
    assert world.driver.table(TOPIC) == {}
    assert not any(k.startswith(WAITS) for k in world.driver.state(("join", 0))["attached"])
    held = {k.partition(b"|")[0].decode() for k in world.driver.table(EVENTS_OF)}
    assert SUBJECTS[0] in held, "who is linked keeps what belongs to it"


@QUICK
@given(EVENTS, st.integers(1, 4))
def test_whatever_links_do_what_is_held_is_what_was_said_last_or_nothing(
    events: list[tuple[Any, ...]], most: int
) -> None:
    """Whom a link finds too late may be gone already; at rest, what is below is what is held, and nobody is left."""
    world = begun(most)
    played(world, events)
    world.rest(most)
    for _ in range(4):
        world.tick()
        world.rest(most)
    held = world.driver.table(PEOPLE)
    assert held.items() <= {k: v for (t, k), v in world.said.items() if t == PEOPLE and v is not None}.items()
    assert not any(world.over(key.decode()) for key in held)
    assert world.driver.table(TOPIC) == {}
    activities = world.driver.table("linkage.activity")
    assert len(activities) == len(held) + len(world.driver.table(EVENTS_OF))
