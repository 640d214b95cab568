"""What `governance.quarantine` tells of records that failed: where each lies and the class of the error, and nothing of
what it says.

It is told of a key, not of a place: what fails again under the key takes the place of what failed before, and a
tombstone ends it, as in the supplier's quarantine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import polars_hash  # noqa: F401  (registers the chash namespace)

from schemas import contracts, wire
from schemas.codec import encode
from stream_processors.arrow import one_batch

TOPIC = "governance.quarantine"
TOLD = "lethe.errors.told"
"""Header of an entry in a supplier's quarantine: the key that governance is told of it under."""

_CONTRACT = contracts.contract("governance/quarantine")


@dataclass(frozen=True)
class Failed:
    """A record that failed: its offset, the class of the error, the field at fault."""

    offset: int
    error: str
    field: str | None = None


def told_key(topic: str, partition: int, key: bytes | None, offset: int) -> bytes:
    """`topic|partition|` and the SHA-256 of the record's key downstream, as the ledger names it (which keyed references
    are made of, so that nothing can be guessed); without a key, its offset."""
    return f"{topic}|{partition}|{offset if key is None else hashlib.sha256(key).hexdigest()}".encode()


def told_keys(topic: str, partition: pl.Expr, key: pl.Expr) -> pl.Expr:
    """The same of columns: partition (integer) and the key downstream (String), never null."""
    digest: pl.Expr = key.chash.sha2_256()  # type: ignore[attr-defined]
    return pl.format("{}|{}|{}", pl.lit(topic), partition, digest)


def told(supplier: str, topic: str, partition: int, failed: Sequence[Failed], schema_id: int) -> list[bytes]:
    """A value of `governance.quarantine` for each, on the wire."""
    rows = pl.DataFrame(
        {
            "supplier": [supplier] * len(failed),
            "topic": [topic] * len(failed),
            "partition": pl.Series([partition] * len(failed), dtype=pl.Int32),
            "offset": pl.Series([f.offset for f in failed], dtype=pl.Int64),
            "error": [f.error for f in failed],
            "field": pl.Series([f.field for f in failed], dtype=pl.String),
        }
    )
    return wire.frame(schema_id, encode(one_batch(rows), _CONTRACT))
