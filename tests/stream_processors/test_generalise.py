"""generalise: what is kept of each supplier record, and how coarse."""

from __future__ import annotations

import datetime
from typing import Any

import polars as pl
import pytest

from schemas import contracts
from schemas.classification import UnclassifiedFieldError
from schemas.codec import arrow_schema
from stream_processors import generalise
from stream_processors.generalise import KEPT, Kept, keep

DAY = datetime.date


def kept(name: str, **row: Any) -> dict[str, Any]:
    """What is kept of one row of a contract."""
    contract = contracts.contract(name)
    frame = pl.DataFrame([row], schema=pl.DataFrame(arrow_schema(contract).empty_table()).schema)
    return generalise.generalise(contract, frame).to_dicts()[0]


def test_a_date_becomes_the_first_day_of_its_month() -> None:
    found = kept("identified/health.contact", contact_date=DAY(2014, 7, 31), contact_type="emergency")
    assert found == {"month": DAY(2014, 7, 1), "contact_type": "emergency"}


@pytest.mark.parametrize(
    ("day", "month"),
    [(DAY(1900, 1, 1), None), (DAY(1949, 12, 31), None), (DAY(1950, 1, 1), DAY(1950, 1, 1)), (None, None)],
)
def test_a_date_before_1950_stands_for_none(day: DAY | None, month: DAY | None) -> None:
    assert kept("identified/health.contact", contact_date=day, contact_type="emergency")["month"] == month


@pytest.mark.parametrize(
    ("born", "year"), [(DAY(2001, 3, 4), 2001), (DAY(1899, 1, 2), 1899), (DAY(1900, 1, 1), None), (None, None)]
)
def test_a_date_of_birth_becomes_a_year_and_a_default_date_none(born: DAY | None, year: int | None) -> None:
    assert kept("identified/dfe.person", UPN="u1", date_of_birth=born)["birth_year"] == year


def test_nothing_that_names_a_person_or_a_record_is_kept() -> None:
    for name, rules in KEPT.items():
        for target, rule in rules.rules.items():
            field = next(f for f in contracts.contract(name).fields if f.name == rule.source)
            assert field.classification != "identifier" or target == "birth_year"


def test_every_field_is_kept_or_dropped() -> None:
    generalise.check()


@pytest.mark.parametrize(
    ("name", "rules", "said"),
    [
        ("identified/dfe.person", None, "no rule"),
        ("identified/dfe.person", Kept(KEPT["identified/dfe.person"].rules, frozenset({"UPN"})), "neither kept nor"),
        (
            "identified/dfe.person",
            Kept({"birth_year": keep("date_of_birth")}, KEPT["identified/dfe.person"].dropped | {"sex"}),
            "as it is",
        ),
        (
            "identified/dfe.person",
            Kept({"sex": keep("postcode")}, KEPT["identified/dfe.person"].dropped | {"sex", "date_of_birth"}),
            "both kept and dropped",
        ),
        (
            "identified/dfe.person",
            Kept({"gender": keep("sex")}, KEPT["identified/dfe.person"].dropped | {"date_of_birth"}),
            "has no field",
        ),
    ],
)
def test_rules_that_let_a_field_slip_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, rules: Kept | None, said: str
) -> None:
    others = {k: v for k, v in KEPT.items() if k != name}
    monkeypatch.setattr(generalise, "KEPT", others | ({name: rules} if rules else {}))
    with pytest.raises(UnclassifiedFieldError, match=said):
        generalise.check()
