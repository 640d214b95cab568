"""The oracle is independent of the processors, sees every difference, and tells none of its values."""

from __future__ import annotations

import ast
import copy
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.contracts import identified
from stream_processors import oracle
from tests.stream_processors.tables import CONTEXT, REGISTRY, RESEARCH_KEY, TOKEN_KEY, framed

WHO = {
    "forename": "Anna",
    "surname": "Smith",
    "date_of_birth": datetime.date(2001, 3, 4),
    "sex": "F",
    "postcode": "SE6 1AA",
}
JULY, AUGUST = datetime.date(2013, 7, 20), datetime.date(2013, 8, 20)
RECORDS: oracle.Records = {
    "council-northam": {"person": [{"person_id": "n1", "family_id": "f1", "programme_status": "participant", **WHO}]},
    "dfe": {
        "person": [{"UPN": "u1", **WHO}, {"UPN": "u2", "forename": "Zoe"}],
        "absence": [
            {"UPN": "u1", "record_id": "r1", "PeriodEnd": AUGUST, "SessionsPossible_3Term": 77},
            {"UPN": "u1", "record_id": "r2", "PeriodEnd": JULY, "SessionsPossible_3Term": 78},
            {"UPN": "u2", "record_id": "r1", "PeriodEnd": JULY},
            {"UPN": "u3", "record_id": "r1", "PeriodEnd": JULY},
        ],
    },
}
EXPECTED = oracle.research(RECORDS, TOKEN_KEY, RESEARCH_KEY, CONTEXT.catalogue, CONTEXT.areas.by_postcode)
((PERSON, RECORD),) = EXPECTED.persons.items()


def test_it_shares_nothing_with_the_processors_but_functions_of_one_value() -> None:
    tree = ast.parse(Path(oracle.__file__).read_text())
    imported = {n.module or "": {a.name for a in n.names} for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    # Hashes of one person each; who is refused by them, the oracle works out itself.
    assert imported.pop("stream_processors.erasure.suppression") == {"SuppressionKeys"}
    assert {m for m in imported if m.startswith("stream_processors")} == {
        "stream_processors.matching.catalogue",
        "stream_processors.matching.encodings",
        "stream_processors.matching.near_model",
        "stream_processors.matching.normalise",
        "stream_processors.matching.tokens",
        "stream_processors.refs",
    }


def test_a_small_cohort_as_it_must_be() -> None:
    assert RECORD["birth_year"] == 2001
    assert RECORD["area"] == "E01003320"
    assert [(i["month"], i["sessions_possible"]) for i in RECORD["absence"]] == [
        (JULY.replace(day=1), 78),
        (AUGUST.replace(day=1), 77),
    ]
    assert EXPECTED.outcomes() == {"council-northam": {"cohort": 1}, "dfe": {"k01": 1, "waiting": 1}}


def test_what_is_equal_has_no_differences() -> None:
    assert oracle.equal(EXPECTED, copy.deepcopy(EXPECTED.persons)) == []


def other(**fields: Any) -> dict[str, dict[str, Any]]:
    return {PERSON: RECORD | fields}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "is missing"),
        ({**EXPECTED.persons, "x": RECORD}, "should not be there"),
        (other(birth_year=1977), "birth_year differs"),
        (other(absence=RECORD["absence"][::-1]), "absence is not in order of months"),
        (other(absence=RECORD["absence"] + RECORD["absence"][1:]), "absence differs"),
        (other(absence=RECORD["absence"][:1]), "absence differs"),
        (other(absence=[i | {"authorised_absence": 9} for i in RECORD["absence"]]), "absence differs"),
        (other(surname="Smith"), "has other fields"),
        ({PERSON: {k: v for k, v in RECORD.items() if k != "sex"}}, "has other fields"),
    ],
)
def test_a_difference_is_named_by_person_and_field_without_its_value(found: dict[str, Any], said: str) -> None:
    (difference,) = oracle.equal(EXPECTED, found)
    assert said in difference
    assert not any(value in difference.partition(": ")[2] for value in ("1977", "Smith", "2001", "77", "78"))


LINKS = {
    ref: dict(zip(("supplier", "outcome", "match_key", "person_ref"), (of[0], *EXPECTED.links[of]), strict=True))
    for of, ref in EXPECTED.subject_refs.items()
}


def _drop(links: dict[str, Any]) -> None:
    links.popitem()


def _add(links: dict[str, Any]) -> None:
    links["x"] = {}


def _turn(links: dict[str, Any]) -> None:
    next(iter(links.values()))["outcome"] = "waiting"


@pytest.mark.parametrize(
    ("change", "said"), [(_drop, "is missing"), (_add, "should not be there"), (_turn, "outcome differs")]
)
def test_a_link_that_differs_is_named(change: Callable[[dict[str, Any]], None], said: str) -> None:
    links = copy.deepcopy(LINKS)
    assert oracle.equal_links(EXPECTED, links) == []
    change(links)
    (difference,) = oracle.equal_links(EXPECTED, links)
    assert said in difference


TOPIC = "identified.dfe.absence"


def test_rows_are_read_without_those_that_belong_in_quarantine() -> None:
    contract = identified("dfe", "absence")
    row = {"UPN": "u1", "record_id": "r1", "PeriodEnd": JULY, "SessionsPossible_3Term": 300}
    good = framed(TOPIC, row)
    bad = [b"", b"\x01" + good[1:], good[:-2], good + b"x", framed(TOPIC, row | {"SessionsPossible_3Term": 501})]
    bad += [framed(TOPIC, row | {"UPN": "u|1"}), framed(TOPIC, row | {"record_id": ""})]
    for writer in (None, REGISTRY.writer):
        (found,) = oracle.rows_of(contract, [*bad, good], writer)
        assert {k: v for k, v in found.items() if v is not None} == row
    assert oracle.rows_of(contract, [b"\x00\x00\x00\x00\x09" + good[5:]], REGISTRY.writer) == []
