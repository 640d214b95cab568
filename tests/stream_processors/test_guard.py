"""guard: what the research contract does not allow by name, type and domain does not pass."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pyarrow as pa
import pytest

from schemas import contracts
from schemas.classification import UnclassifiedFieldError
from schemas.codec import arrow_schema
from schemas.contracts import Contract
from stream_processors.guard import Guard

RESEARCH = contracts.contract("research/person")
CONTRIBUTION = contracts.contract("linkage/contribution")


def verdict(dataset: str, item: dict[str, Any], named: str | None = None, **others: Any) -> bool:
    """What the guard says of one contribution."""
    row = {
        "dataset": named or dataset,
        "supplier": "x",
        "expires_on": datetime.date(2030, 1, 1),
        dataset: item,
        **others,
    }
    return Guard(RESEARCH).allowed(pa.RecordBatch.from_pylist([row], schema=arrow_schema(CONTRIBUTION)))[0]


MONTH, DAY = datetime.date(2014, 7, 1), datetime.date(2014, 7, 2)


@pytest.mark.parametrize(
    ("dataset", "item", "passes"),
    [
        ("contact", {"contact_type": "emergency", "month": MONTH}, True),
        ("contact", {"contact_type": "emergency", "month": None}, True),
        ("contact", {"contact_type": "emergency", "month": DAY}, False),
        ("contact", {"contact_type": "Anna Smith", "month": MONTH}, False),
        ("contact", {"contact_type": None, "month": MONTH}, False),
        ("absence", {"sessions_possible": 0}, True),
        ("absence", {"sessions_possible": 500}, True),
        ("absence", {"sessions_possible": -1}, False),
        ("absence", {"sessions_possible": 501}, False),
        ("attainment", {"stage": "KS4", "ks4_points": 1000.0}, True),
        ("attainment", {"stage": "KS4", "ks4_points": float("nan")}, False),
        ("attainment", {"stage": "KS4", "ks4_points": float("inf")}, False),
        ("person", {"birth_year": 1880}, True),
        ("person", {"birth_year": 1879}, False),
        ("person", {"birth_year": 2031}, False),
        ("person", {"sex": "F", "area": "northam", "programme_status": "participant"}, True),
        ("person", {"sex": "female"}, False),
        ("person", {"area": "E09000023"}, True),
        ("person", {"area": "north-ham-2"}, True),
        ("person", {"area": "SE6 1AA"}, False),
        ("person", {"area": "Anna"}, False),
        ("person", {"area": ""}, False),
        ("person", {"area": "northam\n"}, False),
        ("person", {"programme_start_month": DAY}, False),
    ],
)
def test_values_pass_within_their_domain_and_not_beyond(dataset: str, item: dict[str, Any], passes: bool) -> None:
    assert verdict(dataset, item) is passes


def test_an_item_passes_only_under_its_own_name_and_alone() -> None:
    item = {"contact_type": "emergency"}
    assert verdict("contact", item)
    assert not verdict("contact", item, named="absence")
    assert not verdict("contact", item, absence={"sessions_possible": 1})
    assert not verdict("contact", None)  # type: ignore[arg-type]


def test_one_row_out_of_its_domain_refuses_no_other() -> None:
    rows = [
        {"dataset": "absence", "supplier": "x", "expires_on": MONTH, "absence": {"sessions_possible": n}}
        for n in (1, 999, 2)
    ]
    found = Guard(RESEARCH).allowed(pa.RecordBatch.from_pylist(rows, schema=arrow_schema(CONTRIBUTION)))
    assert found == [True, False, True]


def changed(change: Any) -> Contract:
    """The research contract with something changed in its fields."""
    schema = json.loads(RESEARCH.text)
    schema["fields"] = change(schema["fields"])
    return Contract("research/person", json.dumps(schema))


def without(name: str) -> Any:
    return lambda fields: [f for f in fields if f["name"] != name]


def altered(name: str, **attributes: Any) -> Any:
    return lambda fields: [f | attributes if f["name"] == name else f for f in fields]


@pytest.mark.parametrize(
    "research",
    [
        changed(without("sex")),
        changed(without("contact")),
        changed(altered("birth_year", domain=[1900, 2030])),
        changed(altered("programme_start_month", domain=None)),
        changed(altered("area", domain=None)),
        changed(altered("sex", type=["null", {"type": "enum", "name": "Sex", "symbols": ["F", "M"]}])),
    ],
)
def test_a_contribution_that_the_research_contract_does_not_allow_stops_the_start(research: Contract) -> None:
    with pytest.raises(UnclassifiedFieldError):
        Guard(research)
