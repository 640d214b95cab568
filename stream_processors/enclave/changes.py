"""From a batch of the topic to what changes in the tables: pure, and the last value of each key holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from fastavro.schema import to_parsing_canonical_form

from schemas import wire
from schemas.codec import CodecError, Decoded, arrow_schema, decode, decode_each, decode_older
from schemas.registry import SchemaIds, UnknownSchemaError
from stream_processors.enclave.tables import KEY, RESEARCH
from stream_processors.runtime.records import HEARTBEAT_KEY

TOPIC = "research.person"


@dataclass(frozen=True)
class Refused:
    """A record that the enclave does not take: where it lies, and the class of its fault."""

    partition: int
    offset: int
    error: str


@dataclass(frozen=True)
class Changes:
    """`upserts`: one decoded record per person. `gone`: persons to delete, among them those whose record was
    refused, so that no older version of it stays (ADR 5)."""

    upserts: pa.RecordBatch
    gone: list[str]
    refused: list[Refused]
    tombstones: int


Place = tuple[int, int]
"""Partition and offset of a record."""


class Versions:
    """Which versions of the contract records were written with. An enclave's code may be older or newer than
    `publish`: the contract is FULL_TRANSITIVE, so either reads the other's records."""

    def __init__(self, schema_ids: SchemaIds) -> None:
        self._ids = schema_ids
        self._own = to_parsing_canonical_form(RESEARCH.parsed)
        self._same: dict[int, bool] = {}

    def same(self, id_: int) -> bool:
        """Whether bodies under the id are encoded as this code's contract has it.

        Raises:
            UnknownSchemaError: the registry has no such schema.
        """
        if id_ not in self._same:
            self._same[id_] = to_parsing_canonical_form(self._ids.writer(id_)) == self._own
        return self._same[id_]

    def read(self, id_: int, bodies: list[bytes]) -> Decoded:
        """Bodies under one id as records of this code's contract.

        Raises:
            UnknownSchemaError: the registry has no such schema.
        """
        if not self.same(id_):
            return decode_older(bodies, self._ids.writer(id_), RESEARCH)
        try:
            return Decoded(decode(bodies, RESEARCH), list(range(len(bodies))), [])
        except CodecError:
            return decode_each(bodies, RESEARCH)


def changes(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], places: Sequence[Place], versions: Versions
) -> Changes:
    """Records in log order (each partition's) to changes. A person has one partition, so its last record is known.

    Args:
        keys: person ids; heartbeats are passed over.
        values: framed research records; None deletes.
        places: partition and offset of each.
        versions: reads a record of another version as this code's.
    """
    last: dict[bytes, int] = {}
    refused: list[Refused] = []
    for row, key in enumerate(keys):
        if key is None:
            refused.append(Refused(*places[row], "NullKey"))
        elif key != HEARTBEAT_KEY:
            last[key] = row
    gone = [key for key, row in last.items() if values[row] is None]
    tombstones = len(gone)
    framed: dict[bytes, list[int]] = {}
    for row in last.values():
        value = values[row]
        if value is not None:
            framed.setdefault(value[: wire.HEADER_BYTES], []).append(row)
    batches: list[pa.RecordBatch] = []
    for head, rows in framed.items():
        batch, good, faults = _decoded(head, [(values[r] or b"")[wire.HEADER_BYTES :] for r in rows], versions)
        taken = [rows[i] for i in good]
        faults = {rows[i]: error for i, error in faults.items()}
        batch, mismatched = _held_to_key(batch, [keys[r] or b"" for r in taken])
        faults |= {taken[i]: "KeyMismatch" for i in mismatched}
        refused += [Refused(*places[row], error) for row, error in faults.items()]
        gone += [key for row in faults if (key := keys[row]) is not None]
        if batch.num_rows:
            batches.append(batch)
    return Changes(_one(batches), [k.decode("ascii", "replace") for k in gone], refused, tombstones)


def _decoded(head: bytes, bodies: list[bytes], versions: Versions) -> tuple[pa.RecordBatch, list[int], dict[int, str]]:
    """Rows of bodies under one header, which of them were read, and the faults of the others."""
    every = range(len(bodies))
    try:
        found = versions.read(wire.schema_id(head), bodies)
    except wire.WireError:
        return _one([]), [], dict.fromkeys(every, "BadMagicByte")
    except UnknownSchemaError:
        return _one([]), [], dict.fromkeys(every, "UnknownSchemaId")
    return found.batch, found.good, dict.fromkeys(found.bad, "Undecodable")


def _held_to_key(batch: pa.RecordBatch, keys: list[bytes]) -> tuple[pa.RecordBatch, list[int]]:
    """Rows whose person is their key's, and the positions of the others."""
    same = pc.equal(batch.column(KEY).cast(pa.binary()), pa.array(keys, pa.binary()))
    if pc.all(same).as_py() is not False:
        return batch, []
    return batch.filter(same), [i for i, ok in enumerate(same.to_pylist()) if not ok]


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    found = pa.Table.from_batches(batches, schema=arrow_schema(RESEARCH)).combine_chunks().to_batches()
    return found[0] if found else pa.RecordBatch.from_pylist([], schema=arrow_schema(RESEARCH))
