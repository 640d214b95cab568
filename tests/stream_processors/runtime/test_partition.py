"""The partition function is Kafka's."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_processors.runtime.partition import _murmur2, partition_of, partitions_of

# org.apache.kafka.common.utils.UtilsTest.testMurmur2 (Apache Kafka)
PUBLISHED = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.mark.parametrize("key", PUBLISHED)
def test_the_hash_is_that_of_the_java_client(key: str) -> None:
    found = _murmur2(np.frombuffer(key.encode(), np.uint8)[None, :])
    assert found.view(np.int32).tolist() == [PUBLISHED[key]]
    assert partition_of(key, 64) == (PUBLISHED[key] & 0x7FFFFFFF) % 64


def test_the_empty_key_has_a_partition() -> None:
    assert 0 <= partition_of("", 4) < 4


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=20), max_size=20), st.integers(1, 512))
def test_a_key_has_one_partition_whatever_it_comes_with(keys: list[str], count: int) -> None:
    found = partitions_of(keys, count).tolist()
    assert found == [partition_of(k, count) for k in keys]
    assert found == [partition_of(k.encode(), count) for k in keys]
    assert all(0 <= p < count for p in found)
    chunked = pl.concat([pl.Series([k], dtype=pl.String) for k in keys]) if keys else pl.Series([], dtype=pl.String)
    assert partitions_of(chunked, count).tolist() == found
    assert partitions_of(chunked[1:], count).tolist() == found[1:]
