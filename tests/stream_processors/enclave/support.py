"""Random research records, a topic as lists, and the tables read back as records."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from schemas import contracts, wire
from schemas.codec import arrow_schema, encode
from stream_processors.enclave import tables
from stream_processors.enclave.changes import TOPIC, Versions, changes
from stream_processors.enclave.store import Store
from stream_processors.runtime.driver import Log
from tests.stream_processors.tables import REGISTRY

RESEARCH = contracts.contract("research/person")
VERSIONS = Versions(REGISTRY)
Row = dict[str, Any]


def person_id(n: int) -> str:
    """A pseudonym that does not compress away."""
    return f"{random.Random(n).getrandbits(128):032x}"


def record(rng: random.Random, person: str) -> Row:
    """A research record with something in every field now and then."""
    row = _value(rng, RESEARCH.json, "")
    assert isinstance(row, dict)
    return row | {"person_id": person, "family_id": rng.choice([None, f"{rng.getrandbits(128):032x}"])}


def _value(rng: random.Random, type_: Any, name: str) -> Any:
    if isinstance(type_, list):
        return None if rng.random() < 0.3 else _value(rng, next(t for t in type_ if t != "null"), name)
    kind = type_ if isinstance(type_, str) else type_.get("logicalType", type_["type"])
    match kind:
        case "record":
            return {f["name"]: _value(rng, f["type"], f["name"]) for f in type_["fields"]}
        case "array":
            return [_value(rng, type_["items"], name) for _ in range(rng.choice([0, 0, 1, 3]))]
        case "enum":
            return rng.choice(type_["symbols"])
        case "string":
            return f"E0{rng.randint(1_000_000, 1_999_999)}"
        case "boolean":
            return rng.random() < 0.5
        case "int" | "long":
            return rng.randint(0, 100)
        case "double":
            return rng.randint(0, 1000) / 8
        case "date":
            return date(rng.randint(2010, 2019), rng.randint(1, 12), 1)
    raise AssertionError(kind)


def framed(row: Mapping[str, Any]) -> bytes:
    """A record as a value of the topic."""
    return wire.frame(REGISTRY.schema_id(TOPIC), encode(batch([row]), RESEARCH))[0]


def batch(rows: Iterable[Mapping[str, Any]]) -> pa.RecordBatch:
    """Records as a decoded batch."""
    return pa.RecordBatch.from_pylist([dict(r) for r in rows], schema=arrow_schema(RESEARCH))


def take(store: Store, logs: list[Log], most: int) -> int:
    """Up to `most` records of each partition, as a sync takes them; how many there were."""
    found = [(p, r) for p, log in enumerate(logs) for r in log.read(store.position.offsets[p], most)]
    if found:
        places = [(p, r.offset) for p, r in found]
        new = changes([r.key for _, r in found], [r.value for _, r in found], places, VERSIONS)
        store.apply(new, {p: r.offset + 1 for p, r in found})
    return len(found)


def compacted(logs: list[Log], decode: Callable[[bytes], Row]) -> dict[str, Row]:
    """The topic as the table it stands for."""
    out: dict[str, Row] = {}
    for log in logs:
        for r in log.records:
            assert r.key is not None
            if r.value is None:
                out.pop(r.key.decode(), None)
            else:
                out[r.key.decode()] = decode(r.value)
    return out


def held(connection: duckdb.DuckDBPyConnection) -> dict[str, Row]:
    """The tables put together again to records, by person; items of an array in a fixed order."""
    out: dict[str, Row] = {}
    for table in tables.tables():
        names = [c.name for c in table.columns]
        columns = ", ".join(f'"{n}"' for n in names)
        for cells in connection.execute(f'SELECT {columns} FROM "{table.name}"').fetchall():
            row = dict(zip(names, cells, strict=True))
            if table.field is None:
                assert row["person_id"] not in out, "one row per person"
                out[row["person_id"]] = row | {t.field: [] for t in tables.tables() if t.field}
            else:
                out[row.pop("person_id")][table.field].append(row)
    return {person: ordered(row) for person, row in out.items()}


def ordered(row: Row) -> Row:
    """A record with the items of its arrays in a fixed order: tables have none."""
    return {k: sorted(v, key=repr) if isinstance(v, list) else v for k, v in row.items()}


def bytes_of(folder: Path) -> bytes:
    """Every byte of every file in a folder."""
    return b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())
