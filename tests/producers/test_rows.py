from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.fields import DEFAULT_DATES, MAX_ROW_BYTES, MAX_VALUE_BYTES
from producers.rows import REJECTS, Converted, convert
from schemas.codec import arrow_schema, encode
from schemas.contracts import Contract, contract, identified, supplied
from tests.producers.support import MARK, PERSON, TODAY

IDENTIFIED = list(supplied())
ATTAINMENT = identified("dfe", "attainment")


def run(rows: list[dict[str, Any]], of: Contract = PERSON, today: date = TODAY) -> Converted:
    columns = dict.fromkeys(name for row in rows for name in row)
    cells = pl.DataFrame({c: [row.get(c) for row in rows] for c in columns}, schema=dict.fromkeys(columns, pl.String))
    return convert(cells, pl.Series("line", range(2, len(rows) + 2), dtype=pl.Int64), of, today)


def one(of: Contract, field: str, text: str | None) -> tuple[Any, str | None]:
    """What a cell becomes, and why it is bad."""
    needed = {f.name: (f.symbols[0] if f.symbols else "x") for f in of.fields if not f.nullable}
    out = run([{**needed, field: text}], of)
    if out.rejected:
        return None, out.rejects.row(0)[2]
    reasons = [reason for (name, reason) in out.warnings if name == field]
    return out.batch.to_pylist()[0][field], reasons[0] if reasons else None


@pytest.mark.parametrize(
    ("text", "born", "reason"),
    [
        ("2001-03-04", date(2001, 3, 4), None),
        (" 2001-03-04 ", date(2001, 3, 4), None),
        ("2001-03-04T00:00:00", date(2001, 3, 4), None),
        ("2001-03-04 00:00:00.000", date(2001, 3, 4), None),
        ("04/03/2001", date(2001, 3, 4), None),
        ("4/3/2001", date(2001, 3, 4), None),
        ("19151111", date(1915, 11, 11), None),
        ("1970-01-01", date(1970, 1, 1), None),
        ("2026-03-01", date(2026, 3, 1), None),
        ("2000-02-29", date(2000, 2, 29), None),
        ("", None, None),
        (None, None, None),
        ("  ", None, None),
        ("2026-03-02", None, "is in the future"),
        ("1900-01-01", None, "is a default date"),
        ("01/01/1900", None, "is a default date"),
        ("99991231", None, "is a default date"),
        ("1849-12-31", None, "is too early"),
        ("2001-02-29", None, "is not a date"),
        ("19450231", None, "is not a date"),
        ("03/13/2001", None, "is not a date"),
        ("2001-3-4", None, "is not a date"),
        ("04/03/01", None, "is not a date"),
        ("2001-03-04T01:00", None, "is not a date"),
        ("²⁰01-03-04", None, "is not a date"),
        ("unknown", None, "is not a date"),
    ],
)
def test_dates(text: str | None, born: date | None, reason: str | None) -> None:
    assert one(PERSON, "date_of_birth", text) == (born, reason)


@pytest.mark.parametrize("day", DEFAULT_DATES)
def test_default_dates_are_missing(day: date) -> None:
    assert one(PERSON, "date_of_birth", f"{day:%d/%m/}{day.year:04}") == (None, "is a default date")


@pytest.mark.parametrize(
    ("field", "text", "value", "reason"),
    [
        ("KS2_ENGLEV", "5", 5, None),
        ("KS2_ENGLEV", " +5.0 ", 5, None),
        ("KS2_ENGLEV", "007", 7, None),
        ("KS2_ENGLEV", "0", 0, None),
        ("KS2_ENGLEV", "8", 8, None),
        ("KS2_ENGLEV", "9", None, "is not from 0 to 8"),
        ("KS2_ENGLEV", "-1", None, "is not from 0 to 8"),
        ("KS2_ENGLEV", "5.5", None, "is not a whole number"),
        ("KS2_ENGLEV", "99999999999999999999", None, "is not a whole number"),
        ("KS2_ENGLEV", "٣", None, "is not a whole number"),
        ("KS4_GPTSPE", "12.5", 12.5, None),
        ("KS4_GPTSPE", "1e2", 100.0, None),
        ("KS4_GPTSPE", "1001", None, "is not from 0 to 1000"),
        ("KS4_GPTSPE", "nan", None, "is not a number"),
        ("KS4_GPTSPE", "inf", None, "is not a number"),
        ("KS4_GPTSPE", "1e999", None, "is not a number"),
        ("KS4_LEVEL2_EM", "Y", True, None),
        ("KS4_LEVEL2_EM", "true", True, None),
        ("KS4_LEVEL2_EM", "1", True, None),
        ("KS4_LEVEL2_EM", "n", False, None),
        ("KS4_LEVEL2_EM", "FALSE", False, None),
        ("KS4_LEVEL2_EM", "0", False, None),
        ("KS4_LEVEL2_EM", "2", None, "is not a yes or a no"),
        ("SENProvision", " Statement or Plan", "statement_or_plan", None),
        ("SENProvision", "STATEMENT_OR-PLAN", "statement_or_plan", None),
        ("SENProvision", "some", None, "is not among the allowed symbols"),
        ("stage", "ks 2", "KS2", None),
        ("stage", "KS9", None, "is not among the allowed symbols"),
        ("stage", " ", None, "is blank"),
    ],
)
def test_numbers_yes_or_no_and_symbols(field: str, text: str, value: object, reason: str | None) -> None:
    assert one(ATTAINMENT, field, text) == (value, reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "is blank"),
        ("", "is blank"),
        (" \t\u00a0", "is blank"),
        ("a|b", "holds a |"),
        ("a\0b", "holds a control character"),
        ("a\nb", "holds a control character"),
        ("x" * 1001, "is too long for a key"),
        ("__heartbeat__", "is a reserved key"),
    ],
)
def test_a_row_without_a_usable_key_is_refused(text: str | None, reason: str) -> None:
    for field in ("UPN", "record_id"):
        _, found = one(ATTAINMENT, field, text)
        assert found is not None
        assert found.startswith(reason)


