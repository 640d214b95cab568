"""pseudonymise: tokens one way, generalised attributes the other, and what fails into quarantine."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest

from stream_processors.erasure.overdue import MARK
from stream_processors.pseudonymise import LARGEST_VALUE_BYTES
from stream_processors.runtime.partition import partition_of
from tests.stream_processors.tables import PARTITIONS, REGISTRY, Bench, Said, decoded, framed

DFE = "identified.dfe.person"
ABSENCE = "identified.dfe.absence"
COUNCIL = "identified.council-northam.person"
ANNA = {
    "forename": "Anna",
    "middle_names": "Rose",
    "surname": "Smith",
    "date_of_birth": datetime.date(2001, 3, 4),
    "sex": "F",
    "postcode": "SE6 1AA",
}
HOME = partition_of("u1", PARTITIONS)
ELSEWHERE = next(i for i in (f"u{n}" for n in range(100)) if partition_of(i, PARTITIONS) != HOME)


def bench(subject: str = "u1") -> Bench:
    return Bench("pseudonymise", partition_of(subject, PARTITIONS))


def anna(**other: Any) -> tuple[bytes, bytes]:
    row = {"UPN": "u1", **ANNA, **other}
    return row["UPN"].encode(), framed(DFE, row)


def absence(record: str = "r1", **other: Any) -> tuple[bytes, bytes]:
    row = {"UPN": "u1", "record_id": record, "PeriodEnd": datetime.date(2014, 7, 20), **other}
    return f"{row['UPN']}|{record}".encode(), framed(ABSENCE, row)


def by_topic(said: list[Said]) -> dict[str, list[Said]]:
    out: dict[str, list[Said]] = {}
    for s in said:
        out.setdefault(s.topic, []).append(s)
    return out


def rows(said: list[Said]) -> list[dict[str, Any] | None]:
    return [decoded(s.topic, s.value) if s.value is not None else None for s in said]


def test_a_person_record_is_split_into_an_identity_and_an_activity() -> None:
    said = by_topic(bench().take([(DFE, [anna()])]))
    assert said.keys() == {"linkage.identity", "linkage.activity"}
    (identity,), (activity,) = rows(said["linkage.identity"]), rows(said["linkage.activity"])
    assert identity is not None
    assert activity is not None
    assert (identity["role"], identity["supplier"]) == ("department", "dfe")
    assert [t.partition(":")[0] for t in identity["tokens"]][:3] == ["k01", "k02", "k03"]
    assert [b.partition(":")[0] for b in identity["blocks"]] == ["1", "2", "3"]
    assert activity["person"] == dict.fromkeys(activity["person"]) | {"birth_year": 2001, "sex": "F"}


@pytest.mark.parametrize(
    ("postcode", "area"),
    [
        ("BR1 4BY", "E01003235"),
        ("br14by ", "E01003235"),
        ("XK1 1AA", "northam"),
        ("no postcode", "northam"),
        (None, "northam"),
    ],
)
def test_a_councils_record_goes_on_with_the_lsoa_of_its_postcode_or_else_the_councils_code(
    postcode: str | None, area: str
) -> None:
    row = {"person_id": "u1", "family_id": "f1", "programme_status": "comparison", **ANNA, "postcode": postcode}
    said = by_topic(bench().take([(COUNCIL, [(b"u1", framed(COUNCIL, row))])]))
    (activity,) = rows(said["linkage.activity"])
    assert activity is not None
    assert activity["person"]["area"] == area
    assert b"BR1" not in (said["linkage.activity"][0].value or b"")


def test_identity_and_activity_stay_in_the_subjects_partition_under_its_reference() -> None:
    said = by_topic(bench().take([(DFE, [anna()])]))
    (identity,), (activity,) = said["linkage.identity"], said["linkage.activity"]
    assert {identity.partition, activity.partition} == {HOME}
    subject, _, record = activity.key.partition(b"|")
    assert subject == identity.key
    assert len(record) == len(subject) == 32
    assert identity.headers == activity.headers == []


def test_a_council_record_is_of_the_cohort_with_its_programme_and_its_area() -> None:
    row = {"person_id": "u1", "family_id": "f1", "programme_status": "comparison", **ANNA}
    row["programme_start"] = datetime.date(2013, 5, 6)
    said = by_topic(bench().take([(COUNCIL, [(b"u1", framed(COUNCIL, row))])]))
    (identity,), (activity,) = rows(said["linkage.identity"]), rows(said["linkage.activity"])
    assert identity is not None
    assert activity is not None
    assert identity["role"] == "cohort"
    facts = activity["person"]
    assert (facts["programme_status"], facts["area"]) == ("comparison", "E01003320")
    assert facts["programme_start_month"] == datetime.date(2013, 5, 1)
    assert len(facts["family_ref"]) == 32


def test_an_event_becomes_an_activity_of_its_subject_and_no_identity() -> None:
    pseudonymise = bench()
    said = by_topic(pseudonymise.take([(DFE, [anna()]), (ABSENCE, [absence(SessionsPossible_3Term=300)])]))
    (identity,) = said["linkage.identity"]
    person, event = said["linkage.activity"]
    assert event.key.partition(b"|")[0] == person.key.partition(b"|")[0] == identity.key
    (row,) = rows([event])
    assert row is not None
    assert row["absence"]["sessions_possible"] == 300


def test_suppliers_that_use_one_id_mean_different_subjects() -> None:
    (dfe,) = by_topic(bench().take([(DFE, [anna()])]))["linkage.identity"]
    row = framed("identified.dwp.person", {"subject_id": "u1", **ANNA})
    (dwp,) = by_topic(bench().take([("identified.dwp.person", [(b"u1", row)])]))["linkage.identity"]
    assert dfe.key != dwp.key
    assert dfe.value is not None
    assert dwp.value is not None
    assert decoded(dfe.topic, dfe.value)["tokens"] == decoded(dwp.topic, dwp.value)["tokens"]


def test_a_tombstone_takes_back_identity_and_activity_and_what_was_in_quarantine() -> None:
    said = by_topic(bench().take([(DFE, [(b"u1", None)])]))
    before = by_topic(bench().take([(DFE, [anna()])]))
    for topic in ("linkage.identity", "linkage.activity"):
        assert [(s.key, s.value) for s in said[topic]] == [(s.key, None) for s in before[topic]]
    assert [(s.key, s.value) for s in said["identified.dfe.quarantine"]] == [(b"person|u1", None)]


def test_a_tombstone_of_an_event_takes_back_its_activity_alone() -> None:
    said = by_topic(bench().take([(ABSENCE, [(b"u1|r1", None)])]))
    before = by_topic(bench().take([(ABSENCE, [absence()])]))
    assert said.keys() == {"linkage.activity", "identified.dfe.quarantine", "governance.quarantine"}
    assert [s.key for s in said["linkage.activity"]] == [s.key for s in before["linkage.activity"]]


def test_the_last_record_of_a_key_in_a_batch_has_the_last_word() -> None:
    for last in (anna(sex="M"), (b"u1", None)):
        said = by_topic(bench().take([(DFE, [anna(), (b"u1", None), anna(sex="F"), last])]))
        (activity,) = said["linkage.activity"]
        assert (activity.value is None) == (last[1] is None)


HEADER = REGISTRY.schema_id(DFE).to_bytes(4, "big")
BAD: dict[str, tuple[str, str | None, bytes | None, bytes]] = {
    "another magic byte": ("BadMagicByte", None, b"u1", b"\x01" + anna()[1][1:]),
    "shorter than its header": ("BadMagicByte", None, b"u1", b"\x00\x00"),
    "empty": ("BadMagicByte", None, b"u1", b""),
    "an id that nobody registered": ("UnknownSchemaId", None, b"u1", b"\x00\x00\x00\x00\x07" + anna()[1][5:]),
    "cut short": ("Undecodable", None, b"u1", anna()[1][:-3]),
    "more than the record": ("Undecodable", None, b"u1", anna()[1] + b"x"),
    "text that is not UTF-8": ("Undecodable", None, b"u1", anna()[1].replace(b"Smith", b"\xff\xfe\xfd\xfc\xfb")),
    "5 MB": ("RecordTooLarge", None, b"u1", anna(surname="S" * 5_000_000)[1]),
    "no key": ("NullKey", None, None, anna()[1]),
    "the key of another": ("KeyMismatch", None, b"u2", anna()[1]),
    "a key that is not text": ("KeyMismatch", None, b"\xff", anna()[1]),
    "an id that cannot be part of a key": ("BadId", "UPN", b"u|1", anna(UPN="u|1")[1]),
    "an id with the separator of references": ("BadId", "UPN", b"u\x1f1", anna(UPN="u\x1f1")[1]),
    "the partition of another": ("WrongPartition", "UPN", ELSEWHERE.encode(), anna(UPN=ELSEWHERE)[1]),
}


@pytest.mark.parametrize("what", BAD)
def test_what_fails_is_quarantined_once_and_governance_learns_where_and_why_and_nothing_else(what: str) -> None:
    error, field, key, value = BAD[what]
    said = by_topic(bench().take([(DFE, [(key, value)])]))
    (held,), (told,) = said["identified.dfe.quarantine"], said["governance.quarantine"]
    assert held.value == value
    headers = dict(held.headers)
    assert headers["__connect.errors.topic"] == DFE.encode()
    assert headers["__connect.errors.partition"] == str(HOME).encode()
    assert headers["__connect.errors.offset"] == b"0"
    assert headers["__connect.errors.exception.class.name"] == error.encode()
    assert headers["lethe.errors.field"] == (field or "").encode()
    (row,) = rows([told])
    assert row == {
        "supplier": "dfe",
        "topic": DFE,
        "partition": HOME,
        "offset": 0,
        "error": error,
        "field": field,
    }
    everything = b"".join(v for _, v in held.headers) + told.key + (told.value or b"")
    for name in (b"Anna", b"Smith", b"SE6"):
        assert name not in everything
    live = [s for topic, of in said.items() if topic.startswith("linkage") for s in of if s.value is not None]
    assert live == []


def test_a_value_out_of_its_domain_names_the_field_and_not_the_value() -> None:
    said = by_topic(bench().take([(ABSENCE, [absence(SessionsPossible_3Term=54321)])]))
    (row,) = rows(said["governance.quarantine"])
    assert row is not None
    assert (row["error"], row["field"]) == ("OutOfDomain", "SessionsPossible_3Term")
    assert all(b"54321" not in value for s in said["identified.dfe.quarantine"] for _, value in s.headers)


def test_the_largest_value_that_is_taken() -> None:
    spare = LARGEST_VALUE_BYTES - len(anna(surname="S" * 900_000)[1])
    said = by_topic(bench().take([(DFE, [anna(surname="S" * (900_000 + spare))])]))
    assert "governance.quarantine" not in said


@pytest.mark.parametrize("what", [w for w in BAD if BAD[w][2] == b"u1"])
def test_a_newer_version_that_fails_takes_the_older_one_back(what: str) -> None:
    value = BAD[what][3]
    for batches in ([[anna(), (b"u1", value)]], [[anna()], [(b"u1", value)]]):
        pseudonymise = bench()
        said: list[Said] = []
        for batch in batches:
            said = pseudonymise.take([(DFE, batch)])
        for topic in ("linkage.identity", "linkage.activity"):
            assert [s.value for s in by_topic(said)[topic]] == [None]


def test_a_good_version_after_one_that_failed_is_taken() -> None:
    said = by_topic(bench().take([(DFE, [(b"u1", b"nonsense"), anna()])]))
    assert [s.value is None for s in said["linkage.identity"]] == [False]


@pytest.mark.parametrize("batched", [True, False])
def test_a_tombstone_empties_the_quarantine_of_its_key_however_records_are_batched(batched: bool) -> None:
    records: list[tuple[bytes | None, bytes | None]] = [(b"u1", b"nonsense"), (b"u1", None), anna()]
    held = quarantined(records, batched=batched)
    assert held["identified.dfe.quarantine"] == {b"person|u1": None}
    assert list(held["governance.quarantine"].values()) == [None]


@pytest.mark.parametrize("batched", [True, False])
def test_what_fails_again_under_its_key_takes_the_place_of_what_failed_before(batched: bool) -> None:
    again = (b"u1", b"\x00\x00\x00\x00\x07" + (anna()[1] or b"")[5:])
    held = quarantined([(b"u1", b"nonsense"), again], batched=batched)
    assert held["identified.dfe.quarantine"] == {b"person|u1": again[1]}
    (told,) = held["governance.quarantine"].values()
    assert (row := decoded("governance.quarantine", told or b""))
    assert (row["error"], row["offset"]) == ("UnknownSchemaId", 1)


def test_governance_is_told_nothing_of_the_many_that_expire() -> None:
    pseudonymise = bench()
    batch = replace(pseudonymise._inputs(DFE, [(b"u1", None), (b"u2", None)]), headers=[[(MARK, b"0")], None])
    said = by_topic(pseudonymise._said(pseudonymise.task.step([batch])))
    assert [s.key for s in said["identified.dfe.quarantine"]] == [b"person|u1", b"person|u2"]
    assert len(said["governance.quarantine"]) == 1


def test_an_entry_names_what_governance_is_told_of_it_under() -> None:
    for key in (b"u1", None, b"\xff"):
        said = by_topic(bench().take([(DFE, [(key, b"nonsense")])]))
        (entry,), (told,) = said["identified.dfe.quarantine"], said["governance.quarantine"]
        assert dict(entry.headers)["lethe.errors.told"] == told.key
        assert b"u1" not in told.key


def quarantined(
    records: list[tuple[bytes | None, bytes | None]], *, batched: bool
) -> dict[str, dict[bytes, bytes | None]]:
    """What the supplier's quarantine and governance's are left with, by topic and key."""
    pseudonymise = bench()
    held: dict[str, dict[bytes, bytes | None]] = {"identified.dfe.quarantine": {}, "governance.quarantine": {}}
    for batch in [records] if batched else [[r] for r in records]:
        said = by_topic(pseudonymise.take([(DFE, batch)]))
        for topic, of in held.items():
            of.update({s.key: s.value for s in said.get(topic, [])})
    return held


def test_a_failure_fails_no_other_record_of_the_batch() -> None:
    good = [absence(f"r{i}") for i in range(20)]
    bad = [(v[2], v[3]) for v in BAD.values()]
    mixed = [r for pair in zip(good, [*bad, *bad], strict=False) for r in pair]
    said = by_topic(bench().take([(ABSENCE, mixed)]))
    assert sum(s.value is not None for s in said["linkage.activity"]) == len(good)


def test_a_duplicate_says_the_same_again() -> None:
    pseudonymise = bench()
    first = pseudonymise.take([(DFE, [anna()])])
    assert pseudonymise.take([(DFE, [anna()])]) == first


def test_heartbeats_are_nobody() -> None:
    assert bench().take([(DFE, [(b"__heartbeat__", None)])]) == []
