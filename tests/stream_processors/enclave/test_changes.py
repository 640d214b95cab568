"""From records to changes: the last of a key holds, and what cannot be taken takes the older version back."""

from __future__ import annotations

import copy
import io
import json
import random
from typing import Any

import fastavro
import pytest

from schemas import wire
from schemas.contracts import Contract
from schemas.registry import StaticRegistry
from stream_processors.enclave.changes import TOPIC, Versions, changes
from stream_processors.runtime.records import HEARTBEAT_KEY
from tests.stream_processors.enclave.support import RESEARCH, VERSIONS, framed, ordered, person_id, record
from tests.stream_processors.tables import REGISTRY

A, B = person_id(1), person_id(2)


def of(*records: tuple[bytes | None, bytes | None], versions: Versions = VERSIONS) -> Any:
    places = [(0, 10 + i) for i in range(len(records))]
    return changes([k for k, _ in records], [v for _, v in records], places, versions)


def new(person: str, seed: int = 1) -> dict[str, Any]:
    return record(random.Random(seed), person)


def test_the_last_record_of_a_person_holds() -> None:
    first, last = new(A, 1), new(A, 2)
    found = of((A.encode(), framed(first)), (A.encode(), framed(last)))
    assert [ordered(r) for r in found.upserts.to_pylist()] == [ordered(last)]
    assert (found.gone, found.refused) == ([], [])
    found = of((A.encode(), framed(first)), (A.encode(), None))
    assert (found.upserts.num_rows, found.gone, found.tombstones) == (0, [A], 1)
    found = of((A.encode(), None), (A.encode(), framed(first)))
    assert (found.upserts.num_rows, found.gone) == (1, [])


def test_a_heartbeat_changes_nothing() -> None:
    found = of((HEARTBEAT_KEY, None))
    assert (found.upserts.num_rows, found.gone, found.tombstones, found.refused) == (0, [], 0, [])


BODY = framed(new(A))[wire.HEADER_BYTES :]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"", "BadMagicByte"),
        (b"\x01\x00\x00\x00\x01" + BODY, "BadMagicByte"),
        (b"\x00\x7f\xff\xff\xff" + BODY, "UnknownSchemaId"),
        (wire.header(REGISTRY.schema_id(TOPIC)) + BODY[:-1], "Undecodable"),
        (framed(new(B)), "KeyMismatch"),
    ],
)
def test_a_record_that_cannot_be_taken_is_refused_and_its_person_goes(value: bytes, error: str) -> None:
    other = new(B, 3)
    found = of((B.encode(), framed(other)), (A.encode(), value))
    assert [(r.partition, r.offset, r.error) for r in found.refused] == [(0, 11, error)]
    assert found.gone == [A]
    assert [ordered(r) for r in found.upserts.to_pylist()] == [ordered(other)]


def test_a_record_without_a_key_is_refused() -> None:
    found = of((None, framed(new(A))))
    assert ([r.error for r in found.refused], found.gone, found.upserts.num_rows) == (["NullKey"], [], 0)


@pytest.mark.parametrize("newer", [True, False])
def test_a_record_of_another_version_is_read_as_this_codes(newer: bool) -> None:
    schema = copy.deepcopy(RESEARCH.json)
    row = new(A)
    if newer:
        schema["fields"].append({"name": "added", "type": ["null", "string"], "default": None})
    else:
        schema["fields"] = [f for f in schema["fields"] if f["name"] != "sex"]
        row["sex"] = None
    registry = StaticRegistry()
    other = Contract("research/person", json.dumps(schema))
    id_ = registry.register("research.other", other)
    body = BODY + b"\x00" if newer else None
    if body is None:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, other.parsed, row)
        body = out.getvalue()
    found = of((A.encode(), wire.frame(id_, [body])[0]), versions=Versions(registry))
    assert found.refused == []
    assert [ordered(r) for r in found.upserts.to_pylist()] == [ordered(row)]
