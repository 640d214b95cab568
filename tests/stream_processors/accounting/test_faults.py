"""Injected faults, one each: whatever a processor drops, doubles, alters or leaves standing is named, and nobody else
is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import polars as pl
import pytest

from infra.bench import load
from stream_processors.accounting.batches import ABANDONED_MS
from stream_processors.accounting.reconcile import STALLED_MS
from stream_processors.clock import KEY
from stream_processors.clock import TOPIC as CLOCK
from stream_processors.control.clock import tick_value
from stream_processors.runtime.account import SKIPPED
from stream_processors.runtime.driver import Driver, Log
from stream_processors.runtime.processor import Processor
from stream_processors.topology import NAMES, build
from tests.stream_processors.accounted import (
    PEOPLE,
    flow,
    leave,
    publish,
    published,
    records,
    report_of,
)
from tests.stream_processors.faulty import OUTPUTS, Patched, Spoil, altered, doubled, dropped, misplaced, of_another
from tests.stream_processors.tables import CONTEXT, PARTITIONS, REGISTRY, decoded, framed


@dataclass(frozen=True)
class Fault:
    """`rule`: words of the rule that must name it."""

    processor: str
    topic: str
    partition: int
    spoil: Spoil | None
    tombstones: bool = False
    rule: str = ""
    also: frozenset[str] = frozenset()
    """Who is named besides: what follows from the fault cannot balance there either."""

    def __str__(self) -> str:
        what = self.spoil.__name__ if self.spoil else "input dropped"
        return f"{self.processor}-{self.partition} {self.topic} {'tombstone ' * self.tombstones}{what}"


INPUTS = {
    "pseudonymise": "identified.dfe.absence",
    "route": "linkage.identity",
    "link": "linkage.candidate",
    "join": "linkage.activity",
    "publish": "linkage.contribution",
}
FAULTS = [
    *(Fault(p, t, n, dropped) for p, t in OUTPUTS.items() for n in range(PARTITIONS)),
    *(Fault(p, t, n, doubled) for p, t in OUTPUTS.items() for n in (0, 3)),
    *(Fault("pseudonymise", "linkage.identity", n, dropped) for n in (1, 2)),
    Fault("pseudonymise", "linkage.identity", 2, doubled),
    Fault("pseudonymise", "governance.quarantine", 1, dropped, rule="quarantined"),
    Fault("pseudonymise", "*.quarantine", 2, dropped, rule="quarantined"),
    *(Fault(p, OUTPUTS[p], 1, misplaced) for p in ("route", "link", "publish")),
    Fault("join", OUTPUTS["join"], 1, misplaced, also=frozenset({"publish"})),
    Fault("link", "linkage.link", 2, of_another),
    *(Fault(p, OUTPUTS[p], 2, altered) for p in ("join", "publish")),
    *(Fault(p, OUTPUTS[p], 0, dropped, tombstones=True) for p in OUTPUTS),
    Fault("pseudonymise", "identified.dfe.absence", 1, None, rule="accepted"),
    Fault("pseudonymise", "identified.council-northam.person", 3, None, rule="accepted"),
    Fault("route", "linkage.identity", 0, None, rule="sent to a block"),
    Fault("link", "linkage.candidate", 2, None, rule="claimed of"),
    Fault("join", "linkage.activity", 3, None, rule="attached"),
    Fault("publish", "linkage.contribution", 1, None, rule="published"),
]


def spoilt(fault: Fault) -> tuple[Driver, Patched]:
    made: list[Patched] = []

    def processor(name: str) -> Processor:
        inner = build(name, CONTEXT)
        if name != fault.processor:
            return inner
        made.append(Patched(inner, fault.topic, fault.partition, fault.spoil, fault.tombstones))
        return made[0]

    driver = Driver([processor(n) for n in NAMES], PARTITIONS, seed=11, accounts=REGISTRY)
    published(driver)
    driver.run(150)
    if fault.tombstones:
        leave(driver)
        driver.run(150)
    return driver, made[0]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_of_a_processor_is_named_with_its_partition_and_offsets(fault: Fault) -> None:
    driver, patched = spoilt(fault)
    assert patched.times, "the fault must have happened"
    found = report_of(driver)
    assert found.state == "differs"
    named = {f.processor for f in found.findings}
    assert fault.processor in named
    assert named - fault.also == {fault.processor}, [f.text for f in found.findings]
    mine = [f for f in found.findings if fault.rule in f.rule]
    assert mine
    assert all(f.next > f.offset >= 0 for f in mine)


def until_only(driver: Driver, left: tuple[str, int]) -> None:
    """Everything is taken in, but what one task is to take."""
    while ready := [key for key in driver.ready() if key != left]:
        driver.step(ready[0], 1_000)


@pytest.mark.parametrize(("processor", "topic"), INPUTS.items())
def test_a_partition_that_stands_still_is_pending_and_named_once_it_is_too_long(processor: str, topic: str) -> None:
    driver = flow()
    published(driver)
    until_only(driver, (processor, 2))
    soon, late = report_of(driver, now_ms=STALLED_MS), report_of(driver, now_ms=STALLED_MS + 1)
    assert (soon.state, list(soon.findings)) == ("pending", [])
    assert {(b.processor, b.partition) for b in soon.behind} == {(processor, 2)}
    assert late.state == "differs"
    assert {(f.processor, f.partition) for f in late.findings} == {(processor, 2)}
    assert topic in {f.topic for f in late.findings}


@pytest.mark.parametrize(("processor", "topic"), INPUTS.items())
def test_offsets_that_were_skipped_are_named(processor: str, topic: str) -> None:
    driver = flow()
    published(driver)
    until_only(driver, (processor, 1))
    driver.step((processor, 1), 2)
    at = driver.committed((processor, 1), topic)
    driver.move((processor, 1), topic, at + 1)
    driver.run(100)
    found = report_of(driver)
    assert {f.processor for f in found.findings} == {processor}, [f.text for f in found.findings]
    (skipped,) = [f for f in found.findings if f.rule == SKIPPED]
    assert (skipped.topic, skipped.partition, skipped.offset, skipped.next) == (topic, 1, at, at + 1)


@pytest.mark.parametrize("kept", [0, 1, 60])
def test_a_batch_that_is_published_by_half_is_pending_and_named_once_it_is_too_long(kept: int) -> None:
    driver = flow()
    published(driver)
    events = records("dfe", "absence", load.absences(100, 20, seed=8))
    publish(driver, "dfe", "absence", events, name="half", keep=kept)
    driver.run(100)
    soon, late = report_of(driver, now_ms=ABANDONED_MS - 1), report_of(driver, now_ms=ABANDONED_MS)
    assert (soon.state, list(soon.findings)) == ("pending", [])
    assert {(f.processor, f.topic) for f in late.findings} == {("publisher", "identified.dfe.absence")}
    assert sum(f.found for f in late.findings) == kept


def lost(log: Log) -> None:
    """The last record never came."""
    del log.records[-1]
    log.end -= 1


def altered_on_the_way(log: Log) -> None:
    r = log.records[-1]
    other = framed("identified.dfe.absence", {**decoded("identified.dfe.absence", r.value or b""), "record_id": "R0"})
    log.records[-1] = r._replace(value=other)


def sent_twice(log: Log) -> None:
    r = log.records[-1]
    log.append(r.key, r.value, r.time, r.headers)


@pytest.mark.parametrize("spoil", [lost, altered_on_the_way, sent_twice])
@pytest.mark.parametrize("partition", [0, 3])
def test_a_batch_that_is_not_what_its_publisher_says_is_named(spoil: Callable[[Log], None], partition: int) -> None:
    driver = flow()
    published(driver)
    events = records("dfe", "absence", load.absences(100, 20, seed=8))
    id_ = publish(driver, "dfe", "absence", events, name="spoilt")
    spoil(driver.log("identified.dfe.absence", partition))
    if spoil is lost:  # the announcement says where the log ended
        publish(driver, "dfe", "absence", records("dfe", "absence", load.absences(40, 20, seed=9)), name="after")
    driver.run(100)
    found = report_of(driver)
    assert {(f.topic, f.partition) for f in found.findings} == {("identified.dfe.absence", partition)}
    assert [b.batch_id for b in found.batches if b.state == "differs"] == [id_]


@pytest.mark.parametrize("spoil", [dropped, misplaced], ids=["dropped", "misplaced"])
@pytest.mark.parametrize("topic", ["linkage.identity", "linkage.activity"])
def test_a_tombstone_that_retention_drops_is_named(topic: str, spoil: Spoil) -> None:
    name = "retention." + topic.partition(".")[2]
    patched = Patched(build(name, CONTEXT), topic, 1, spoil, tombstones=True)
    source = Patched(build("pseudonymise", CONTEXT), topic, 1, dropped, tombstones=True, key=b"nobody's")
    fakes = {name: patched, "pseudonymise": source}
    driver = Driver([fakes.get(n) or build(n, CONTEXT) for n in NAMES], PARTITIONS, seed=11, accounts=REGISTRY)
    published(driver)
    driver.run(100)
    for day in (date(2040, 1, 1), date(2040, 1, 2)):
        for p in range(PARTITIONS):
            driver.append(CLOCK, p, KEY, tick_value(day, REGISTRY))
    driver.run(100, only={name})
    assert patched.times
    if spoil is dropped:  # else it comes from the source a moment later
        source.key = patched.key
    driver.run(100)
    found = report_of(driver)
    if spoil is misplaced:  # an end of nothing, where nothing was: it does no harm
        assert found.state == "balanced"
        return
    assert name in {f.processor for f in found.findings}
    assert {f.partition for f in found.findings if f.processor == name} == {1}


@pytest.mark.parametrize("topic", ["linkage.identity", "linkage.activity"])
def test_a_line_that_is_missing_in_the_ledger_is_named(topic: str) -> None:
    name = "retention." + topic.partition(".")[2]
    patched = Patched(build(name, CONTEXT), "governance.ledger", 2, dropped)
    driver = Driver(
        [patched if n == name else build(n, CONTEXT) for n in NAMES], PARTITIONS, seed=11, accounts=REGISTRY
    )
    published(driver)
    driver.run(100)
    for day in (date(2040, 1, 1), date(2040, 1, 2)):
        for p in range(PARTITIONS):
            driver.append(CLOCK, p, KEY, tick_value(day, REGISTRY))
    driver.run(100)
    assert patched.times
    assert {(f.processor, f.partition) for f in report_of(driver).findings} == {(name, 2)}


@pytest.mark.parametrize(
    ("processor", "table"),
    [("route", "identities"), ("link", "candidates"), ("join", "activities"), ("publish", "persons")],
)
def test_a_row_that_is_lost_from_a_state_is_named_when_it_is_missed(processor: str, table: str) -> None:
    """A damaged folder is discarded and rebuilt; a row that is silently gone shows when its key is next worked on."""
    driver = flow()
    published(driver)
    driver.run(100)
    for partition in range(PARTITIONS):
        store = driver.store((processor, partition))
        store.apply({table: {key: None for key, _ in list(store.scan(table, b""))[::2]}}, store.position())
    leave(driver)
    moved = load.department(load.persons(PEOPLE).with_columns(date_of_birth=pl.lit(date(2001, 5, 6))), "UPN")
    publish(driver, "dfe", "person", records("dfe", "person", moved), name="moved again")
    driver.run(100)
    assert processor in {f.processor for f in report_of(driver).findings}
