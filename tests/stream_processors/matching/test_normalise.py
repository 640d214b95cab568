from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given

from stream_processors.matching.normalise import DEFAULT_DATES, LONGEST_NAME, normalise
from tests.stream_processors.matching.people import CLEAN, PERSONS, SAM, any_text, people


def clean(column: str, value: Any) -> Any:
    return normalise(people({column: value}))[CLEAN[column]].item()


@pytest.mark.parametrize(
    ("written", "cleaned"),
    [
        ("Smith", "SMITH"),
        ("  van   der\tBerg ", "VAN DER BERG"),
        ("Anne-Marie", "ANNE MARIE"),
        ("Anne–Marie", "ANNE MARIE"),
        ("O'Brien", "OBRIEN"),
        ("O’Brien", "OBRIEN"),
        ("O´Brien", "OBRIEN"),
        ("Zoë", "ZOE"),
        ("Zoe\u0308", "ZOE"),
        ("Weiß", "WEISS"),
        ("Sørensen", "SORENSEN"),
        ("Łukasz", "LUKASZ"),
        ("Æthelred", "AETHELRED"),
        ("Đorđe", "DORDE"),
        ("ﬁona", "FIONA"),
        ("Smith2", "SMITH"),
        ("J", "J"),
        ("Sam\0uel", "SAM UEL"),
        ("", None),
        ("  - ", None),
        ("42", None),
        ("Мария", None),
        ("Unknown", None),
        ("NOT KNOWN", None),
        ("not-known", None),
        ("N/A", None),
        ("none", None),
        ("NULL", None),
        ("Test", None),
        ("XXX", None),
        ("x x", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("column", ["forename", "surname"])
def test_names(column: str, written: str | None, cleaned: str | None) -> None:
    assert clean(column, written) == cleaned


@pytest.mark.parametrize(
    "word", ["Baby", "Baby Girl", "BABY OF JANE", "Infant", "Unborn", "Twin 2", "Male", "Female", "NA"]
)
def test_words_for_an_unnamed_child_are_no_forename(word: str) -> None:
    assert clean("forename", word) is None


@pytest.mark.parametrize("name", ["Male", "Boy", "Na", "Baby", "Twin"])
def test_some_of_them_are_real_surnames(name: str) -> None:
    assert clean("surname", name) == name.upper()


def test_a_name_is_cut_at_its_longest() -> None:
    assert clean("surname", "ab " * 100_000) == ("AB " * 40)[:LONGEST_NAME].strip()


@pytest.mark.parametrize(
    ("written", "cleaned"),
    [
        ("SE13 7AB", "SE137AB"),
        ("se137ab", "SE137AB"),
        (" m1  1ae. ", "M11AE"),
        ("4223", "4223"),
        ("0800", "0800"),
        ("D02 AF30", "D02AF30"),
        ("SE13", "SE13"),
        ("ZZ99 3VZ", None),
        ("zz993wz", None),
        ("0000", None),
        ("99999", None),
        ("XXX XXX", None),
        ("UNKNOWN", None),
        ("7", None),
        ("12345678901", None),
        ("", None),
        (None, None),
    ],
)
def test_postcodes(written: str | None, cleaned: str | None) -> None:
    assert clean("postcode", written) == cleaned


@pytest.mark.parametrize(
    ("written", "cleaned"), [("F", "F"), ("M", "M"), ("m ", "M"), ("X", None), ("U", None), (None, None)]
)
def test_sex(written: str | None, cleaned: str | None) -> None:
    assert clean("sex", written) == cleaned


@pytest.mark.parametrize(
    "born", [date(1850, 6, 1), date(1900, 1, 2), date(1970, 1, 1), date(2016, 2, 29), date(2150, 1, 1)]
)
def test_any_calendar_date_counts(born: date) -> None:
    assert clean("date_of_birth", born) == born


@pytest.mark.parametrize("default", DEFAULT_DATES)
def test_but_a_default_date_is_none(default: date) -> None:
    assert clean("date_of_birth", default) is None


def test_other_columns_and_the_order_of_rows_stay() -> None:
    given_rows = people(SAM, {}, SAM).with_columns(local_id=pl.Series(["c", "a", "b"]))
    assert normalise(given_rows).select(given_rows.columns).equals(given_rows)


def test_columns_of_nothing_are_welcome() -> None:
    nothing = pl.DataFrame({column: [None, None] for column in CLEAN})
    assert normalise(nothing).select(CLEAN.values()).null_count().row(0) == (2,) * len(CLEAN)


@any_text
@given(PERSONS)
def test_cleaning_what_is_clean_changes_nothing(rows: list[dict[str, Any]]) -> None:
    once = normalise(people(*rows)).select(CLEAN.values())
    twice = normalise(once.rename({cleaned: raw for raw, cleaned in CLEAN.items()})).select(CLEAN.values())
    assert twice.equals(once)


@any_text
@given(PERSONS)
def test_any_text_is_cleaned_to_letters_and_digits(rows: list[dict[str, Any]]) -> None:
    cleaned = normalise(people(*rows))
    assert len(cleaned) == len(rows)
    for column in ("clean_forename", "clean_middle_names", "clean_surname"):
        assert cleaned[column].drop_nulls().str.contains(r"^[A-Z]+( [A-Z]+)*$").all()
    assert cleaned["clean_postcode"].drop_nulls().str.contains(r"^[A-Z0-9]{2,10}$").all()
