"""guard: what the research contract does not allow by name, type and domain does not pass."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas import contracts
from schemas.classification import UnclassifiedFieldError
from schemas.codec import arrow_schema
from schemas.contracts import Contract
from stream_processors.areas import load_areas
from stream_processors.guard import Guard, GuardError, Permission, load_allowed

RESEARCH = contracts.contract("research/person")
CONTRIBUTION = contracts.contract("linkage/contribution")


GUARD = Guard(RESEARCH, load_areas().codes)


def verdict(dataset: str, item: dict[str, Any], named: str | None = None, **others: Any) -> bool:
    """What the guard says of one contribution."""
    return refusal(dataset, item, None, named, **others) is None


def refusal(
    dataset: str, item: dict[str, Any], as_of: datetime.date | None, named: str | None = None, **others: Any
) -> str | None:
    row = {
        "dataset": named or dataset,
        "supplier": "council-northam",
        "expires_on": datetime.date(2030, 1, 1),
        dataset: item,
        **others,
    }
    return GUARD.refusals(pa.RecordBatch.from_pylist([row], schema=arrow_schema(CONTRIBUTION)), as_of)[0]


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
        ("person", {"area": "E01003235"}, True),
        ("person", {"area": "E02006784"}, True),
        ("person", {"area": "E01999999"}, False),
        ("person", {"area": "southam"}, False),
        ("person", {"area": "council-northam"}, False),
        ("person", {"area": None}, True),
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
    found = GUARD.refusals(pa.RecordBatch.from_pylist(rows, schema=arrow_schema(CONTRIBUTION)))
    assert found == [None, "RefusedByGuard", None]


@pytest.mark.parametrize(
    ("supplier", "area", "passes"),
    [
        ("council-northam", "northam", True),
        ("council-north-ham-2", "north-ham-2", True),
        ("dfe", "dfe", False),
        ("northam", "northam", False),
        ("council-", "", False),
        ("council-Anna Smith", "Anna Smith", False),
    ],
)
def test_an_area_is_of_the_directory_or_the_suppliers_own(supplier: str, area: str, passes: bool) -> None:
    assert verdict("person", {"area": area}, supplier=supplier) is passes


@pytest.mark.parametrize(
    ("as_of", "error"),
    [
        (None, None),
        (datetime.date(2029, 12, 31), None),
        (datetime.date(2030, 1, 1), "Expired"),
        (datetime.date(2031, 1, 1), "Expired"),
    ],
)
def test_what_has_expired_by_the_clock_does_not_pass(as_of: datetime.date | None, error: str | None) -> None:
    assert refusal("contact", {"contact_type": "emergency"}, as_of) == error


def changed(change: Any) -> Contract:
    """The research contract with something changed in its fields."""
    schema = json.loads(RESEARCH.text)
    schema["fields"] = change(schema["fields"])
    return Contract("research/person", json.dumps(schema))


def without(name: str) -> Any:
    return lambda fields: [f for f in fields if f["name"] != name]


def altered(field: str, **attributes: Any) -> Any:
    return lambda fields: [f | attributes if f["name"] == field else f for f in fields]


@pytest.mark.parametrize(
    "research",
    [
        changed(without("sex")),
        changed(without("contact")),
        changed(altered("birth_year", domain=[1800, 2030])),
        changed(altered("birth_year", domain=[1900, 2030])),
        changed(altered("birth_year", classification="attribute")),
        changed(altered("birth_year", type=["null", "string"])),
        changed(altered("programme_start_month", domain=None)),
        changed(altered("area", domain=None)),
        changed(altered("area", name="address")),
        changed(altered("sex", type=["null", {"type": "enum", "name": "Sex", "symbols": ["F", "M"]}])),
        changed(lambda fields: [*fields, {"name": "note", "type": "string", "classification": "attribute"}]),
    ],
)
def test_a_contract_that_differs_from_what_is_allowed_stops_the_start(research: Contract) -> None:
    with pytest.raises(UnclassifiedFieldError):
        Guard(research, load_areas().codes)


def permission(**fields: Any) -> Permission:
    return Permission(**{"path": "x", "classification": "attribute", "kind": "int", **fields})


@pytest.mark.parametrize(
    ("field", "closed"),
    [
        (permission(kind="int", domain=(0, 500)), True),
        (permission(kind="int", domain=(0, 9_999)), True),
        (permission(kind="int", domain=(0, 10_000)), False),
        (permission(kind="int", domain=(5, 1)), False),
        (permission(kind="int"), False),
        (permission(kind="long", domain=(0, 500)), False),
        (permission(kind="double", domain=(0.0, float("inf"))), False),
        (permission(kind="boolean"), True),
        (permission(kind="date", domain="month"), True),
        (permission(kind="date", domain="day"), False),
        (permission(kind="date"), False),
        (permission(kind="enum", symbols=("theft", "KS2")), True),
        (permission(kind="enum", symbols=()), False),
        (permission(kind="enum", symbols=("AB123456C",)), False),
        (permission(kind="enum", symbols=("Anna Smith",)), False),
        (permission(kind="string"), False),
        (permission(kind="string", domain="area"), False),
        (permission(kind="string", classification="quasi", domain="area"), True),
        (permission(kind="string", classification="quasi", domain="pseudonym"), False),
        (permission(kind="string", classification="pseudonym", domain="pseudonym"), True),
        (permission(kind="timestamp-millis"), False),
        (permission(kind="bytes"), False),
        (permission(kind="map"), False),
        (permission(kind="record"), False),
    ],
)
def test_a_domain_is_closed_or_the_start_is_refused_whatever_both_sides_allow(field: Permission, closed: bool) -> None:
    assert field.closed is closed


def test_the_guard_is_not_made_without_its_configuration(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match="areas"):
        Guard(RESEARCH, frozenset())
    with pytest.raises(GuardError, match="cannot be read"):
        load_allowed(tmp_path / "guard.yaml")
    with pytest.raises(GuardError, match="is not allowed"):
        Guard(RESEARCH, load_areas().codes, {})
    for text in (
        "",
        "[]",
        "sex: F",
        "sex: {class: quasi}",
        "sex: {class: quasi, type: enum, also: 1}",
        "a: {{",
        "\x00",
    ):
        (tmp_path / "guard.yaml").write_text(text)
        with pytest.raises(GuardError):
            load_allowed(tmp_path / "guard.yaml")


def test_what_the_guard_allows_and_the_contract_lacks_stops_the_start() -> None:
    more = {**load_allowed(), "religion": permission(path="religion", kind="boolean")}
    with pytest.raises(GuardError, match="does not have"):
        Guard(RESEARCH, load_areas().codes, more)
