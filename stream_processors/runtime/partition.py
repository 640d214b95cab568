"""The one partition function: Kafka's murmur2 of the routing key, as the Java client and aiokafka compute it.

Source: `org.apache.kafka.common.utils.Utils.murmur2` and `BuiltInPartitioner.partitionForKey` (Apache Kafka).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

_SEED = 0x9747B28C
_M = np.uint32(0x5BD1E995)


def partition_of(key: str | bytes, count: int) -> int:
    """Partition of one key among `count`."""
    return int(partitions_of([key if isinstance(key, str) else key.decode()], count)[0])


def partitions_of(keys: pl.Series | Sequence[str], count: int) -> npt.NDArray[np.int32]:
    """Partition (int32, 0 to count - 1) of each key, in order. Keys are UTF-8 text without nulls."""
    column = pl.Series("key", keys, dtype=pl.String)
    out = np.empty(len(column), dtype=np.int32)
    if not len(column):
        return out
    array = column.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    held = array.buffers()[2]
    data = np.frombuffer(held, dtype=np.uint8) if held is not None else np.empty(0, np.uint8)
    lengths = np.diff(offsets)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        matrix = data[offsets[rows][:, None] + np.arange(length)]
        out[rows] = (_murmur2(matrix) & np.uint32(0x7FFFFFFF)) % np.uint32(count)
    return out


def _murmur2(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Hash of each row of a (rows, length) matrix of bytes."""
    rows, length = data.shape
    whole = length // 4
    words = np.ascontiguousarray(data[:, : whole * 4]).view("<u4") if whole else np.empty((rows, 0), "<u4")
    h = np.full(rows, np.uint32(_SEED ^ length), dtype=np.uint32)
    with np.errstate(over="ignore"):
        for i in range(whole):
            k = words[:, i] * _M
            k ^= k >> np.uint32(24)
            h = (h * _M) ^ (k * _M)
        rest = length - whole * 4
        if rest:
            for i in reversed(range(rest)):
                h ^= data[:, whole * 4 + i].astype(np.uint32) << np.uint32(8 * i)
            h *= _M
        h ^= h >> np.uint32(13)
        h *= _M
        h ^= h >> np.uint32(15)
    return h
