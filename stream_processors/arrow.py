"""Between polars and Arrow: one batch, with the plain string type that the Avro codec takes."""

from __future__ import annotations

from typing import overload

import polars as pl
import pyarrow as pa


@overload
def one_batch(data: pl.DataFrame) -> pa.RecordBatch: ...
@overload
def one_batch(data: pa.RecordBatch) -> pa.Table: ...
def one_batch(data: pl.DataFrame | pa.RecordBatch) -> pa.RecordBatch | pa.Table:
    """A frame as one record batch for the codec, or the codec's batch as a table that polars takes."""
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    table = data.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
