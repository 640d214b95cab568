"""What the topics of the linkage zone hold, as frames of keys, places and what reconciliation may know: envelopes,
outcomes, references and hashes. No token, no attribute and no value is decoded.

Every frame has `key` (String), `partition` (Int32), `offset` (Int64): the last live record of each key and partition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from schemas import contracts, wire
from schemas.codec import decode
from stream_processors import unmatched
from stream_processors.envelope import envelope
from stream_processors.runtime.account import publication_of, record_hashes
from stream_processors.runtime.records import HEARTBEAT_KEY

_LINK = contracts.contract("linkage/link")
_CHUNK = 20_000
_HOME_BYTES = 2


class Record(NamedTuple):
    """One record of a topic, wherever it was read from. `time`: the broker's, ms since 1970."""

    partition: int
    offset: int
    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] | None = None
    time: int = 0


Source = Callable[[str], Iterable[Record]]
"""Records of a topic from the beginning, each partition in order; nothing for a topic that is not there."""
Columns = Mapping[str, pl.Series]
Reading = Callable[[str, Sequence[Record]], Columns]
"""What is known of live records, besides keys and places."""


@dataclass(frozen=True)
class Held:
    """Everything that reconciliation looks at, read once. `tables` by topic."""

    tables: Mapping[str, pl.DataFrame]

    def __getitem__(self, topic: str) -> pl.DataFrame:
        return self.tables[topic]


def held(source: Source) -> Held:
    """Read what there is to read."""
    return Held({topic: live(source, topic, reading) for topic, reading in READINGS.items()})


def live(source: Source, topic: str, reading: Reading) -> pl.DataFrame:
    """The live records of a topic, with what its reading makes of them. Chunk by chunk: values are not kept."""
    parts = [_frame(chunk, reading(topic, chunk)) for chunk in _chunks(source(topic))]
    if not parts:
        return _frame([], reading(topic, []))
    whole = pl.concat(parts, how="vertical_relaxed")
    last = whole.unique(["partition", "key"], keep="last", maintain_order=True)
    return last.filter(~pl.col("gone")).drop("gone")


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        if record.key != HEARTBEAT_KEY:
            chunk.append(record)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _frame(records: Sequence[Record], columns: Columns) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "key": pl.Series([r.key.decode(errors="replace") for r in records], dtype=pl.String),
            "partition": pl.Series([r.partition for r in records], dtype=pl.Int32),
            "offset": pl.Series([r.offset for r in records], dtype=pl.Int64),
            "gone": pl.Series([r.value is None for r in records], dtype=pl.Boolean),
            **columns,
        }
    )


def _bodies(values: Iterable[bytes | None]) -> pl.Series:
    """A number for each body, without the schema's id before it."""
    found = [v[wire.HEADER_BYTES :] if v is not None else None for v in values]
    return pl.Series(record_hashes([b""] * len(found), found), dtype=pl.UInt64)


def _enveloped(topic: str, records: Sequence[Record]) -> Columns:
    found = [envelope(topic, r.value) if r.value is not None else None for r in records]
    return {
        "supplier": pl.Series([e and e.supplier for e in found], dtype=pl.String),
        "dataset": pl.Series([e and e.dataset for e in found], dtype=pl.String),
        "expires_on": pl.Series([e and e.expires_on for e in found], dtype=pl.Int64),
        "batch": pl.Series([publication_of(r.headers).hex() for r in records], dtype=pl.String),
        "body": _bodies(r.value for r in records),
    }


def _nothing(topic: str, records: Sequence[Record]) -> Columns:  # noqa: ARG001
    return {}


def _links(topic: str, records: Sequence[Record]) -> Columns:  # noqa: ARG001
    at = [i for i, r in enumerate(records) if r.value is not None]
    decoded = decode([(records[i].value or b"")[wire.HEADER_BYTES :] for i in at], _LINK) if at else None
    out: dict[str, pl.Series] = {"body": _bodies(r.value for r in records)}
    for name in ("supplier", "role", "outcome", "person_ref", "match_key"):
        column: list[str | None] = [None] * len(records)
        if decoded is not None:
            for i, value in zip(at, decoded.column(name).to_pylist(), strict=True):
                column[i] = value
        out[name] = pl.Series(column, dtype=pl.String)
    for name in ("epoch", "leading"):
        numbers: list[int | None] = [None] * len(records)
        if decoded is not None:
            for i, number in zip(at, decoded.column(name).to_pylist(), strict=True):
                numbers[i] = number
        out[name] = pl.Series(numbers, dtype=pl.Int64)
    return out


def _said_links(topic: str, records: Sequence[Record]) -> Columns:  # noqa: ARG001
    """`state.link`: block|subject to the subject's partition and the link."""
    return {
        "home": pl.Series([int.from_bytes((r.value or b"")[:_HOME_BYTES], "big") for r in records], dtype=pl.Int32),
        "body": _bodies(r.value[_HOME_BYTES:] if r.value is not None else None for r in records),
    }


def _said_blocks(topic: str, records: Sequence[Record]) -> Columns:  # noqa: ARG001
    """`state.route`: subject to its blocks, each with a digest."""
    blocks = [[part.partition("=")[0] for part in (r.value or b"").decode().split(",") if part] for r in records]
    return {"blocks": pl.Series(blocks, dtype=pl.List(pl.String))}


def _said_persons(topic: str, records: Sequence[Record]) -> Columns:  # noqa: ARG001
    """`state.join`: activity to the person that it is attached to; null for the rows of linkage windows."""
    persons = [r.value.decode() if r.value and not r.key.startswith(unmatched.RESERVED) else None for r in records]
    return {"person": pl.Series(persons, dtype=pl.String)}


def _said_digests(topic: str, records: Sequence[Record]) -> Columns:  # noqa: ARG001
    """`state.publish`: person to a digest of what was published."""
    return {"digest": pl.Series([r.value.hex() if r.value else None for r in records], dtype=pl.String)}


def _digests(topic: str, records: Sequence[Record]) -> Columns:  # noqa: ARG001
    digests = [hashlib.blake2b(r.value or b"", digest_size=16).hexdigest() for r in records]
    return {"digest": pl.Series(digests, dtype=pl.String)}


READINGS: Mapping[str, Reading] = {
    "linkage.identity": _enveloped,
    "linkage.activity": _enveloped,
    "linkage.candidate": _nothing,
    "linkage.link": _links,
    "linkage.contribution": _enveloped,
    "research.person": _digests,
    "governance.quarantine": _nothing,
    "state.route": _said_blocks,
    "state.link": _said_links,
    "state.join": _said_persons,
    "state.publish": _said_digests,
}
