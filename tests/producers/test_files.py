from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers.files import publish_file
from producers.header import UnusableFileError
from producers.readers import READERS
from producers.totals import SeenKeys
from tests.producers.support import MARK, PERSON, TODAY, Kept, publish_bytes, rejects_of

HEADER = b"subject_id,surname,date_of_birth\n"
ABSENT = ("forename", "middle_names", "postcode", "sex")
"""Columns that may be missing, and are."""


def test_control_totals_and_rejects(tmp_path: Path) -> None:
    data = HEADER + b"a,Smith,2001-01-01\n,Jones,2001-01-01\nb,Brown,1900-01-01\nc,d\na,Smith,2002-01-01\n"
    totals, kept = publish_bytes(data, tmp_path)
    assert (totals.read, totals.published, totals.rejected) == (5, 3, 2)
    assert rejects_of(totals) == [
        ("3", "subject_id", "is blank"),
        ("5", "row", "has 2 cells where the header has 3"),
    ]
    told = {("date_of_birth", "is a default date"): 1, ("row", "duplicate_key"): 1}
    assert totals.warnings == told | {(name, "has no column"): 1 for name in ABSENT}
    assert [r["date_of_birth"] for r in kept.rows] == [date(2001, 1, 1), None, date(2002, 1, 1)]
    assert totals.rejects == tmp_path / f"rejects/dwp/person/file.csv.{totals.digest[:8]}.rejects.csv"
    assert totals.rejects.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("rows", [0, 3, 45_000])
def test_a_column_that_is_missing_is_told_once_of_a_file(tmp_path: Path, rows: int) -> None:
    lines = b"".join(b"s%d,,2001-01-01\n" % i for i in range(rows))
    totals, _ = publish_bytes(HEADER + lines, tmp_path)
    assert totals.warnings == {(name, "has no column"): 1 for name in ABSENT if rows}
    whole = HEADER.strip() + b",forename,middle_names,sex,postcode\n" + b"a,,,,,,\n"
    assert not publish_bytes(whole, tmp_path)[0].warnings


def test_a_file_without_bad_rows_has_no_rejects_file(tmp_path: Path) -> None:
    totals, _ = publish_bytes(HEADER + b"a,,\n", tmp_path)
    assert totals.rejects is None
    assert not (tmp_path / "rejects").exists()


def test_publishing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    data = HEADER + b"a,Smith,2001-01-01\nb,Zo\xeb,19990101\n"
    first, second = (publish_bytes(data, tmp_path)[1] for _ in range(2))
    assert first.messages(PERSON) == second.messages(PERSON)


def test_the_same_rows_give_the_same_bytes_in_any_format(tmp_path: Path) -> None:
    csv = publish_bytes(HEADER + b"a,Smith,2001-01-01\n", tmp_path)[1]
    line = b'{"subject_id": "a", "surname": "Smith", "date_of_birth": "01/01/2001"}'
    json = publish_bytes(line, tmp_path, "file.jsonl")[1]
    assert csv.messages(PERSON) == json.messages(PERSON)


def test_where_a_file_stops_being_usable_the_rows_before_it_are_accounted_for(tmp_path: Path) -> None:
    data = b'{"subject_id": "a"}\n' * 20_000 + b'{"subject_id": "b", "shoe": 1}'
    with pytest.raises(UnusableFileError, match=r"unknown column: shoe.*; 20000 rows before it are published"):
        publish_bytes(data, tmp_path, "file.jsonl")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(HEADER)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(UnusableFileError, match="cannot be read"):
        publish_file(path, "dwp", "person", Kept(), tmp_path, TODAY)


def test_seen_keys_counts_what_came_before() -> None:
    seen = SeenKeys()
    assert seen.again(pl.Series(["a", "b", "a"])) == 1
    assert seen.again(pl.Series(["c", "b", "b"])) == 2
    assert seen.again(pl.Series([], dtype=pl.String)) == 0


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 30).map(str), max_size=20), max_size=10))
def test_seen_keys_is_a_set(parts: list[list[str]]) -> None:
    seen = SeenKeys()
    again = sum(seen.again(pl.Series(part, dtype=pl.String)) for part in parts)
    flat = [key for part in parts for key in part]
    assert again == len(flat) - len(set(flat))


def test_seen_keys_stops_at_its_bound() -> None:
    seen = SeenKeys(most=2)
    assert seen.again(pl.Series(["a", "b"])) == 0
    assert seen.again(pl.Series(["a", "b"])) == 0


cell = st.one_of(
    st.sampled_from(["", "a", "b|c", "2001-01-01", '"', "\r\n", "\0", "Zoë", "1900-01-01"]),
    st.text(max_size=4).map(lambda t: MARK + t),
)
dirty = st.lists(st.lists(cell, min_size=1, max_size=4).map(",".join), max_size=10).map("\n".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dirty, st.sampled_from(["utf-8", "cp1252"]))
def test_read_is_published_and_rejected_and_no_value_comes_out(tmp_path: Path, text: str, encoding: str) -> None:
    totals, kept = publish_bytes(HEADER + text.encode(encoding, errors="replace"), tmp_path)
    assert totals.read == totals.published + totals.rejected
    assert totals.published == len(kept.rows)
    assert len({line for line, _, _ in rejects_of(totals)}) == totals.rejected
    assert MARK not in repr(rejects_of(totals)) + repr(totals.as_json())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(sorted(READERS)))
def test_any_bytes_as_a_file_end_in_totals_or_a_clear_error(tmp_path: Path, data: bytes, suffix: str) -> None:
    marked = MARK.encode() + data + b"," + MARK.encode()
    said = ""
    try:
        totals, _ = publish_bytes(marked, tmp_path, f"file{suffix}")
    except UnusableFileError as e:
        said = str(e)
    else:
        assert totals.read == totals.published + totals.rejected
        said = repr(rejects_of(totals))
    assert MARK not in said
