"""Between polars and Arrow: one batch, with the plain string type that the Avro codec takes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
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


class _NoPandas(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is left out of this process", name=fullname)
        return None


def leave_pandas_out() -> None:
    """Keep pyarrow from importing pandas, where it is installed, to look at its first scalar: 1.5 s and 60 MB."""
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas())
