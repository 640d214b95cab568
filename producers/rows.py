"""The pure core: rows of text in; a batch that fits the contract out, with what was refused and lost.

A row is refused when it could not be told whose it is, or when a field that the contract wants is bad. A bad
value in a field that may be missing is published as missing and counted: nobody is lost over a postcode.
Reasons never hold a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from types import MappingProxyType

import polars as pl
import pyarrow as pa

from producers.fields import MAX_ROW_BYTES, MAX_VALUE_BYTES, REASON, Read, judge, read_field, read_key
from schemas.codec import arrow_schema
from schemas.contracts import Contract

Warnings = Counter[tuple[str, str]]
"""How often, by field and reason; field is `row` where it is about the row as a whole."""
WHOLE_ROW = "row"
_LINE = "=line"
REJECTS = pl.Schema({"line": pl.Int64, "field": pl.String, "reason": pl.String})


@dataclass(frozen=True)
class Converted:
    """Rows that may be published and rows that may not.

    batch: `arrow_schema(contract)`, one row for each that may.
    keys: message keys, in the order of `batch`; subjects: what the partition is computed from.
    rejects: `REJECTS`, a row for each bad field; rejected: how many input rows these are.
    """

    batch: pa.RecordBatch
    keys: pl.Series
    subjects: pl.Series
    rejects: pl.DataFrame
    rejected: int
    warnings: Warnings


def convert(cells: pl.DataFrame, lines: pl.Series, contract: Contract, today: date) -> Converted:
    """Text to what the contract says.

    Args:
        cells: text columns named as the contract's fields; a field without a column is missing in every row.
        lines: Int64, where each row stood.
        contract: of an identified topic.
        today: later dates are bad.

    Holds after: every row is in `batch` or in `rejects`, never in both.
    """
    absent = [pl.lit(None, pl.String).alias(f.name) for f in contract.fields if f.name not in cells.columns]
    whole = cells.with_columns(absent)
    frame = judge(whole, _reads(contract, today)).with_columns(
        whole.select(_length(contract)).to_series().alias(REASON + WHOLE_ROW), lines.alias(_LINE)
    )
    wanted = _wanted(contract)
    bad = pl.any_horizontal(pl.col(REASON + name).is_not_null() for name in (WHOLE_ROW, *wanted))
    if frame.select(bad.any()).item():
        refused = frame.filter(bad)
        kept = frame.filter(~bad)
    else:
        refused, kept = frame.clear(), frame
    rejects = pl.concat(
        [
            refused.filter(pl.col(REASON + name).is_not_null()).select(
                line=pl.col(_LINE), field=pl.lit(name), reason=pl.col(REASON + name)
            )
            for name in (WHOLE_ROW, *wanted)
        ]
    ).sort("line", maintain_order=True)
    keys = kept.select(_key(contract)).to_series()
    subjects = kept.get_column(contract.subject_field)
    return Converted(_to_batch(kept, contract), keys, subjects, rejects, refused.height, _lost(kept, contract, wanted))


def _wanted(contract: Contract) -> list[str]:
    return [f.name for f in contract.fields if not f.nullable]


@lru_cache(maxsize=64)
def _reads(contract: Contract, today: date) -> Mapping[str, Read]:
    key = {contract.subject_field, contract.record_field}
    return MappingProxyType(
        {f.name: read_key(f.name) if f.name in key else read_field(f, today) for f in contract.fields}
    )


def _length(contract: Contract) -> pl.Expr:
    lengths = [pl.col(f.name).str.len_bytes().fill_null(0) for f in contract.fields]
    return (
        pl.when(pl.max_horizontal(lengths) > MAX_VALUE_BYTES)
        .then(pl.lit("holds a value of more than 1 MB"))
        .when(pl.sum_horizontal(lengths) > MAX_ROW_BYTES)
        .then(pl.lit("is longer than a message may be"))
    )


def _key(contract: Contract) -> pl.Expr:
    subject = pl.col(contract.subject_field)
    if contract.record_field is None:
        return subject.alias("key")
    return pl.concat_str(subject, pl.lit("|"), pl.col(contract.record_field)).alias("key")


def _to_batch(kept: pl.DataFrame, contract: Contract) -> pa.RecordBatch:
    schema = arrow_schema(contract)
    table = kept.select(schema.names).rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
    found = table.combine_chunks().to_batches()
    return found[0] if found else pa.RecordBatch.from_pylist([], schema=schema)


def _lost(kept: pl.DataFrame, contract: Contract, wanted: list[str]) -> Warnings:
    out: Warnings = Counter()
    for field in contract.fields:
        reasons = kept.get_column(REASON + field.name)
        if field.name not in wanted and reasons.null_count() < reasons.len():
            for reason, count in reasons.drop_nulls().value_counts().iter_rows():
                out[field.name, reason] += count
    return out
