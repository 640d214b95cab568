"""An enquiry through the whole flow, brokerless: the processors that hold the data answer, each its own part."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from stream_processors.enquiry.person import PersonAsked
from stream_processors.enquiry.seal import public_key, seal
from stream_processors.runtime.partition import partition_of
from tests.stream_processors.tables import AYSHA, PARTITIONS, TOKEN_KEY, Flow, decoded, framed

COUNCIL = "council-northam"
DAY_MS = 86_400_000


def ask(flow: Flow, name: str = "e1", council: str = COUNCIL, sealed: str | None = None, **person: Any) -> None:
    flow.ask(council, name, sealed, **person)


def found(flow: Flow, name: str = "e1") -> tuple[set[str], dict[tuple[str, str], int]]:
    """Outcomes of all partitions, and records by supplier and dataset."""
    outcomes: set[str] = set()
    records: dict[tuple[str, str], int] = {}
    findings = {k: v for k, v in flow.driver.table("governance.finding").items() if k.startswith(f"{name}|".encode())}
    assert len(findings) == PARTITIONS, "every partition says what it holds"
    for value in findings.values():
        row = decoded("governance.finding", value)
        outcomes.add(row["outcome"])
        for h in row["holdings"]:
            at = h["supplier"], h["dataset"]
            records[at] = records.get(at, 0) + h["records"]
    return outcomes, records


@pytest.fixture
def flow() -> Flow:
    """Aysha, as a council and two departments know her; somebody else beside her."""
    flow = Flow()
    council = {"family_id": "f1", "programme_status": "participant"}
    flow.put(COUNCIL, "person", person_id="c1", **council, **AYSHA)
    flow.put(COUNCIL, "person", person_id="c2", **council, **AYSHA | {"forename": "Bilal", "sex": "M"})
    flow.put("dfe", "person", UPN="A1", **AYSHA)
    flow.put("dfe", "absence", UPN="A1", record_id="r1", PeriodEnd=date(2014, 7, 1), SessionsPossible_3Term=300)
    flow.put("dfe", "absence", UPN="A1", record_id="r2", PeriodEnd=date(2015, 7, 1), SessionsPossible_3Term=300)
    flow.put("moj", "person", mojuid="m1", **AYSHA | {"surname": "Khan"})  # another surname: a looser match key
    flow.run()
    return flow


def test_everything_that_is_linked_to_the_person_is_counted(flow: Flow) -> None:
    ask(flow, **AYSHA)
    flow.run()
    assert found(flow) == (
        {"found"},
        {(COUNCIL, "person"): 1, ("dfe", "person"): 1, ("dfe", "absence"): 2, ("moj", "person"): 1},
    )


def test_it_is_written_as_suppliers_write_it(flow: Flow) -> None:
    ask(flow, **AYSHA | {"forename": " aysha", "surname": "BEGUM", "postcode": "se137ab", "sex": None})
    flow.run()
    assert found(flow)[0] == {"found"}


def test_nobody_is_found_by_a_looser_match_key(flow: Flow) -> None:
    """Forename, surname, date of birth and sex link a department's record, but do not answer a stranger."""
    ask(flow, **AYSHA | {"postcode": "E1 1AA"})
    flow.run()
    assert found(flow) == ({"nobody"}, {})


def test_a_department_record_that_waits_is_held_too(flow: Flow) -> None:
    zoe = AYSHA | {"forename": "Zoe", "surname": "Marsh", "postcode": "LS1 4AP"}
    flow.put("dwp", "person", subject_id="d9", **zoe)
    flow.run()
    ask(flow, **zoe)
    flow.run()
    assert found(flow) == ({"found"}, {("dwp", "person"): 1})


def test_two_subjects_of_one_department_need_checking(flow: Flow) -> None:
    flow.put("dfe", "person", UPN="A2", **AYSHA)
    flow.run()
    ask(flow, **AYSHA)
    flow.run()
    assert found(flow) == ({"ambiguous"}, {})


