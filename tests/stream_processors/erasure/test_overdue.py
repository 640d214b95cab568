"""What has expired leaves its source, too: through the whole flow, brokerless, with accounts that balance."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from stream_processors import clock, ledger
from stream_processors.accounting.reconcile import Report
from stream_processors.erasure.overdue import MARK
from stream_processors.retention_policy import Period
from stream_processors.runtime.driver import Driver
from stream_processors.runtime.partition import partition_of
from stream_processors.topology import NAMES, build
from tests.stream_processors.accounted import published, report_of
from tests.stream_processors.tables import AYSHA, CONTEXT, PARTITIONS, REGISTRY, Flow, decoded, framed

COUNCIL = "council-northam"
ABSENCES = "identified.dfe.absence"
PARTITION = partition_of("A1", PARTITIONS)
HELD = CONTEXT.policy.periods["dfe.absence"].days
# The driver's records are all received on 1 January 1970: people are held until the hard stop here.
PEOPLE = {n: Period(after="receipt", days=36_525) for n in ("council.person", "dfe.person")}
LONG = replace(CONTEXT, policy=CONTEXT.policy.model_copy(update={"periods": {**CONTEXT.policy.periods, **PEOPLE}}))
FIRST, SECOND = date(2005, 7, 1), date(2006, 7, 1)
"""Ends of the periods of two absences."""


@pytest.fixture
def flow() -> Flow:
    """Aysha, and two absences of hers."""
    flow = Flow(context=LONG)
    flow.put(COUNCIL, "person", person_id="c1", programme_status="participant", **AYSHA)
    flow.put("dfe", "person", UPN="A1", **AYSHA)
    absence(flow, 1, FIRST)
    absence(flow, 2, SECOND)
    flow.run()
    return flow


def absence(flow: Flow, i: int, ended: date, **more: Any) -> None:
    flow.put("dfe", "absence", UPN="A1", record_id=f"r{i}", PeriodEnd=ended, **more)


def tell(driver: Driver, *days: date) -> None:
    for day in days:
        for partition in range(PARTITIONS):
            value = framed(clock.TOPIC, {"as_of": day})
            driver.append(clock.TOPIC, partition, clock.KEY, value)


def pass_over(flow: Flow, ended: date) -> None:
    """The day on which an absence that ended then expires is confirmed."""
    over = ended + timedelta(HELD)
    tell(flow.driver, over - timedelta(1), over)


def held(flow: Flow) -> set[bytes]:
    return set(flow.driver.table(ABSENCES))


def lines(flow: Flow) -> list[dict[str, Any]]:
    logs = [flow.driver.log(ledger.TOPIC, p) for p in range(PARTITIONS)]
    found = [decoded(ledger.TOPIC, r.value) for log in logs for r in log.records if r.value is not None]
    assert ledger.verify(found) == []
    return found


def why(flow: Flow) -> list[tuple[str, str, date]]:
    return [(line["why"], line["dataset"], line["as_of"]) for line in lines(flow)]


def test_what_has_expired_goes_from_its_source_and_from_everywhere_below(flow: Flow) -> None:
    pass_over(flow, FIRST)
    flow.run()
    assert held(flow) == {b"A1|r2"}
    assert flow.differences() == []
    assert why(flow) == [("expiry", "absence", FIRST + timedelta(HELD))]
    assert len(flow.driver.table("linkage.activity")) == 3


def test_the_line_names_the_policy_and_a_withdrawal_names_none(flow: Flow) -> None:
    pass_over(flow, FIRST)
    flow.delete("dfe", "absence", "A1", "r2")
    flow.run()
    found = {line["why"]: line["policy"] for line in lines(flow)}
    assert found == {"expiry": LONG.policy.digest, "withdrawal": None}


def test_what_has_not_expired_stays_with_one_tombstone_for_each_that_has(flow: Flow) -> None:
    pass_over(flow, FIRST)
    flow.run()
    tell(flow.driver, FIRST + timedelta(HELD + 1))
    flow.run()
    log = flow.driver.log(ABSENCES, PARTITION)
    assert [(r.key, r.value) for r in log.records[2:]] == [(b"A1|r1", None)]


def test_the_line_says_expiry_whoever_came_first_to_it(flow: Flow) -> None:
    """pseudonymise's tombstone is in the linkage zone before retention has read the tick."""
    pass_over(flow, FIRST)
    flow.driver.run(only={"pseudonymise"})
    flow.run()
    assert why(flow) == [("expiry", "absence", FIRST + timedelta(HELD))]


