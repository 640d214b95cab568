"""How Lethe handles a record of the linkage zone, read without what it says of anybody: supplier, dataset, expiry."""

from __future__ import annotations

import io
from functools import cache
from typing import Any, NamedTuple

import fastavro

from schemas import contracts, wire

_WANTED = ("supplier", "dataset", "expires_on")


class Envelope(NamedTuple):
    """`expires_on` in days since 1970-01-01; no dataset for an identity."""

    expires_on: int
    supplier: str
    dataset: str | None


@cache
def _head(topic: str) -> Any:
    """The schema up to the last wanted field. Avro bodies are fields in order, so what follows is never looked at."""
    schema = contracts.contract(topic.replace(".", "/")).json
    last = max(i for i, f in enumerate(schema["fields"]) if f["name"] in _WANTED)
    fields = [{"name": f["name"], "type": _plain(f["type"])} for f in schema["fields"][: last + 1]]
    return fastavro.parse_schema({"type": "record", "name": "lethe.Envelope", "fields": fields})


def _plain(type_: Any) -> Any:
    """A date as the number that it is."""
    return type_["type"] if isinstance(type_, dict) and type_.get("logicalType") == "date" else type_


def envelope(topic: str, value: bytes) -> Envelope:
    """The envelope of a value of `linkage.identity` or `linkage.activity`."""
    found: Any = fastavro.schemaless_reader(io.BytesIO(value[wire.HEADER_BYTES :]), _head(topic), None)
    return Envelope(found["expires_on"], found["supplier"], found.get("dataset"))
