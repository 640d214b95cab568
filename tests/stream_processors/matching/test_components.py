from __future__ import annotations

from datetime import date
from typing import Any

import jellyfish
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_processors.matching.components import COMPONENTS, FORMAL, canonical_forenames, components, soundex
from stream_processors.matching.normalise import normalise
from tests.stream_processors.matching.people import PERSONS, SAM, any_text, people


def component(name: str, **person: Any) -> Any:
    return components(normalise(people(person)), [name])[name].item()


SAMS = {
    "forename": "SAMUEL",
    "surname": "OBRIENSMITH",
    "std_forename": "SAMUEL",
    "full_name": "SAMUELPETERIANOBRIENSMITH",
    "alphaname": "ABEEHIILMMNORSSTU",
    "alpha_full_name": "AABEEEEHIIILMMNNOPRRSSTTU",
    "soundex_forename": "S540",
    "soundex_surname": "O165",
    "soundex_unordered": "O165S540",
    "initial": "S",
    "forename2": "SA",
    "forename3": "SAM",
    "surname2": "OB",
    "second_forename": "PETER",
    "dob": "2001-02-03",
    "dob_swapped": "2001-03-02",
    "dob_unordered": "2001-02-03",
    "birth_month": "2001-02",
    "birth_day_and_month": "02-03",
    "birth_year_and_day": "2001-03",
    "birth_year": "2001",
    "sex": "M",
    "postcode": "SE137AB",
    "sector": "SE137",
    "district": "SE13",
    "area": "SE",
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_components_of_one_person(name: str) -> None:
    assert component(name, **SAM) == SAMS[name]


@pytest.mark.parametrize(
    ("written", "postcode", "sector", "district", "area"),
    [
        ("M1 1AE", "M11AE", "M11", "M1", "M"),
        ("EC1A 1BB", "EC1A1BB", "EC1A1", "EC1A", "EC"),
        ("4223", "4223", "422", "42", "4"),
        ("0820", "0820", "082", "08", "0"),
        ("D02 AF30", "D02AF30", "D02AF3", "D02AF", "D"),
        ("SE13", None, None, None, "SE"),
        ("SE13 7", None, None, None, "SE"),
    ],
)
def test_postcodes(written: str, postcode: str | None, sector: str | None, district: str | None, area: str) -> None:
    made = components(normalise(people({"postcode": written})), ["postcode", "sector", "district", "area"])
    assert made.row(0) == (postcode, sector, district, area)


@pytest.mark.parametrize(
    ("forename", "standard"),
    [
        ("Bill", "WILLIAM"),
        ("Will", "WILLIAM"),
        ("William", "WILLIAM"),
        ("Bob", "ROBERT"),
        ("Liz", "ELIZABETH"),
        ("Beth", "ELIZABETH"),
        ("Tom", "THOMAS"),
        ("Mike", "MICHAEL"),
        ("Tony", "ANTHONY"),
        ("Alex", "ALEXANDER"),
        ("Mohammed", "MOHAMMED"),
        ("Anne-Marie", "ANNEMARIE"),
        ("J", None),
        (None, None),
    ],
)
def test_nicknames(forename: str | None, standard: str | None) -> None:
    assert component("std_forename", forename=forename) == standard


def test_a_standard_forename_is_its_own_standard_and_stands_for_few() -> None:
    table = canonical_forenames()
    assert not set(table.values()) & set(table)
    assert not set(FORMAL) & set(table)
    assert max(list(table.values()).count(name) for name in set(table.values())) <= 15


def test_an_initial_is_no_forename_but_an_initial() -> None:
    person = {**SAM, "forename": "S."}
    made = components(normalise(people(person)), list(COMPONENTS)).row(0, named=True)
    of_the_forename = {
        "forename",
        "std_forename",
        "full_name",
        "alphaname",
        "alpha_full_name",
        "soundex_forename",
        "soundex_unordered",
        "forename2",
        "forename3",
    }
    assert {name for name, value in made.items() if value is None} == of_the_forename
    assert made["initial"] == "S"


def test_a_day_over_12_is_no_month() -> None:
    assert component("dob_swapped", date_of_birth=date(2001, 2, 13)) is None


@pytest.mark.parametrize(("month", "day"), [(2, 3), (3, 2)])
def test_dates_with_day_and_month_exchanged_are_one_when_they_are_not_ordered(month: int, day: int) -> None:
    assert component("dob_unordered", date_of_birth=date(2001, month, day)) == "2001-02-03"


def test_a_date_that_cannot_be_exchanged_is_its_own_when_they_are_not_ordered() -> None:
    assert component("dob_unordered", date_of_birth=date(2001, 2, 13)) == "2001-02-13"


def test_swapped_names_have_the_same_letters() -> None:
    assert component("alphaname", forename="Ian", surname="Ng") == component("alphaname", forename="Ng", surname="Ian")


MADE_OF = {
    "forename": {"forename"},
    "surname": {"surname"},
    "std_forename": {"forename"},
    "full_name": {"forename", "surname"},
    "alphaname": {"forename", "surname"},
    "alpha_full_name": {"forename", "middle_names", "surname"},
    "soundex_forename": {"forename"},
    "soundex_surname": {"surname"},
    "soundex_unordered": {"forename", "surname"},
    "initial": {"forename"},
    "forename2": {"forename"},
    "forename3": {"forename"},
    "surname2": {"surname"},
    "second_forename": {"middle_names"},
    "dob": {"date_of_birth"},
    "dob_swapped": {"date_of_birth"},
    "dob_unordered": {"date_of_birth"},
    "birth_month": {"date_of_birth"},
    "birth_day_and_month": {"date_of_birth"},
    "birth_year_and_day": {"date_of_birth"},
    "birth_year": {"date_of_birth"},
    "sex": {"sex"},
    "postcode": {"postcode"},
    "sector": {"postcode"},
    "district": {"postcode"},
    "area": {"postcode"},
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_needs_just_what_it_is_made_of(name: str) -> None:
    assert {column for column in SAM if component(name, **{**SAM, column: None}) is None} == MADE_OF[name]


@any_text
@given(st.lists(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ", max_size=30) | st.text(alphabet="AHWBPSC", max_size=8)))
def test_soundex_is_that_of_jellyfish(names: list[str]) -> None:
    made = pl.DataFrame({"name": names}, schema={"name": pl.String}).select(soundex(pl.col("name"))).to_series()
    assert made.to_list() == [jellyfish.soundex(name) for name in names]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ROBERT", "R163"),
        ("RUPERT", "R163"),
        ("TYMCZAK", "T522"),
        ("PFISTER", "P236"),
        ("ASHCRAFT", "A261"),
        ("LEE", "L000"),
    ],
)
def test_soundex_of_the_national_archives_examples(name: str, code: str) -> None:
    assert pl.select(soundex(pl.lit(name))).item() == code


@any_text
@given(PERSONS)
def test_sorted_letters_are_those_of_python(rows: list[dict[str, Any]]) -> None:
    made = components(normalise(people(*rows)), ["forename", "surname", "alphaname"])
    for forename, surname, alphaname in made.iter_rows():
        whole = None if forename is None or surname is None else "".join(sorted(forename + surname))
        assert alphaname == whole


@any_text
@given(PERSONS)
def test_components_are_never_empty_and_hold_no_separator(rows: list[dict[str, Any]]) -> None:
    made = components(normalise(people(*rows)), list(COMPONENTS))
    assert made.height == len(rows)
    for column in made:
        assert column.drop_nulls().str.contains(r"^[A-Z0-9+-]+$").all()