def test_a_token_that_too_many_share_needs_checking(flow: Flow) -> None:
    for i in range(6):
        flow.put(COUNCIL, "person", person_id=f"x{i}", programme_status="comparison", **AYSHA)
    flow.run()
    ask(flow, **AYSHA)
    flow.run()
    assert found(flow) == ({"ambiguous"}, {})


def test_a_record_that_is_linked_to_somebody_else_needs_checking(flow: Flow) -> None:
    """MoJ's Aysha Khan is the council's Aysha Begum by a looser key: whoever asks as Khan is not for sure Begum."""
    ask(flow, **AYSHA | {"surname": "Khan"})
    flow.run()
    outcomes, records = found(flow)
    assert "ambiguous" in outcomes
    assert records == {}


@pytest.mark.parametrize("lost", ["date_of_birth", "postcode", "surname", "forename"])
def test_too_little_to_go_by(flow: Flow, lost: str) -> None:
    ask(flow, **AYSHA | {lost: None})
    flow.run()
    assert found(flow) == ({"insufficient"}, {})


def test_what_does_not_open_is_answered_too(flow: Flow) -> None:
    stolen = seal(PersonAsked(**AYSHA), "council-southam", "e1", public_key(TOKEN_KEY))
    ask(flow, sealed=stolen)
    ask(flow, "e2", sealed="AAAA")
    flow.run()
    assert found(flow) == ({"unreadable"}, {})
    assert found(flow, "e2") == ({"unreadable"}, {})


def test_what_was_deleted_is_not_held(flow: Flow) -> None:
    flow.delete("dfe", "absence", "A1", "r1")
    flow.delete("moj", "person", "m1")
    flow.run()
    ask(flow, **AYSHA)
    flow.run()
    assert found(flow)[1] == {(COUNCIL, "person"): 1, ("dfe", "person"): 1, ("dfe", "absence"): 1}


def test_since_when_and_until_when() -> None:
    flow = Flow()
    topic = "identified.dfe.person"
    value = framed(topic, {"UPN": "A1", **AYSHA})
    flow.driver.append(topic, partition_of("A1", PARTITIONS), b"A1", value, time=16_000 * DAY_MS)
    flow.run()
    ask(flow, **AYSHA)
    flow.run()
    held = [
        h
        for v in flow.driver.table("governance.finding").values()
        for h in decoded("governance.finding", v)["holdings"]
    ]
    assert [h["since"] for h in held] == [date(2013, 10, 22)]
    assert [h["until"] for h in held] == [date(2020, 10, 22)]


def test_a_rebuilt_state_answers_as_before(flow: Flow) -> None:
    ask(flow, **AYSHA)
    flow.run()
    before = found(flow)
    for task in flow.driver.tasks:
        flow.driver.crash(task, lose_state=True)
    ask(flow, "e2", **AYSHA)
    flow.run()
    assert found(flow, "e2") == before


def test_neither_the_answer_nor_its_way_shows_who_it_is(flow: Flow) -> None:
    before = {t: [len(log.records) for log in logs] for t, logs in flow.driver.topics.items()}
    ask(flow, **AYSHA)
    flow.run()
    refs = {k[:32] for k in flow.driver.table("linkage.identity")} | {
        k[:32] for k in flow.driver.table("linkage.contribution")
    }
    tokens = {
        t.partition(":")[2].encode()
        for v in flow.driver.table("linkage.identity").values()
        for t in decoded("linkage.identity", v)["tokens"]
    }
    said = {
        t: [r for log, n in zip(logs, before.get(t, [0] * PARTITIONS), strict=True) for r in log.records[n:]]
        for t, logs in flow.driver.topics.items()
    }
    for topic, records in said.items():
        for r in records:
            text = (r.key or b"") + (r.value or b"")
            assert not any(v in text for v in (b"Aysha", b"Begum", b"SE13"))
            if topic.startswith("governance"):
                assert not any(ref in text for ref in refs)
            if not topic.startswith("linkage.enquiry"):
                assert not any(token in text for token in tokens)
