"""What a batch of the identified zone says, as far as it can be read: for who looks through what was read before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

import polars as pl

from schemas import wire
from schemas.codec import decode_each, decode_older
from schemas.contracts import Contract
from schemas.registry import SchemaIds, UnknownSchemaError
from stream_processors.arrow import one_batch
from stream_processors.retention_policy import RetentionPolicy, expires_on
from stream_processors.runtime.records import Inputs


def contents(batch: Inputs, contract: Contract, ids: SchemaIds) -> Iterator[tuple[list[int], pl.DataFrame]]:
    """Rows of a batch of the identified zone that can be decoded, with their content; others are passed over."""
    framed: dict[int, list[int]] = {}
    for row, value in enumerate(batch.values):
        if value:
            try:
                framed.setdefault(wire.schema_id(value), []).append(row)
            except wire.WireError:
                continue
    for id_, rows in framed.items():
        bodies = [(batch.values[r] or b"")[wire.HEADER_BYTES :] for r in rows]
        try:
            if id_ == ids.schema_id(batch.topic):
                found = decode_each(bodies, contract)
            else:
                found = decode_older(bodies, ids.writer(id_), contract)
        except UnknownSchemaError:
            continue
        if found.good:
            yield [rows[i] for i in found.good], pl.DataFrame(one_batch(found.batch))


def held_until(
    policy: RetentionPolicy, batch: Inputs, contract: Contract, ids: SchemaIds, rows: Sequence[int]
) -> dict[int, date]:
    """First day on which each row of a supplier's topic may no longer be held. One that nobody can read is held until
    the hard stop."""
    until: dict[int, date] = dict.fromkeys(rows, policy.hard_stop)
    for found, frame in contents(batch.only(rows), contract, ids):
        of = [rows[i] for i in found]
        until.update(zip(of, frame.select(expires_on(policy, contract, received(batch, of))).to_series(), strict=True))
    return until


def received(batch: Inputs, rows: Sequence[int]) -> pl.Series:
    """The day on which the broker took each row (Date)."""
    return pl.Series([batch.times[row] for row in rows], dtype=pl.Int64).cast(pl.Datetime("ms")).dt.date()
