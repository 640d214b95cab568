"""Single records of low-rate topics: a row to a message value and back. Hot paths use batches (`codec`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from schemas import contracts, wire
from schemas.codec import CodecError, arrow_schema, decode_each, decode_older, encode
from schemas.contracts import Contract
from schemas.registry import SchemaIds


def to_value(topic: str, row: Mapping[str, Any], ids: SchemaIds) -> bytes:
    """A row by field as a value of the topic.

    Raises:
        CodecError: it does not fit the topic's contract.
    """
    contract = _contract(topic)
    try:
        batch = pa.RecordBatch.from_pylist([dict(row)], schema=arrow_schema(contract))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as e:
        raise CodecError(f"{contract.name}: a field is not of the schema's type ({type(e).__name__})") from None
    return wire.frame(ids.schema_id(topic), encode(batch, contract))[0]


def from_value(topic: str, value: bytes, ids: SchemaIds) -> dict[str, Any]:
    """The row of a value that anybody may have written, by any version of the topic's schema.

    Raises:
        WireError, CodecError, UnknownSchemaError: it is none.
    """
    contract = _contract(topic)
    id_, body = wire.schema_id(value), value[wire.HEADER_BYTES :]
    if id_ == ids.schema_id(topic):
        found = decode_each([body], contract)
    else:
        found = decode_older([body], ids.writer(id_), contract)
    if found.bad:
        raise CodecError(f"{contract.name}: does not fit the schema")
    row: dict[str, Any] = found.batch.to_pylist()[0]
    return row


def _contract(topic: str) -> Contract:
    contract = contracts.of_topic(topic)
    if contract is None:
        raise ValueError(f"{topic} has no contract")
    return contract
