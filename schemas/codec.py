"""Avro bodies to Arrow batches and back.

The fast way is pyruhvro (Rust), the reference is fastavro, and a property test over every contract holds one to the
other. Where the two could differ on hostile input (trailing bytes, integers out of range, a panic), fastavro decides.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas.contracts import Contract

_FIRST_DAY, _LAST_DAY = ((day - date(1970, 1, 1)).days for day in (date.min, date.max))


class CodecError(ValueError):
    """A body or a row that does not fit its schema. The message never holds a value."""


@dataclass(frozen=True)
class Decoded:
    """`batch` has one row for each index in `good`, in order; `bad` names the bodies that do not fit the schema."""

    batch: pa.RecordBatch
    good: list[int]
    bad: list[int]


@cache
def arrow_schema(contract: Contract) -> pa.Schema:
    """Columns of a contract: strings and enums as string, dates as date32, records as struct, arrays as list."""
    return _bare_schema(pyruhvro.avro_to_arrow_schema(contract.text))


def _bare_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([_bare_field(f) for f in schema])


def _bare_field(field: pa.Field) -> pa.Field:
    type_ = field.type
    if pa.types.is_struct(type_):
        type_ = pa.struct([_bare_field(type_.field(i)) for i in range(type_.num_fields)])
    elif pa.types.is_list(type_):
        type_ = pa.list_(_bare_field(type_.value_field))
    return pa.field(field.name, type_, field.nullable)


def decode(bodies: Sequence[bytes], contract: Contract) -> pa.RecordBatch:
    """Bodies written with this contract's schema, as one row each.

    For bodies of our own making: one bad body fails them all. See `decode_each` for those of others.

    Raises:
        CodecError: a body does not fit.
    """
    return _rust(bodies, contract)


def decode_each(bodies: Sequence[bytes], contract: Contract) -> Decoded:
    """Bodies of others: each is taken or refused on its own; what is taken encodes back to the same bytes.

    Bodies that Avro allows but that encode differently (an array in several blocks) are taken through fastavro.
    Strings that are not UTF-8 and dates beyond the years 1 to 9999 are bad.
    """
    good: list[int] = []
    bad: list[int] = []
    batches: list[pa.RecordBatch] = []

    # Not a function that calls itself: that would be a cycle of references, and keep every batch until a collection.
    parts = [(0, len(bodies))] if bodies else []
    while parts:
        low, high = parts.pop()
        part = bodies[low:high]
        try:
            batch = _rust(part, contract)
            same = encode(batch, contract)
        except CodecError:
            batch, same = None, None
        if same is not None and all(map(bytes.__eq__, same, part)):
            batches.append(batch)
            good.extend(range(low, high))
        elif high - low == 1:
            row = _careful(part[0], contract)
            if row is None:
                bad.append(low)
            else:
                batches.append(pa.RecordBatch.from_pylist([row], schema=arrow_schema(contract)))
                good.append(low)
        else:
            middle = (low + high) // 2
            parts += [(middle, high), (low, middle)]  # the lower half comes first
    table = pa.Table.from_batches(batches, schema=arrow_schema(contract)).combine_chunks()
    found = table.to_batches()
    return Decoded(found[0] if found else pa.RecordBatch.from_pylist([], schema=arrow_schema(contract)), good, bad)


def decode_older(bodies: Sequence[bytes], writer: Any, contract: Contract) -> Decoded:
    """Bodies written with another version of the contract (`writer`, parsed), read as this one: slow and right."""
    rows: list[dict[str, Any]] = []
    good: list[int] = []
    bad: list[int] = []
    for index, body in enumerate(bodies):
        row = _careful(body, contract, writer)
        if row is None:
            bad.append(index)
        else:
            good.append(index)
            rows.append(row)
    return Decoded(pa.RecordBatch.from_pylist(rows, schema=arrow_schema(contract)), good, bad)


def encode(batch: pa.RecordBatch, contract: Contract) -> list[bytes]:
    """One Avro body for each row. Column types as in `arrow_schema`; large and view strings are cast.

    Raises:
        CodecError: a column is missing, of another type, null where the schema has no null, or outside its enum.
    """
    fitted = _fit(batch, contract)
    arrays: list[pa.Array] = _guarded(lambda: pyruhvro.serialize_record_batch(fitted, contract.text, 1))
    return [body for array in arrays for body in array.to_pylist()]


def _fit(batch: pa.RecordBatch, contract: Contract) -> pa.RecordBatch:
    wanted = arrow_schema(contract)
    if batch.schema.names != wanted.names:
        missing = [n for n in wanted.names if n not in batch.schema.names]
        if missing:
            raise CodecError(f"{contract.name}: columns are missing: {', '.join(missing)}")
        batch = batch.select(wanted.names)
    columns = []
    for field, column in zip(wanted, batch.columns, strict=True):
        if column.null_count and not field.nullable:
            raise CodecError(f"{contract.name}: {field.name} has no null in the schema, and a null in the rows")
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as e:
            raise CodecError(f"{contract.name}: {field.name} is not of the schema's type") from e
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


def _rust(bodies: Sequence[bytes], contract: Contract) -> pa.RecordBatch:
    batch = _guarded(lambda: pyruhvro.deserialize_array(list(bodies), contract.text))
    _guarded(lambda: batch.validate(full=True))  # the Rust decoder takes strings that are not UTF-8
    if not all(map(_dates_fit, batch.columns)):
        raise CodecError("does not fit the schema (a date beyond the years 1 to 9999)")
    return pa.RecordBatch.from_arrays(batch.columns, schema=arrow_schema(contract))


def _dates_fit(column: pa.Array) -> bool:
    """Whether every date at every depth is one that Python, and so fastavro, can hold."""
    if pa.types.is_struct(column.type):
        return all(map(_dates_fit, column.flatten()))
    if pa.types.is_list(column.type):
        return _dates_fit(column.flatten())
    if not pa.types.is_date32(column.type) or column.null_count == len(column):
        return True
    found = pc.min_max(column.view(pa.int32()))
    return bool(found["min"].as_py() >= _FIRST_DAY and found["max"].as_py() <= _LAST_DAY)


def _guarded(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as e:  # a Rust panic is a BaseException; its text can hold a value
        raise CodecError(f"does not fit the schema ({type(e).__name__})") from None


def _careful(body: bytes, contract: Contract, writer: Any = None) -> dict[str, Any] | None:
    stream = io.BytesIO(body)
    try:
        row = fastavro.schemaless_reader(stream, writer or contract.parsed, contract.parsed if writer else None)
        if stream.read(1):
            return None
        check = pa.RecordBatch.from_pylist([row], schema=arrow_schema(contract))
    except Exception:  # fastavro raises IndexError, EOFError, struct.error, UnicodeDecodeError and more
        return None
    return row if check.num_rows == 1 else None
