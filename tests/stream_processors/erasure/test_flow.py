"""Orders to erase through the whole flow, brokerless: what is held goes, what comes again is refused, the ledger says
so."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from stream_processors import ledger
from stream_processors.enquiry.person import PersonAsked
from stream_processors.erasure.order import Action, Target
from stream_processors.ledger import WHY
from tests.stream_processors.tables import AYSHA, CONTEXT, PARTITIONS, Flow, decoded, epochs_of

COUNCIL = "council-northam"
ZOE = {**AYSHA, "forename": "Zoe", "surname": "Marsh", "date_of_birth": date(2002, 3, 4)}
PERSON = Target(person=PersonAsked(**AYSHA))
SUBJECT = Target("dfe", "A1")


@pytest.fixture
def flow() -> Flow:
    """Aysha, known to a council, dfe and (by a looser match key, under another surname) moj; and Zoe."""
    flow = Flow()
    flow.put(COUNCIL, "person", person_id="c1", programme_status="participant", **AYSHA)
    flow.put("dfe", "person", UPN="A1", **AYSHA)
    for i in (1, 2):
        absence(flow, i)
    flow.put("moj", "person", mojuid="m1", **AYSHA | {"surname": "Khan"})
    flow.put("moj", "offence", mojuid="m1", offenceid="o1", offence_group="theft", offencestartdate=date(2014, 1, 2))
    flow.put(COUNCIL, "person", person_id="c2", programme_status="comparison", **ZOE)
    flow.put("dfe", "person", UPN="Z1", **ZOE)
    absence(flow, 1, "Z1")
    flow.run()
    return flow


def absence(flow: Flow, i: int, subject: str = "A1") -> None:
    flow.put("dfe", "absence", UPN=subject, record_id=f"r{i}", PeriodEnd=date(2014 + i, 7, 1))


def held(flow: Flow, *zones: str) -> dict[str, int]:
    """Live records by topic, of zones."""
    return {
        topic: n
        for topic in sorted(flow.driver.topics)
        if topic.partition(".")[0] in zones and (n := len(flow.driver.table(topic)))
    }


def lines(flow: Flow) -> list[dict[str, Any]]:
    found = [
        decoded(ledger.TOPIC, r.value)
        for p in range(PARTITIONS)
        for r in flow.driver.log(ledger.TOPIC, p).records
        if r.value
    ]
    assert ledger.verify(found) == []
    return found


def answers(flow: Flow, order_id: str) -> tuple[set[str], dict[tuple[str, str], int]]:
    """Outcomes of all partitions, and records by supplier and dataset."""
    rows = [
        decoded("governance.finding", v)
        for k, v in flow.driver.table("governance.finding").items()
        if k.partition(b"|")[0].decode() == order_id
    ]
    assert len(rows) == PARTITIONS
    counts: dict[tuple[str, str], int] = {}
    for h in (h for row in rows for h in row["holdings"]):
        counts[h["supplier"], h["dataset"]] = counts.get((h["supplier"], h["dataset"]), 0) + h["records"]
    return {row["outcome"] for row in rows}, counts


def follow(flow: Flow, order_id: str, target: Target, *actions: Action) -> None:
    for action in actions or ("preview", "erase"):
        flow.order(order_id, action, target)
        flow.run()


def test_a_preview_counts_and_changes_nothing(flow: Flow) -> None:
    before = held(flow, "identified", "linkage", "research")
    follow(flow, "o1", SUBJECT, "preview")
    assert answers(flow, "o1") == ({"found", "nobody"}, {("dfe", "person"): 1, ("dfe", "absence"): 2})
    assert held(flow, "identified", "linkage", "research") == before
    assert lines(flow) == []


def test_a_subject_leaves_its_source_and_everything_below(flow: Flow) -> None:
    follow(flow, "o1", SUBJECT)
    assert answers(flow, "o1") == ({"erased"}, {("dfe", "person"): 1, ("dfe", "absence"): 2})
    assert held(flow, "identified")["identified.dfe.person"] == 1
    assert held(flow, "identified")["identified.dfe.absence"] == 1
    assert flow.differences() == []
    assert sorted(len(r["absence"]) for r in flow.research().values()) == [0, 1]
    assert all(b"A1" not in k for topic in flow.driver.topics for k in flow.driver.table(topic))


def test_who_is_pushed_again_is_refused_and_never_reaches_the_linkage_zone(flow: Flow) -> None:
    follow(flow, "o1", SUBJECT)
    before = held(flow, "linkage")
    ends = {t: [log.end for log in logs] for t, logs in flow.driver.topics.items()}
    flow.put("dfe", "person", UPN="A1", **AYSHA)
    absence(flow, 3)
    flow.raw("dfe", "absence", ["A1", "r9"], b"\x01nonsense")
    flow.run()
    assert held(flow, "linkage") == before
    assert held(flow, "identified")["identified.dfe.absence"] == 1, "nor does it stay at its source"
    assert "identified.dfe.quarantine" not in held(flow, "identified")
    assert flow.driver.counts["pseudonymise.refused"] == 3
    for topic in ("linkage.activity", "linkage.identity", "linkage.contribution", "research.person"):
        for log, end in zip(flow.driver.topics[topic], ends[topic], strict=True):
            assert all(r.value is None for r in log.read(end)), topic
    refused = [line for line in lines(flow) if line["refused"]]
    assert {(r["kind"], r["topic"], r["why"], r["reason"], r["by"]) for r in refused} == {
        ("identity", "identified.dfe.person", "erasure", "objection", "officer"),
        ("activity", "identified.dfe.person", "erasure", "objection", "officer"),
        ("activity", "identified.dfe.absence", "erasure", "objection", "officer"),
    }
    assert len(refused) == 4


def test_a_replay_from_the_beginning_brings_nobody_back(flow: Flow) -> None:
    follow(flow, "o1", SUBJECT)
    before = held(flow, "linkage", "research")
    for partition in range(PARTITIONS):
        flow.driver.lag(("pseudonymise", partition))
    flow.run()
    assert held(flow, "linkage", "research") == before
    assert flow.differences() == []


def test_the_ledger_says_who_ordered_it_and_why_and_where_the_tombstone_lies(flow: Flow) -> None:
    before = set(flow.driver.table("linkage.activity"))
    follow(flow, "o1", SUBJECT)
    found = lines(flow)
    assert len(found) == 4  # person: identity and activity; two absences
    for line in found:
        assert (line["why"], line["reason"], line["by"], line["order_id"]) == ("erasure", "objection", "officer", "o1")
        (tombstone,) = flow.driver.log(line["topic"], line["partition"]).read(line["tombstone"], 1)
        assert tombstone.value is None
        assert tombstone.key is not None
        assert (tombstone.key in before) == (line["kind"] == "activity")


def test_a_person_leaves_all_suppliers_also_those_that_a_looser_key_linked(flow: Flow) -> None:
    follow(flow, "o1", PERSON, "preview")
    assert answers(flow, "o1") == (
        {"found"},
        {
            (COUNCIL, "person"): 1,
            ("dfe", "person"): 1,
            ("dfe", "absence"): 2,
            ("moj", "person"): 1,
            ("moj", "offence"): 1,
        },
    )
    follow(flow, "o1", PERSON, "erase")
    assert answers(flow, "o1")[0] == {"erased"}
    assert sum(answers(flow, "o1")[1].values()) == 6
    assert [r["programme_status"] for r in flow.research().values()] == ["comparison"]
    assert held(flow, "identified") == {
        f"identified.{COUNCIL}.person": 1,
        "identified.dfe.absence": 1,
        "identified.dfe.person": 1,
    }


@pytest.mark.parametrize(
    ("supplier", "id_field", "subject"),
    [("dfe", "UPN", "A7"), ("dwp", "subject_id", "w7"), ("moj", "mojuid", "m7"), (COUNCIL, "person_id", "c7")],
)
def test_a_person_is_refused_under_another_id_and_from_another_supplier(
    flow: Flow, supplier: str, id_field: str, subject: str
) -> None:
    follow(flow, "o1", PERSON)
    before = held(flow, "identified", "linkage", "research")
    events = {"dfe": ("absence", "PeriodEnd"), "dwp": ("benefit", "start_date")}.get(supplier)
    status = {"programme_status": "participant"} if supplier == COUNCIL else {}
    written = AYSHA | {"forename": " aysha", "postcode": "se137ab"}
    if events:
        more = {"benefit_type": "UC"} if supplier == "dwp" else {}
        flow.put(supplier, events[0], **{id_field: subject, "record_id": "r1", events[1]: date(2015, 1, 2)}, **more)
    flow.put(supplier, "person", **{id_field: subject}, **written, **status)
    flow.run()
    after = held(flow, "identified", "linkage", "research")
    entries = after.pop("linkage.suppression") - before.pop("linkage.suppression")
    assert after == before
    assert entries == 1, "the subject, too"
    flow.put(supplier, "person", **{id_field: subject}, **written | {"surname": "Other"}, **status)
    flow.run()
    after = held(flow, "identified", "linkage", "research")
    del after["linkage.suppression"]
    assert after == before, "a correction of who is refused is refused"


def test_somebody_else_is_not_refused(flow: Flow) -> None:
    follow(flow, "o1", PERSON)
    twin = AYSHA | {"forename": "Amina"}
    flow.put("dfe", "person", UPN="A9", **twin)
    absence(flow, 1, "A9")
    flow.run()
    assert held(flow, "identified")["identified.dfe.person"] == 2
    assert "pseudonymise.refused" not in flow.driver.counts


def test_who_is_not_held_is_refused_when_they_come(flow: Flow) -> None:
    carl = AYSHA | {"forename": "Carl"}
    target = Target(person=PersonAsked(**carl))
    follow(flow, "o1", target, "preview", "erase")
    before = held(flow, "identified", "linkage")
    flow.put("dfe", "person", UPN="C1", **carl)
    flow.run()
    after = held(flow, "identified", "linkage")
    del before["linkage.suppression"], after["linkage.suppression"]
    assert after == before


def test_an_order_that_was_not_previewed_waits_for_what_is_found(flow: Flow) -> None:
    before = held(flow, "identified", "linkage", "research")
    follow(flow, "o1", PERSON, "erase")
    assert held(flow, "identified", "linkage", "research") == before


def test_details_that_fit_several_people_erase_nobody(flow: Flow) -> None:
    flow.put("dfe", "person", UPN="A2", **AYSHA)
    flow.run()
    before = held(flow, "identified", "linkage", "research")
    follow(flow, "o1", PERSON, "preview", "erase")
    assert answers(flow, "o1") == ({"ambiguous"}, {})
    after = held(flow, "identified", "linkage", "research")
    for topic in ("linkage.found", "linkage.enquiry", "linkage.sought"):
        after.pop(topic, None)
    assert after == before


@pytest.mark.parametrize("target", [SUBJECT, PERSON], ids=["subject", "person"])
def test_an_order_that_is_lifted_lets_in_what_comes_then(flow: Flow, target: Target) -> None:
    everything = {**held(flow, "research"), **held(flow, "linkage")}
    follow(flow, "o1", target)
    follow(flow, "o2", target, "lift")
    assert "lifted" in answers(flow, "o2")[0]
    table = flow.driver.table("linkage.suppression")
    assert {k.partition(b"|")[0] for k in table} == {b"lifted"}
    flow.put(COUNCIL, "person", person_id="c1", programme_status="participant", **AYSHA)
    flow.put("dfe", "person", UPN="A1", **AYSHA)
    for i in (1, 2):
        absence(flow, i)
    flow.put("moj", "person", mojuid="m1", **AYSHA | {"surname": "Khan"})
    flow.put("moj", "offence", mojuid="m1", offenceid="o1", offence_group="theft", offencestartdate=date(2014, 1, 2))
    flow.run()
    after = {k: v for k, v in {**held(flow, "research"), **held(flow, "linkage")}.items() if k in everything}
    assert after == everything
    for partition in range(PARTITIONS):  # the orders are read again, too
        flow.driver.lag(("pseudonymise", partition))
    flow.run()
    after = {k: v for k, v in {**held(flow, "research"), **held(flow, "linkage")}.items() if k in everything}
    assert after == everything


def test_what_lies_in_quarantine_goes_too(flow: Flow) -> None:
    flow.raw("dfe", "absence", ["A1", "r7"], b"\x01nonsense")
    flow.raw("dfe", "absence", ["Z1", "r7"], b"\x01nonsense")
    flow.run()
    assert held(flow, "identified")["identified.dfe.quarantine"] == 2
    follow(flow, "o1", SUBJECT)
    assert answers(flow, "o1")[1][("dfe", "absence")] == 3
    assert set(flow.driver.table("identified.dfe.quarantine")) == {b"absence|Z1|r7"}


def test_what_lies_in_a_wrong_partition_or_under_a_wrong_key_goes_too(flow: Flow) -> None:
    value = next(v for k, v in flow.driver.table("identified.dfe.person").items() if k == b"A1")
    home = next(p for p in range(PARTITIONS) for r in flow.driver.log("identified.dfe.person", p).records
                if r.key == b"A1")  # fmt: skip
    flow.driver.append("identified.dfe.person", (home + 1) % PARTITIONS, b"A1", value)
    flow.raw("dfe", "person", ["B1"], value)
    flow.run()
    assert len(flow.driver.table("identified.dfe.quarantine")) == 2
    follow(flow, "o1", SUBJECT)
    assert flow.driver.table("identified.dfe.quarantine") == {}
    assert set(flow.driver.table("identified.dfe.person")) == {b"Z1"}


def test_an_order_that_does_not_open_is_answered_and_erases_nobody(flow: Flow) -> None:
    before = held(flow, "identified", "research")
    flow.order("o1", "erase", SUBJECT)
    for log in flow.driver.topics["governance.erasure"]:
        log.records = [r.__class__(r.offset, b"o2", r.value, r.time) for r in log.records]
    flow.run()
    assert answers(flow, "o2") == ({"unreadable"}, {})
    assert held(flow, "identified", "research") == before


def test_a_suppliers_own_tombstone_is_a_withdrawal_and_a_failed_correction_a_correction(flow: Flow) -> None:
    flow.delete("dfe", "absence", "A1", "r1")
    flow.raw("dfe", "absence", ["A1", "r2"], b"\x01nonsense")
    absence(flow, 1, "Z1")  # said again
    flow.put("dfe", "absence", UPN="Z1", record_id="r1", PeriodEnd=date(2016, 7, 1))  # corrected: it is still held
    flow.run()
    assert sorted((line["why"], line["by"], line["reason"]) for line in lines(flow)) == [
        ("correction", "dfe", None),
        ("withdrawal", "dfe", None),
    ]


def test_no_value_and_no_local_id_is_in_the_linkage_zone_or_governance(flow: Flow) -> None:
    follow(flow, "o1", PERSON, "preview", "erase")
    follow(flow, "o2", SUBJECT, "preview", "erase")
    flow.put("dwp", "person", subject_id="work-0007", **AYSHA)
    flow.run()
    for topic, logs in flow.driver.topics.items():
        if topic.startswith("identified"):
            continue
        for r in (r for log in logs for r in log.records):
            text = (r.key or b"") + (r.value or b"") + json.dumps([(n, v.decode()) for n, v in r.headers]).encode()
            for value in (b"Aysha", b"Begum", b"SE13", b'"A1"', b"|A1", b"work-0007"):
                assert value not in text, topic
            assert {n for n, _ in r.headers} <= {WHY, "lethe.retention"} or topic.startswith("identified")


def test_another_epoch_of_the_keys_refuses_the_same_people(flow: Flow) -> None:
    follow(flow, "o1", PERSON)
    tokens = {
        t for v in flow.driver.table("linkage.identity").values() for t in decoded("linkage.identity", v)["tokens"]
    }
    later = Flow(context=replace(CONTEXT, epochs=lambda: epochs_of(2)))
    for key, value in flow.driver.table("linkage.suppression").items():
        for partition in range(PARTITIONS):
            later.driver.append("linkage.suppression", partition, key, value)
    later.put("dfe", "person", UPN="A1", **AYSHA)
    later.put("dwp", "person", subject_id="w7", **AYSHA)
    later.put("dfe", "person", UPN="Z1", **ZOE)
    later.run()
    (identity,) = later.driver.table("linkage.identity").values()
    assert not tokens & set(decoded("linkage.identity", identity)["tokens"]), "it is another epoch"
    assert set(later.driver.table("identified.dfe.person")) == {b"Z1"}
    assert later.driver.table("identified.dwp.person") == {}
