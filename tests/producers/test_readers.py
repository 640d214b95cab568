from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers import csv_files, readers
from producers.header import UnusableFileError
from producers.lines import MAX_LINE_BYTES, blocks, count_lines, text_lines
from tests.producers.support import PERSON, Read, read

HEADER = b"subject_id,surname,sex\n"


def cells(found: Read) -> list[tuple[int, list[str | None]]]:
    return [(line, list(row.values())) for line, row in found.rows]


def test_header_is_matched_without_case_space_or_parting() -> None:
    found = read(b" Subject-ID ,SURNAME,Date of Birth\na,b,c\n")
    assert found.rows == [(2, {"subject_id": "a", "surname": "b", "date_of_birth": "c"})]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_the_one_that_the_header_uses(delimiter: str) -> None:
    text = f"subject_id{delimiter}surname\na{delimiter}b\n"
    assert cells(read(text.encode())) == [(2, ["a", "b"])]


def test_line_ends_may_be_mixed_and_blank_lines_are_no_rows() -> None:
    found = read(b"subject_id,surname\r\na,1\rb,2\n\n\r\nc,3\r\nd,4")
    assert cells(found) == [(2, ["a", "1"]), (3, ["b", "2"]), (6, ["c", "3"]), (7, ["d", "4"])]


def test_quoted_line_ends_belong_to_the_cell_and_lines_stay_physical() -> None:
    found = read(b'subject_id,surname\na,"x\r\ny"\nb,"""q"""\n')
    assert cells(found) == [(2, ["a", "x\r\ny"]), (4, ["b", '"q"'])]


def test_byte_order_mark_is_taken() -> None:
    assert cells(read(b"\xef\xbb\xbf" + HEADER + b"a,b,F\n")) == [(2, ["a", "b", "F"])]


def test_windows_1252_is_told_line_by_line() -> None:
    found = read(HEADER + "a,Zoë,F\n".encode("cp1252") + "b,Zoë,F\n".encode())
    assert cells(found) == [(2, ["a", "Zoë", "F"]), (3, ["b", "Zoë", "F"])]
    assert found.recoded == 1


def test_wrong_number_of_cells_costs_its_row() -> None:
    found = read(HEADER + b"a,b,F\na,b\na,b,F,x\nc,d,M\n")
    assert [line for line, _ in found.rows] == [2, 5]
    assert [b.line for b in found.broken] == [3, 4]


def test_a_file_cut_off_in_a_quote_gives_what_stands_before() -> None:
    found = read(HEADER + b'a,b,F\nb,"cut of')
    assert [line for line, _ in found.rows] == [2]
    assert [b.line for b in found.broken] == [3]


def test_a_stray_quote_costs_its_own_line_only() -> None:
    found = read(HEADER + b'a,b,F\nb,"stray,F\nc,d,F\nd,"stray,M\ne,f,M\n')
    assert [line for line, _ in found.rows] == [2, 4, 6]
    assert [b.line for b in found.broken] == [3, 5]


def test_an_endless_line_costs_its_row_and_little_memory() -> None:
    found = read(HEADER + b"a,b,F\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\nc,d,M\n")
    assert [line for line, _ in found.rows] == [2, 4]
    assert [b.line for b in found.broken] == [3]


def test_an_endless_row_of_quoted_line_ends_is_bounded() -> None:
    found = read(HEADER + b"a,b,F\n" + b'"x\n",' * 2_000_000 + b"\nc,d,M\n")
    assert found.rows[0][0] == 2
    assert found.rows[-1][0] == 2_000_000 + 4
    assert found.broken[0].line == 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"Smith,Mary,1999-01-01\n", "no column is known"),
        (b"subject_id,shoe_size\n", "unknown column: shoe_size"),
        (b"subject_id,\n", "column 2"),
        (b"surname,sex\n", "required column is missing: subject_id"),
        (b"subject_id,surname,Surname\n", "comes twice: surname"),
        (b"x" * (2 * MAX_LINE_BYTES), "too long for a header"),
        (b'"subject_id,surname\n', "no column is known"),
    ],
)
def test_a_header_that_does_not_fit_stops_the_file(data: bytes, says: str) -> None:
    with pytest.raises(UnusableFileError, match=says):
        read(data)


def test_a_file_without_header_does_not_show_its_first_row() -> None:
    with pytest.raises(UnusableFileError) as e:
        read(b"A123,Smith,F\n")
    assert "Smith" not in str(e.value)


def test_json_lines() -> None:
    found = read(b'{"Subject_ID": "a", "sex": null, "surname": "b"}\n\n{"subject_id": 7, "surname": true}\n', ".jsonl")
    assert found.rows == [
        (1, {"subject_id": "a", "surname": "b"}),
        (3, {"subject_id": "7", "surname": "true"}),
    ]


@pytest.mark.parametrize(
    "line",
    [
        '{"subject_id": "b", "surn',
        '{"subject_id": "b", "surname": ["x"]}',
        '{"subject_id": "b", "surname": {"x": 1}}',
        '{"subject_id": "b", "surname": NaN}',
        '{"subject_id": "b", "Subject_id": "c"}',
        '{"subject_id": "\\ud800"}',
        '["b"]',
        "7",
        "[" * 100_000,
        '{"subject_id": "b"} x',
    ],
)
def test_a_json_line_that_is_no_row_costs_itself(line: str) -> None:
    found = read(b'{"subject_id": "a"}\n' + line.encode() + b'\n{"subject_id": "c"}', ".ndjson")
    assert [n for n, _ in found.rows] == [1, 3]
    assert [b.line for b in found.broken] == [2]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'[\n{"subject_id": "a"}\n]', "one JSON list"),
        (b'{"name": "a"}', "no column is known"),
        (b'{"subject_id": "a"}\n{"subject_id": "b", "shoe": 1}', "unknown column: shoe"),
    ],
)
def test_json_that_does_not_fit_stops_the_file(data: bytes, says: str) -> None:
    with pytest.raises(UnusableFileError, match=says):
        read(data, ".json")


