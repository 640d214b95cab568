"""The enclave's sync beside a raw pass-through of the same records, and a deletion swept out of the file.

python -m infra.bench.enclave [RECORDS]     a stack of its own; 1,000,000 research records by default
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from datetime import date
from hashlib import blake2b
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from confluent_kafka import Producer

from infra.bench.child import COPY_TOPIC, child, make_copy_topic
from infra.bench.load import send
from infra.broker.cluster import Stack, isolated
from infra.keys import init_keys
from infra.provision import provision
from infra.settings import Settings
from schemas import contracts, wire
from schemas.codec import arrow_schema, encode
from schemas.registry import Registry
from stream_processors.access import ADMIN
from stream_processors.runtime.kafka import producer_config
from stream_processors.runtime.partition import partition_of, partitions_of

_TOPIC = "research.person"
_EVENTS, _AREAS, _SLICE = 8, 500, 50_000
_START = date(2014, 1, 1)
_CONTRACT = contracts.contract("research/person")


def _ids(low: int, high: int) -> list[str]:
    return [blake2b(b"%d" % i, digest_size=16).hexdigest() for i in range(low, high)]


def records(low: int, high: int) -> pa.RecordBatch:
    """Research records of persons number `low` to `high`, with eight absences each; columns as of the contract."""
    n, rng = high - low, np.random.default_rng(low)
    absences = pl.DataFrame({"month": rng.integers(15_000, 17_000, n * _EVENTS)}).select(
        pl.col("month").cast(pl.Int32).cast(pl.Date).dt.month_start(),
        sessions_possible=pl.lit(300, pl.Int32),
        authorised_absence=pl.Series(rng.integers(0, 30, n * _EVENTS), dtype=pl.Int32),
        unauthorised_absence=pl.Series(rng.integers(0, 30, n * _EVENTS), dtype=pl.Int32),
        months_from_start=pl.Series(rng.integers(-36, 36, n * _EVENTS), dtype=pl.Int32),
    )
    known: dict[str, Any] = {
        "person_id": _ids(low, high),
        "family_id": [blake2b(b"family %d" % (i // 4), digest_size=16).hexdigest() for i in range(low, high)],
        "programme_status": ["participant"] * n,
        "programme_start_month": [_START] * n,
        "birth_year": rng.integers(1960, 2014, n),
        "sex": ["F", "M"] * (n // 2) + ["F"] * (n % 2),
        "area": [f"E0100{a:04d}" for a in rng.integers(0, _AREAS, n)],
    }
    columns = []
    for field in arrow_schema(_CONTRACT):
        if not pa.types.is_list(field.type):
            columns.append(pa.array(known.get(field.name, [None] * n), field.type))
            continue
        there = field.name == "absence"
        ends = pa.array(np.arange(n + 1, dtype=np.int32) * (_EVENTS if there else 0))
        items = absences.to_struct("absence").to_arrow() if there else pa.array([], field.type.value_type)
        columns.append(pa.ListArray.from_arrays(ends, items.cast(field.type.value_type)))
    return pa.RecordBatch.from_arrays(columns, schema=arrow_schema(_CONTRACT))


def fill(settings: Settings, count: int) -> None:
    """Publish so many research records."""
    producer = Producer(producer_config(settings, "bench.load"))
    id_ = Registry(settings.registry).schema_id(_TOPIC)
    for low in range(0, count, _SLICE):
        batch = records(low, min(low + _SLICE, count))
        keys = batch.column("person_id").to_pylist()
        where = partitions_of(keys, settings.partitions).tolist()
        for key, value, partition in zip(keys, wire.frame(id_, encode(batch, _CONTRACT)), where, strict=True):
            send(producer, _TOPIC, value, key, partition)
    producer.flush()


def delete(settings: Settings, key: str) -> None:
    """Publish a tombstone."""
    producer = Producer(producer_config(settings, "bench.load"))
    producer.produce(_TOPIC, None, key, partition_of(key, settings.partitions))
    producer.flush()


def main(count: int) -> None:
    """Fill, copy, sync, delete one and sync again; print one JSON object."""
    home = Path(mkdtemp(prefix="lethe-enclave-"))
    settings = isolated(home).acting_as(ADMIN)
    try:
        with Stack(settings):
            provision(settings)
            init_keys(settings)
            make_copy_topic(settings)
            fill(settings, count)
            copied = child(settings, "infra.bench.pass_through", _TOPIC, COPY_TOPIC)
            sync = ("infra.cli", "enclave", "sync", "--to", str(home / "enclave"), "--json")
            began = time.monotonic()
            first = child(settings, *sync)
            seconds = time.monotonic() - began
            held = first["rows"]
            if (held["persons"], held["absence"]) != (count, _EVENTS * count):
                raise RuntimeError(f"the file holds {held['persons']:,} persons and {held['absence']:,} absences")
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            delete(settings, _ids(0, 1)[0])
            began = time.monotonic()
            second = child(settings, *sync)
            swept = time.monotonic() - began
    finally:
        shutil.rmtree(home, ignore_errors=True)
    through = copied["records"] / copied["seconds"]
    print(
        json.dumps(
            {
                "records": first["records"],
                "pass_through_per_second": round(through),
                "sync_per_second": round(first["records"] / first["seconds"]),
                "ratio": round(first["records"] / first["seconds"] / through, 3),
                "command_seconds": round(seconds, 1),
                "peak_mb": round(peak),
                "one_deletion": {"deleted": second["tombstones"], "command_seconds": round(swept, 1)},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(int((sys.argv[1:2] or ["1000000"])[0]))
