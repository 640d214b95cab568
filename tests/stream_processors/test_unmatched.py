"""The linkage window: of whom nobody is found by its end goes, at the source, and whoever is found stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from schemas.contracts import identified_topic
from stream_processors import clock, ledger
from stream_processors.erasure.overdue import MARK, WINDOW
from stream_processors.runtime.driver import Driver
from stream_processors.runtime.partition import partition_of
from stream_processors.runtime.records import HEARTBEAT_KEY
from stream_processors.topology import NAMES, build
from stream_processors.unmatched import TOPIC, WAITS
from tests.stream_processors.accounted import published, report_of
from tests.stream_processors.tables import AYSHA, CONTEXT, PARTITIONS, REGISTRY, Flow, decoded, framed

COUNCIL = "council-northam"
PEOPLE, ABSENCES = "identified.dfe.person", "identified.dfe.absence"
PARTITION = partition_of("A1", PARTITIONS)
CAME = date(2015, 3, 1)
ALSO_THERE = [s for s in (f"B{n}" for n in range(99)) if partition_of(s, PARTITIONS) == PARTITION][:2]
WINDOW_DAYS = CONTEXT.policy.linkage_window_days
ENDS = CAME + timedelta(WINDOW_DAYS)
"""First day on which a subject that came on `CAME` may no longer wait."""


def ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp() * 1000)


def put(flow: Flow, supplier: str, dataset: str, *ids: str, on: date = CAME, **row: Any) -> None:
    """A record that the broker took on a day."""
    topic = identified_topic(supplier, dataset)
    flow.driver.append(topic, partition_of(ids[0], PARTITIONS), "|".join(ids).encode(), framed(topic, row), ms(on))


def pupil(flow: Flow, on: date = CAME, upn: str = "A1", **more: Any) -> None:
    put(flow, "dfe", "person", upn, on=on, UPN=upn, **{**AYSHA, **more})


def absence(flow: Flow, record: str, on: date = CAME, upn: str = "A1") -> None:
    put(flow, "dfe", "absence", upn, record, on=on, UPN=upn, record_id=record, PeriodEnd=date(2014, 7, 1))


def cohort(flow: Flow, on: date = CAME, **more: Any) -> None:
    row = {"person_id": "c1", "programme_status": "participant", **AYSHA, **more}
    put(flow, COUNCIL, "person", "c1", on=on, **row)


def pass_on(driver: Driver, day: date) -> None:
    """A tick at noon of its day, and the heartbeats after it."""
    driver.now = ms(day)
    for partition in range(PARTITIONS):
        driver.append(clock.TOPIC, partition, clock.KEY, framed(clock.TOPIC, {"as_of": day}), ms(day))
        for topic in ("linkage.activity", "linkage.link"):
            driver.append(topic, partition, HEARTBEAT_KEY, None, ms(day))


def pass_days(flow: Flow, *days: date, run: bool = True) -> None:
    """Days that are told one after the other, each after what the one before has led to."""
    for day in days:
        pass_on(flow.driver, day)
        if run:
            flow.run()


def around(end: date, after: int) -> list[date]:
    """Days until so many after one, the first of which only confirms."""
    return [end + timedelta(n) for n in range(-2, after + 1)]


def held(flow: Flow) -> set[bytes]:
    return {k for t in (PEOPLE, ABSENCES) for k in flow.driver.table(t)}


def lines(flow: Flow) -> list[dict[str, Any]]:
    logs = [flow.driver.log(ledger.TOPIC, p) for p in range(PARTITIONS)]
    found = [decoded(ledger.TOPIC, r.value) for log in logs for r in log.records if r.value is not None]
    assert ledger.verify(found) == []
    return found


@pytest.fixture
def flow() -> Flow:
    """A pupil whom no council knows, with two absences; and another whom one does."""
    flow = Flow()
    flow.driver.now = ms(CAME)
    cohort(flow)
    pupil(flow, upn="A2")
    absence(flow, "r1", upn="A2")
    pupil(flow, forename="Nobody", surname="Known", postcode="M1 1AA", date_of_birth=date(1999, 9, 9))
    absence(flow, "r1")
    absence(flow, "r2")
    flow.run()
    return flow


KNOWN, UNKNOWN = {b"A2", b"A2|r1"}, {b"A1", b"A1|r1", b"A1|r2"}


def test_who_matches_nobody_goes_with_all_records_a_day_after_the_window_has_ended(flow: Flow) -> None:
    pass_days(flow, *around(ENDS, 0))
    assert held(flow) == KNOWN | UNKNOWN
    pass_days(flow, ENDS + timedelta(1))
    assert held(flow) == KNOWN
    assert flow.differences() == []
    assert len(flow.driver.table("linkage.activity")) == 3  # the cohort's, and two of whom it knows
    assert flow.driver.table(TOPIC) == {}
    assert not any(k.startswith(WAITS) for p in range(PARTITIONS) for k in flow.driver.state(("join", p))["attached"])


def test_each_record_has_one_line_that_names_the_policy(flow: Flow) -> None:
    pass_days(flow, *around(ENDS, 3))
    found = [(x["kind"], x["dataset"], x["why"], x["as_of"], x["policy"]) for x in lines(flow)]
    rest = ("window", ENDS + timedelta(1), CONTEXT.policy.digest)
    assert sorted(found, key=str) == sorted(
        [
            ("identity", None, *rest),
            ("activity", "person", *rest),
            ("activity", "absence", *rest),
            ("activity", "absence", *rest),
        ],
        key=str,
    )


def test_councils_subjects_have_no_window() -> None:
    flow = Flow()
    cohort(flow)
    flow.run()
    pass_days(flow, *around(ENDS, 3))
    assert len(flow.driver.table(f"identified.{COUNCIL}.person")) == 1


def test_a_late_council_finds_who_still_waits(flow: Flow) -> None:
    pass_days(flow, *around(ENDS, 0))
    put(
        flow, COUNCIL, "person", "c9", on=ENDS, person_id="c9", programme_status="comparison",
        **{**AYSHA, "forename": "Nobody", "surname": "Known", "postcode": "M1 1AA", "date_of_birth": date(1999, 9, 9)},
    )  # fmt: skip
    flow.run()
    pass_days(flow, *around(ENDS + timedelta(3), 3))
    assert held(flow) == KNOWN | UNKNOWN
    assert lines(flow) == []


def test_who_loses_its_link_after_the_window_goes_once_two_more_days_have_passed(flow: Flow) -> None:
    pass_days(flow, *around(ENDS, 20))
    flow.delete(COUNCIL, "person", "c1")
    flow.run()
    pass_days(flow, ENDS + timedelta(21))
    assert held(flow) == KNOWN
    pass_days(flow, ENDS + timedelta(22))
    assert held(flow) == set()


def test_who_is_between_two_persons_for_a_moment_stays(flow: Flow) -> None:
    pass_days(flow, *around(ENDS, 20))
    for n in range(21, 25):
        flow.delete(COUNCIL, "person", "c1")
        flow.run()
        pass_days(flow, ENDS + timedelta(n))  # it is seen to belong to nobody
        cohort(flow, on=ENDS + timedelta(n))
        flow.run()
    pass_days(flow, *[ENDS + timedelta(n) for n in range(25, 28)])
    assert held(flow) == KNOWN
    assert flow.differences() == []


def test_a_person_record_that_came_again_counts_from_then(flow: Flow) -> None:
    again = CAME + timedelta(100)
    pupil(flow, on=again, forename="Nobody", surname="Known", postcode="M1 1AA", date_of_birth=date(1999, 9, 9))
    flow.run()
    pass_days(flow, *around(ENDS, 3))
    assert held(flow) == KNOWN | UNKNOWN
    pass_days(flow, *around(ENDS + timedelta(100), 1))
    assert held(flow) == KNOWN


@pytest.mark.parametrize("crash", [None, "before", "after"])
def test_a_person_record_that_comes_while_the_tombstone_is_on_its_way_keeps_all_records(
    flow: Flow, crash: str | None
) -> None:
    pass_days(flow, *around(ENDS, 0))
    pass_days(flow, ENDS + timedelta(1), run=False)
    flow.driver.run(only={"join"})
    for other in ALSO_THERE:
        pupil(flow, on=ENDS + timedelta(1), upn=other)
    pupil(flow, on=ENDS + timedelta(1), forename="Nobody", surname="Renewed", postcode="M1 1AA")
    key = ("pseudonymise", PARTITION)
    flow.driver.step(key, 1)  # the tick, what join says, and the first of those that were sent before
    assert [(r.key, r.value is None) for r in flow.driver.log(PEOPLE, PARTITION).records[-2:]] == [
        (b"A1", False),
        (b"A1", True),
    ]
    if crash:
        flow.driver.step(key, 1_000, crash)
    flow.run()
    assert held(flow) == KNOWN | UNKNOWN | {other.encode() for other in ALSO_THERE}
    assert decoded(PEOPLE, flow.driver.table(PEOPLE)[b"A1"])["surname"] == "Renewed"
    assert flow.differences() == []


def test_what_no_link_has_come_of_yet_stays() -> None:
    """link is behind: join knows of nobody to whom the subject belongs, nor that there is none."""
    flow = Flow()
    cohort(flow)
    pupil(flow)
    awake = {n for n in NAMES if n != "link"}
    flow.driver.run(only=awake)
    for day in around(ENDS, 5):
        pass_days(flow, day, run=False)
        flow.driver.run(only=awake)
    assert held(flow) == {b"A1"}
    flow.run()
    pass_days(flow, *[ENDS + timedelta(n) for n in range(6, 9)])
    assert held(flow) == {b"A1"}


def test_what_lies_unread_before_join_is_read_before_anything_goes(flow: Flow) -> None:
    """join has read the ticks of many days, and not yet the link that came before them."""
    pass_days(flow, *around(ENDS, -1))
    claims = flow.driver.table("linkage.link")
    (key,) = [k for k in claims if decoded("linkage.link", claims[k])["outcome"] == "waiting" and k.split(b"|")[1][:1]
              == max(c.split(b"|")[1][:1] for c in claims if c[:32] == k[:32])][:1]  # fmt: skip
    linked = {**decoded("linkage.link", claims[key]), "outcome": "linked", "person_ref": "p" * 32, "match_key": "k02"}
    flow.driver.append("linkage.link", PARTITION, key, framed("linkage.link", linked), ms(ENDS))
    task = ("join", PARTITION)
    unread = flow.driver.log("linkage.link", PARTITION)
    end, unread.end = unread.end, flow.driver.committed(task, "linkage.link")
    for n in range(5):
        day = ENDS + timedelta(n)
        flow.driver.append(clock.TOPIC, PARTITION, clock.KEY, framed(clock.TOPIC, {"as_of": day}), ms(day))
        flow.driver.step(task, 1)
    unread.end = end
    assert flow.driver.table(TOPIC) == {}
    flow.driver.run(only={"join"})
    assert flow.driver.table(TOPIC) == {}


def test_without_the_right_to_end_windows_nothing_goes_at_the_source() -> None:
    flow = Flow(context=replace(CONTEXT, ends_windows=False))
    pupil(flow)
    flow.run()
    pass_days(flow, *around(ENDS, 3))
    assert held(flow) == {b"A1"}


def test_a_header_that_is_no_day_is_none(flow: Flow) -> None:
    headers = [(MARK, b"0"), (WINDOW, b"\xff")]
    flow.driver.append(PEOPLE, PARTITION, b"A1", None, ms(ENDS), headers)
    flow.run()
    assert held(flow) == KNOWN | UNKNOWN - {b"A1"}


def test_every_record_is_accounted_for() -> None:
    driver = Driver([build(n, CONTEXT) for n in NAMES], PARTITIONS, seed=5, accounts=REGISTRY)
    published(driver)
    driver.run(100)
    before = {t: len(driver.table(t)) for t in driver.topics if t.startswith("identified.")}
    received = date(2017, 7, 14)
    for n in range(-2, 3):
        pass_on(driver, received + timedelta(WINDOW_DAYS + n))
        driver.run(100)
    after = {t: len(driver.table(t)) for t in before}
    assert after["identified.dfe.person"] < before["identified.dfe.person"]
    assert after["identified.council-northam.person"] == before["identified.council-northam.person"]
    report = report_of(driver)
    assert (report.state, list(report.findings)) == ("balanced", [])


@pytest.mark.parametrize(("days", "goes"), [(200, True), (400, False)])
def test_another_window_holds_for_what_is_held(flow: Flow, days: int, goes: bool) -> None:
    pass_days(flow, *around(CAME + timedelta(300), 0))
    policy = CONTEXT.policy.model_copy(update={"linkage_window_days": days})
    context = replace(CONTEXT, policy=policy)
    for name in ("pseudonymise", "join"):
        flow.driver.replace(build(name, context))
    for partition in range(PARTITIONS):
        flow.driver.lag(("pseudonymise", partition))
    pass_days(flow, *[CAME + timedelta(n) for n in ((301, 302, 303) if goes else (398, 399, 400))])
    assert held(flow) == KNOWN if goes else KNOWN | UNKNOWN
    pass_days(flow, CAME + timedelta(days + 201))
    pass_days(flow, CAME + timedelta(days + 202))
    pass_days(flow, CAME + timedelta(days + 203))
    assert held(flow) == KNOWN


def test_what_is_sent_after_its_person_has_gone_stays_also_when_all_is_read_again(flow: Flow) -> None:
    pass_days(flow, *around(ENDS, 0))
    pass_days(flow, ENDS + timedelta(1), run=False)
    flow.driver.run(only={"join"})
    flow.driver.step(("pseudonymise", PARTITION), 1_000)  # the person's tombstone lies there, and is not read back
    absence(flow, "r3", on=ENDS + timedelta(2))
    flow.run()
    assert held(flow) == KNOWN | {b"A1|r3"}
    flow.driver.lag(("pseudonymise", PARTITION))
    flow.run()
    assert held(flow) == KNOWN | {b"A1|r3"}
