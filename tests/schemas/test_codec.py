"""The fast codec (Rust, Arrow) is held to the reference (fastavro), over every contract."""

from __future__ import annotations

import contextlib
import io
import math
from datetime import date
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import contracts
from schemas.codec import CodecError, arrow_schema, decode, decode_each, decode_older, encode
from schemas.contracts import Contract
from tests.examples import examples

NAMES = contracts.names()
some = settings(max_examples=examples(8), deadline=None, suppress_health_check=list(HealthCheck))
every_contract = pytest.mark.parametrize("contract", [contracts.contract(n) for n in NAMES], ids=NAMES)


def values(type_: Any) -> st.SearchStrategy[Any]:
    """Values of an Avro type, the edges of their ranges included."""
    if isinstance(type_, list):
        return st.one_of([values(t) for t in type_])
    if isinstance(type_, str):
        type_ = {"type": type_}
    match type_.get("logicalType", type_["type"]):
        case "null":
            return st.none()
        case "string":
            return st.text(max_size=12) | st.sampled_from(["", "\x00", "Zoë Ní Bhríain", "𝔘" * 40, "a|b"])
        case "boolean":
            return st.booleans()
        case "int":
            return st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, -1, 63, 64, -(2**31), 2**31 - 1])
        case "long":
            return st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1])
        case "double":
            return st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, math.inf, 5e-324])
        case "date":
            return st.dates() | st.sampled_from([date.min, date(1969, 12, 31), date(1970, 1, 1), date.max])
        case "enum":
            return st.sampled_from(type_["symbols"])
        case "array":
            return st.lists(values(type_["items"]), max_size=3)
        case "record":
            return st.fixed_dictionaries({f["name"]: values(f["type"]) for f in type_["fields"]})
    raise AssertionError(f"no strategy for {type_['type']}")


def rows_of(contract: Contract) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(values(contract.json), min_size=1, max_size=6)


def by_reference(contract: Contract, row: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, contract.parsed, row)
    return out.getvalue()


def read_by_reference(contract: Contract, body: bytes) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(body), contract.parsed, None)


def batch_of(contract: Contract, rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=arrow_schema(contract))


@every_contract
@some
@given(data=st.data())
def test_both_codecs_write_the_same_bytes_and_read_the_same_rows(contract: Contract, data: st.DataObject) -> None:
    rows = data.draw(rows_of(contract))
    bodies = [by_reference(contract, row) for row in rows]
    assert encode(batch_of(contract, rows), contract) == bodies
    assert decode(bodies, contract).to_pylist() == rows
    assert [read_by_reference(contract, b) for b in bodies] == rows
    each = decode_each(bodies, contract)
    assert (each.good, each.bad) == (list(range(len(rows))), [])
    assert each.batch.to_pylist() == rows


@st.composite
def damaged(draw: st.DrawFn, bodies: list[bytes]) -> list[bytes]:
    """Each body as it is, or with a byte changed, cut short, with bytes after it, or as noise."""
    out = []
    for body in bodies:
        how = draw(st.sampled_from(["none", "flip", "cut", "more", "noise"]))
        if how == "flip" and body:
            at = draw(st.integers(0, len(body) - 1))
            body = body[:at] + bytes([draw(st.integers(0, 255))]) + body[at + 1 :]
        elif how == "cut" and body:
            body = body[: draw(st.integers(0, len(body) - 1))]
        elif how == "more":
            body = body + draw(st.binary(min_size=1, max_size=4))
        elif how == "noise":
            body = draw(st.binary(max_size=40))
        out.append(body)
    return out


@every_contract
@some
@given(data=st.data())
def test_damaged_bodies_are_refused_one_by_one_and_raise_nothing_but_codec_errors(
    contract: Contract, data: st.DataObject
) -> None:
    rows = data.draw(rows_of(contract))
    bodies = data.draw(damaged([by_reference(contract, row) for row in rows]))
    each = decode_each(bodies, contract)
    assert sorted(each.good + each.bad) == list(range(len(bodies)))
    assert each.good == sorted(each.good)
    assert each.batch.num_rows == len(each.good)
    assert each.batch.schema == arrow_schema(contract)
    for row, index in zip(each.batch.to_pylist(), each.good, strict=True):
        assert same(row, read_by_reference(contract, bodies[index]))
    with contextlib.suppress(CodecError):
        decode(bodies, contract)


def same(left: Any, right: Any) -> bool:
    """Equal, where not-a-number equals itself."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)


@every_contract
@some
@given(data=st.data())
def test_bytes_after_a_body_make_it_bad(contract: Contract, data: st.DataObject) -> None:
    rows = data.draw(rows_of(contract))
    bodies = [by_reference(contract, row) for row in rows]
    which = data.draw(st.integers(0, len(rows) - 1))
    bodies[which] += data.draw(st.binary(min_size=1, max_size=4))
    each = decode_each(bodies, contract)
    assert each.bad == [which]
    assert each.batch.to_pylist() == rows[:which] + rows[which + 1 :]


@every_contract
@some
@given(data=st.data())
def test_an_older_writers_rows_are_read_as_the_contract(contract: Contract, data: st.DataObject) -> None:
    """A writer that did not have the optional fields yet: they are read as their defaults."""
    required = {f["name"] for f in contract.json["fields"] if "default" not in f}
    older = {**contract.json, "fields": [f for f in contract.json["fields"] if f["name"] in required]}
    writer = fastavro.parse_schema(older)
    rows = data.draw(st.lists(values(older), min_size=1, max_size=4))
    bodies = []
    for row in rows:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, writer, row)
        bodies.append(out.getvalue())
    got = decode_older([*bodies, bodies[0] + b"\x00"], writer, contract)
    assert (got.good, got.bad) == (list(range(len(rows))), [len(rows)])
    defaults = {f["name"]: f["default"] for f in contract.json["fields"] if "default" in f}
    assert got.batch.to_pylist() == [{**defaults, **row} for row in rows]


@every_contract
def test_no_rows_are_no_bodies(contract: Contract) -> None:
    assert encode(batch_of(contract, []), contract) == []
    each = decode_each([], contract)
    assert (each.good, each.bad, each.batch.num_rows) == ([], [], 0)


def test_rows_that_do_not_fit_are_refused_without_a_word_of_their_values() -> None:
    contract = contracts.contract("identified/dfe.exclusion")
    row = {
        "UPN": "A1",
        "record_id": "r1",
        "PeriodEnd": None,
        "EXC_TotalFixedExclusions": 1,
        "PermanentExclusionCount": None,
    }
    good = batch_of(contract, [row])
    assert len(encode(good, contract)) == 1
    with pytest.raises(CodecError, match="columns are missing: record_id"):
        encode(good.drop_columns(["record_id"]), contract)
    with pytest.raises(CodecError, match="UPN has no null"):
        encode(good.set_column(0, "UPN", pa.array([None], pa.string())), contract)
    with pytest.raises(CodecError, match="EXC_TotalFixedExclusions is not of the schema's type") as failed:
        encode(good.set_column(3, "EXC_TotalFixedExclusions", pa.array(["secret"])), contract)
    assert "secret" not in str(failed.value)


def test_a_symbol_outside_its_enum_is_refused() -> None:
    contract = contracts.contract("identified/council.safeguarding")
    row = dict.fromkeys(arrow_schema(contract).names)
    row |= {"person_id": "p", "record_id": "r", "episode": "SECRET"}
    with pytest.raises(CodecError) as failed:
        encode(batch_of(contract, [row]), contract)
    assert "SECRET" not in str(failed.value)