def test_nobody_is_lost_over_a_postcode() -> None:
    out = run([{"subject_id": "a", "postcode": "AB1\0", "date_of_birth": "never", "sex": "?", "surname": "Smith"}])
    assert out.batch.to_pylist()[0] == {
        **dict.fromkeys(arrow_schema(PERSON).names),
        "subject_id": "a",
        "surname": "Smith",
    }
    assert out.warnings == Counter(
        {
            ("postcode", "holds a control character"): 1,
            ("date_of_birth", "is not a date"): 1,
            ("sex", "is not among the allowed symbols"): 1,
        }
    )


def test_all_bad_fields_of_a_row_are_told_at_once_and_it_counts_once() -> None:
    out = run([{"UPN": "", "record_id": "a|", "stage": "KS9", "KS2_ENGLEV": "99"}], ATTAINMENT)
    assert out.rejected == 1
    assert out.rejects.get_column("field").to_list() == ["UPN", "record_id", "stage"]
    assert not out.warnings  # of rows that are published


def test_keys() -> None:
    out = run([{"UPN": " a ", "record_id": "1", "stage": "KS2"}], ATTAINMENT)
    assert (out.keys.to_list(), out.subjects.to_list()) == (["a|1"], ["a"])
    assert run([{"subject_id": " a "}]).keys.to_list() == ["a"]


def test_what_is_longer_than_a_message_may_be_is_refused() -> None:
    value = run([{"subject_id": "a", "surname": "é" * (MAX_VALUE_BYTES // 2 + 1)}])
    row = run([{"subject_id": "a", **dict.fromkeys(PERSON_TEXT, "x" * (MAX_ROW_BYTES // len(PERSON_TEXT) + 1))}])
    fits = run([{"subject_id": "a", "surname": "x" * MAX_VALUE_BYTES}])
    assert (value.rejected, row.rejected, fits.rejected) == (1, 1, 0)


PERSON_TEXT = ["forename", "middle_names", "surname", "postcode", "date_of_birth"]


def test_no_rows() -> None:
    out = run([{"subject_id": "a"}])
    assert out.rejects.schema == REJECTS
    empty = convert(pl.DataFrame(schema={"subject_id": pl.String}), pl.Series("line", [], pl.Int64), PERSON, TODAY)
    assert (empty.batch.num_rows, empty.rejected, empty.rejects.schema) == (0, 0, REJECTS)


some_text = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.sampled_from(["1", "0", "KS2", "G", "F", "2001-01-01", "1900-01-01", "theft", "Y", "participant", "12.5"]),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(IDENTIFIED), st.data())
def test_every_row_is_published_or_refused_and_what_is_published_fits(name: str, data: st.DataObject) -> None:
    of = contract(name)
    row = st.fixed_dictionaries({f.name: some_text for f in of.fields})
    rows = data.draw(st.lists(row, min_size=1, max_size=8))
    out = run(rows, of)
    assert out.batch.num_rows + out.rejected == len(rows)
    assert len(encode(out.batch, of)) == len(out.keys) == len(out.subjects) == out.batch.num_rows
    assert out.rejects.get_column("line").n_unique() == out.rejected
    assert not any("\0" in k or k.count("|") > 1 for k in out.keys)
    again = run(rows, of)
    assert encode(again.batch, of) == encode(out.batch, of)
    assert again.keys.to_list() == out.keys.to_list()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(IDENTIFIED), st.data())
def test_reasons_never_hold_a_value(name: str, data: st.DataObject) -> None:
    of = contract(name)
    cell = st.text(max_size=3).map(lambda t: MARK + t)
    rows = data.draw(
        st.lists(st.fixed_dictionaries({f.name: st.one_of(cell, some_text) for f in of.fields}), max_size=5)
    )
    if rows:
        out = run(rows, of)
        assert MARK not in out.rejects.write_csv()
        assert MARK not in repr(out.warnings)
