"""Why is this record not in the research topic? Each reason there is, in plain words, without a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl
import pytest

from infra.tracer import NoSuchDatasetError, traced
from stream_processors.accounting.batches import short_batch
from stream_processors.accounting.tables import Record
from stream_processors.accounting.trace import DROPPED, Trace, trace
from stream_processors.clock import KEY
from stream_processors.clock import TOPIC as CLOCK
from stream_processors.control.clock import tick_value
from stream_processors.runtime.account import ATTEMPTS
from stream_processors.runtime.driver import Driver
from stream_processors.runtime.partition import partition_of
from tests.stream_processors.accounted import ended, flow, publish, records, report_of
from tests.stream_processors.tables import PARTITIONS, REGISTRY, TOKEN_KEY

ANNA = {
    "forename": "Anna",
    "middle_names": None,
    "surname": "Smith",
    "date_of_birth": date(2001, 3, 4),
    "sex": "F",
    "postcode": "SE6 1AA",
}
TWIN = ANNA | {"middle_names": "Rose"}


def follow(driver: Driver, supplier: str, subject: str, record: str | None = None, dataset: str | None = None) -> Trace:
    def source(topic: str, partition: int | None) -> Iterable[Record]:
        for p, log in enumerate(driver.topics.get(topic, [])):
            if partition in (None, p):
                yield from (Record(p, r.offset, r.key or b"", r.value, r.headers, r.time) for r in log.records)

    return trace(source, traced(TOKEN_KEY, PARTITIONS, supplier, subject, record, dataset), REGISTRY, PARTITIONS)


def cohort(driver: Driver, *people: dict[str, Any]) -> None:
    rows = [{"person_id": f"c{i}", "family_id": f"f{i}", **p} for i, p in enumerate(people)]
    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        programme_status=pl.lit("participant"), programme_start=pl.lit(date(2014, 1, 1))
    )
    publish(driver, "council-northam", "person", records("council-northam", "person", frame))


def pupil(driver: Driver, subject: str = "u1", **other: Any) -> None:
    frame = pl.DataFrame([{"UPN": subject, **ANNA, **other}])
    publish(driver, "dfe", "person", records("dfe", "person", frame), name=subject)


def absence(driver: Driver, subject: str = "u1", **other: Any) -> None:
    row = {"UPN": subject, "record_id": "r1", "PeriodEnd": date(2014, 7, 20), "SessionsPossible_3Term": 300, **other}
    publish(driver, "dfe", "absence", records("dfe", "absence", pl.DataFrame([row])), name=subject)


@dataclass(frozen=True)
class Case:
    """What is done, and what must be said."""

    do: Callable[[Driver], None]
    answer: str
    advice: str
    record: str | None = None
    published: bool = False


def no_one(driver: Driver) -> None:
    cohort(driver, ANNA)


def linked(driver: Driver) -> None:
    cohort(driver, ANNA)
    pupil(driver)
    absence(driver)


def waiting(driver: Driver) -> None:
    cohort(driver, ANNA | {"forename": "Zoe", "surname": "Quill", "postcode": "BR1 4BY"})
    pupil(driver)


def ambiguous(driver: Driver) -> None:
    cohort(driver, TWIN | {"forename": "Ann", "postcode": "SE6 1AB"}, TWIN | {"forename": "Ann", "postcode": "SE6 1AD"})
    pupil(driver, forename="Ann", postcode=None)


def contested(driver: Driver) -> None:
    cohort(driver, ANNA)
    pupil(driver)
    pupil(driver, "u2")


def unusable(driver: Driver) -> None:
    cohort(driver, ANNA)
    pupil(driver, "u1", **dict.fromkeys(ANNA))


def no_person_record(driver: Driver) -> None:
    cohort(driver, ANNA)
    absence(driver)


def deleted(driver: Driver) -> None:
    linked(driver)
    publish(driver, "dfe", "person", ended(records("dfe", "person", pl.DataFrame([{"UPN": "u1", **ANNA}]))), name="end")


def undecodable(driver: Driver) -> None:
    publish(driver, "dfe", "person", [("u1", b"u1", b"nonsense")])


def out_of_domain(driver: Driver) -> None:
    linked(driver)
    absence(driver, "u1", SessionsPossible_3Term=-5, record_id="r1")


def expired(driver: Driver) -> None:
    linked(driver)
    driver.run(100)
    for day in (date(2040, 1, 1), date(2040, 1, 2)):
        for p in range(PARTITIONS):
            driver.append(CLOCK, p, KEY, tick_value(day, REGISTRY))


def family_gone(driver: Driver) -> None:
    linked(driver)
    driver.run(100)
    of = pl.DataFrame([{"person_id": "c0", "family_id": "f0", "programme_status": "participant", **ANNA}])
    publish(driver, "council-northam", "person", ended(records("council-northam", "person", of)), name="gone")


CASES = {
    "never published": Case(no_one, "Nothing lies under these ids", "letter by letter"),
    "published": Case(
        linked, "It is in the research topic: its subject is linked in pass 1", "Nothing", published=True
    ),
    "event published": Case(linked, "It is in the research topic", "Nothing", "r1", published=True),
    "waiting": Case(waiting, "nobody of the cohort agrees with it on any match key", "compare date of birth"),
    "ambiguous": Case(ambiguous, "fits several people", "complete the details"),
    "contested": Case(contested, "equal or better claim", "duplicates"),
    "unusable": Case(unusable, "no usable date of birth", "complete the person record"),
    "no person record": Case(no_person_record, "no person record", "publish the person record", "r1"),
    "deleted": Case(deleted, "The supplier has deleted it", "mistake"),
    "undecodable": Case(undecodable, "in quarantine: Undecodable|in quarantine: BadMagicByte", "publish"),
    "out of domain": Case(
        out_of_domain, "in quarantine: OutOfDomain, field SessionsPossible_3Term", "correct it", "r1"
    ),
    "expired": Case(expired, "it was destroyed, as of", "ledger"),
    "expired event": Case(expired, "it was destroyed, as of", "ledger", "r1"),
    "the family is gone": Case(family_gone, "nobody of the cohort agrees", "compare"),
}


def test_a_record_in_another_partition_than_its_own_is_found_in_quarantine() -> None:
    driver = flow()
    row = {"UPN": "u1", **ANNA}
    ((subject, key, value),) = records("dfe", "person", pl.DataFrame([row]))
    elsewhere = (partition_of(subject, PARTITIONS) + 1) % PARTITIONS
    driver.append("identified.dfe.person", elsewhere, key, value, 1_500_000_000_000)
    driver.run(100)
    found = follow(driver, "dfe", "u1")
    assert found.answer == "It is in quarantine: WrongPartition, field UPN."
    assert [s.partition for s in found.steps] == [elsewhere] * 2


def test_what_an_operator_put_back_or_dropped_is_not_said_of_the_supplier() -> None:
    driver = flow()
    ((subject, key, value),) = records("dfe", "person", pl.DataFrame([{"UPN": "u1", **ANNA}]))
    home = partition_of(subject, PARTITIONS)
    driver.append("identified.dfe.person", home, key, value, 1_500_000_000_000, [(ATTEMPTS, b"1")])
    assert follow(driver, "dfe", "u1").steps[0].what == "put back from quarantine"
    driver.append("identified.dfe.person", home, key, None, 1_500_000_000_000, [(DROPPED, b"an operation")])
    found = follow(driver, "dfe", "u1")
    assert found.steps[-1].what == "dropped from quarantine"
    assert "an operator has dropped it" in found.answer


@pytest.mark.parametrize("name", CASES)
def test_why_a_record_is_or_is_not_in_the_research_topic(name: str) -> None:
    case, driver = CASES[name], flow()
    case.do(driver)
    driver.run(100)
    found = follow(driver, "dfe", "u1", case.record, "absence" if case.record else None)
    assert re.search(case.answer, found.answer), found
    assert case.advice in found.advice
    assert found.published == case.published
    said = str(found)
    assert not any(value in said for value in ("Smith", "Anna", "SE6", "2001"))


def test_a_record_on_its_way_is_said_to_be() -> None:
    driver = flow()
    linked(driver)
    assert "pseudonymise has said nothing of it yet" in follow(driver, "dfe", "u1").answer
    driver.run(100, only={"pseudonymise"})
    assert "No block has answered yet" in follow(driver, "dfe", "u1").answer
    driver.run(100, only={"pseudonymise", "route", "link"})
    assert "not attached to the person yet" in follow(driver, "dfe", "u1").answer


def test_every_step_says_where_and_when_and_in_which_batch() -> None:
    driver = flow()
    linked(driver)
    driver.run(100)
    found = follow(driver, "dfe", "u1", "r1", "absence")
    topics = [s.topic for s in found.steps]
    assert topics == [
        "identified.dfe.absence",
        "linkage.activity",
        "linkage.identity",
        "linkage.link",
        "linkage.contribution",
        "state.publish",
    ]
    assert found.steps[0].at_ms == 1_500_000_000_000
    assert follow(driver, "dfe", "u1").events == {"absence": 1, "person": 1}


def test_a_batch_has_the_name_that_reconcile_has_for_it_whichever_of_its_announcements_is_read_last() -> None:
    driver, subjects = flow(), [f"u{i}" for i in range(8)]
    for subject in subjects:
        pupil(driver, subject)
    ids = {short_batch(b.batch_id) for b in report_of(driver).batches}
    named = {follow(driver, "dfe", s).steps[0].what.removeprefix("published in batch ") for s in subjects}
    assert named == ids


@pytest.mark.parametrize(
    ("supplier", "record", "dataset"),
    [("dfe", "r1", None), ("dfe", None, "absence"), ("dfe", "r1", "offence"), ("dfe", "r1", "person")],
)
def test_which_record_is_meant_must_be_clear(supplier: str, record: str | None, dataset: str | None) -> None:
    with pytest.raises(NoSuchDatasetError, match="--dataset"):
        traced(TOKEN_KEY, PARTITIONS, supplier, "u1", record, dataset)


def test_a_supplier_with_one_kind_of_event_need_not_name_it() -> None:
    assert traced(TOKEN_KEY, PARTITIONS, "moj", "p", "r", None).dataset == "offence"