def avro(rows: list[dict[str, Any]], schema: Any = None, codec: str = "null") -> bytes:
    out = io.BytesIO()
    fastavro.writer(out, schema or PERSON.parsed, rows, codec=codec, sync_interval=200)
    return out.getvalue()


ROWS = [{"subject_id": f"s{i}", "surname": "Smith" * 5} for i in range(100)]


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_avro(codec: str) -> None:
    found = read(avro(ROWS, codec=codec), ".avro")
    assert found.rows == [(i + 1, row) for i, row in enumerate(ROWS)]


@pytest.mark.parametrize("codec", ["null", "deflate"])
@pytest.mark.parametrize("share", [0.6, 0.8, 0.99])
def test_avro_cut_off_gives_what_stands_before(codec: str, share: float) -> None:
    whole = avro(ROWS, codec=codec)
    found = read(whole[: int(len(whole) * share)], ".avro")
    assert found.rows == [(i + 1, row) for i, row in enumerate(ROWS[: len(found.rows)])]
    assert [b.line for b in found.broken] == [len(found.rows) + 1]


def test_avro_of_lists_is_refused() -> None:
    schema = {
        "type": "record",
        "name": "P",
        "fields": [
            {"name": "subject_id", "type": "string"},
            {"name": "surname", "type": {"type": "array", "items": "null"}},
        ],
    }
    with pytest.raises(UnusableFileError, match="surname is not a single value"):
        read(avro([{"subject_id": "a", "surname": [None]}], schema), ".avro")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("f.csv", b"", "is empty"),
        ("f.csv.gz", b"\x1f\x8b\x08", "is gzip"),
        ("f.csv", b"\x1f\x8b\x08", "is gzip"),
        ("f.xlsx", b"PK\x03\x04", "Excel"),
        ("f.parquet", b"PAR1", "Parquet"),
        ("f.txt", b"subject_id\n", "taken are .csv"),
        ("f.csv", "subject_id\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnusableFileError, match=says):
        readers.check(tmp_path / name)


def test_no_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UnusableFileError, match="no such file"):
        readers.check(tmp_path / "no.csv")
    with pytest.raises(UnusableFileError, match=r"no such file|not a path"):
        readers.check(Path("a\0b.csv"))
    with pytest.raises(UnusableFileError, match="cannot be read"):
        readers.check(tmp_path / ("x" * 5000))
    with pytest.raises(UnusableFileError, match="is a directory"):
        readers.check(tmp_path)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 20))
def test_blocks_are_the_lines_whatever_their_size(data: bytes, size: int) -> None:
    whole, _ = text_lines(data.removeprefix(b"\xef\xbb\xbf"))
    found, number = [], 1
    for block in blocks(io.BytesIO(data), size):
        assert block.first == number
        lines, _ = text_lines(block.data)
        assert count_lines(block.data) == len(lines)
        number += len(lines)
        found += lines
    assert found == whole


csv_text = st.lists(
    st.sampled_from(["a", "Zoë", ",", '"', '""', "\n", "\r\n", "\r", " ", "", "\0", "x,y,z\n", '"q",', "\n\n"]),
    max_size=60,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(csv_text, st.integers(1, 40))
def test_the_fast_way_the_careful_way_and_any_block_size_give_the_same(text: str, size: int) -> None:
    data = HEADER + text.encode()
    fast = read(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "blocks", functools.partial(blocks, block_bytes=size))
        small = read(data)
        patch.setattr(csv_files, "_plain_rows", lambda *_: None)
        careful = read(data)
    assert fast == small == careful


def read_or_refused(data: bytes, suffix: str) -> Read:
    """Any other error than that of an unusable file fails the test."""
    try:
        return read(data, suffix)
    except UnusableFileError:
        return Read([], [], 0)


@settings(deadline=None)
@given(st.sampled_from(sorted(readers.READERS)), st.binary(max_size=300), st.booleans())
def test_any_bytes_end_in_rows_or_in_a_clear_error(suffix: str, data: bytes, with_start: bool) -> None:
    start = {".csv": HEADER, ".avro": avro(ROWS[:3])}.get(suffix, b'{"subject_id": "a"}\n')
    found = read_or_refused((start if with_start else b"") + data, suffix)
    assert all(b.line >= 1 and b.reason for b in found.broken)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(["null", "deflate"]))
def test_a_damaged_avro_file_ends_in_rows_or_in_a_clear_error(place: int, byte: int, codec: str) -> None:
    data = bytearray(avro(ROWS[:20], codec=codec))
    data[place % len(data)] = byte
    found = read_or_refused(bytes(data), ".avro")
    assert all(b.line >= 1 and b.reason for b in found.broken)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["subject_id", "surname"]), st.text(max_size=5)), max_size=5))
def test_what_is_written_as_json_is_read(rows: list[dict[str, str]]) -> None:
    data = "\n".join(json.dumps(r) for r in [{"subject_id": "a"}, *rows])
    assert [row for _, row in read(data.encode(), ".jsonl").rows[1:]] == rows