def test_a_supplier_cannot_have_its_own_deletion_called_an_expiry(flow: Flow) -> None:
    pass_over(flow, FIRST)
    flow.run()
    flow.driver.append(ABSENCES, PARTITION, b"A1|r2", None, headers=[(MARK, b"1")])
    flow.run()
    assert [w for w, *_ in why(flow)] == ["expiry", "withdrawal"]


@pytest.mark.parametrize("mark", [b"", b"nine", b"9" * 400, "٣".encode()])
def test_a_header_that_is_no_mark_is_none(flow: Flow, mark: bytes) -> None:
    flow.driver.append(ABSENCES, PARTITION, b"A1|r2", None, headers=[(MARK, mark)])
    flow.run()
    assert held(flow) == {b"A1|r1"}


def test_what_comes_after_its_day_is_refused_with_a_line_and_does_not_stay(flow: Flow) -> None:
    pass_over(flow, SECOND)
    flow.run()
    absence(flow, 3, FIRST)
    flow.run()
    assert held(flow) == set()
    assert Counter(w for w, *_ in why(flow)) == {"expiry": 2, "late": 1}


@pytest.mark.parametrize("crash", [None, "before", "after"])
def test_a_correction_that_comes_while_the_tombstone_is_on_its_way_is_not_lost(flow: Flow, crash: str | None) -> None:
    pass_over(flow, FIRST)
    key = ("pseudonymise", PARTITION)
    for other in (8, 9):
        absence(flow, other, SECOND)
    absence(flow, 1, SECOND, SessionsPossible_3Term=2)
    for _ in range(2):  # both ticks, and the two that were sent before the correction
        flow.driver.step(key, 1)
    assert flow.driver.log(ABSENCES, PARTITION).records[-1].value is None
    flow.driver.step(key, 1, crash)
    flow.run()
    assert held(flow) == {b"A1|r1", b"A1|r2", b"A1|r8", b"A1|r9"}
    assert decoded(ABSENCES, flow.driver.table(ABSENCES)[b"A1|r1"])["SessionsPossible_3Term"] == 2
    assert flow.differences() == []


def test_a_copy_in_quarantine_goes_with_its_record(flow: Flow) -> None:
    absence(flow, 4, FIRST, SessionsPossible_3Term=-5)
    flow.run()
    assert flow.driver.table("identified.dfe.quarantine")
    pass_over(flow, FIRST)
    flow.run()
    assert held(flow) == {b"A1|r2"}
    assert not flow.driver.table("identified.dfe.quarantine")


def test_what_nobody_can_read_goes_at_the_hard_stop(flow: Flow) -> None:
    flow.raw("dfe", "absence", ["A1", "r9"], b"\x01nonsense")
    stop = CONTEXT.policy.hard_stop
    tell(flow.driver, stop - timedelta(2), stop - timedelta(1))
    flow.run()
    assert b"A1|r9" in held(flow)
    tell(flow.driver, stop)
    flow.run()
    assert not any(flow.driver.table(t) for t in flow.driver.topics if t.startswith(("identified.", "research.")))


def test_ticks_that_are_recalled_and_then_read_confirm_nothing_twice(flow: Flow) -> None:
    over = FIRST + timedelta(HELD)
    tell(flow.driver, over + timedelta(9), over)  # the first was wrong, and is forgotten
    flow.driver.crash(("pseudonymise", PARTITION))  # it knows both before it reads them
    flow.run()
    assert held(flow) == {b"A1|r1", b"A1|r2"}


def test_every_record_is_accounted_for_when_all_has_expired() -> None:
    driver = Driver([build(n, CONTEXT) for n in NAMES], PARTITIONS, seed=5, accounts=REGISTRY)
    published(driver)
    driver.run(100)
    sources = {t for t in driver.topics if t.startswith("identified.")}
    before = {t: len(driver.table(t)) for t in sources}
    assert before["identified.dfe.absence"]
    assert before["identified.dfe.quarantine"]
    stop = CONTEXT.policy.hard_stop
    tell(driver, stop - timedelta(1), stop)
    driver.run(100)
    found: Report = report_of(driver)
    assert (found.state, list(found.findings)) == ("balanced", [])
    assert not any(driver.table(t) for t in sources)
    ours = [r for t in sources for log in driver.topics[t] for r in log.records if dict(r.headers).get(MARK)]
    suppliers = {t: n for t, n in before.items() if not t.endswith(".quarantine")}
    assert [r.value for r in ours] == [None] * sum(suppliers.values())
