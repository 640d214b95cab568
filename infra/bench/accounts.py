"""What accounting and metrics cost, in processor seconds: on a machine that others use, too, they say the same each
time, within some percent, and throughput does not.

    python -m infra.bench.accounts [RECORDS] [ROUNDS]     a stack of its own, with and without it, one after the other
    python -m infra.bench.accounts compute [RECORDS]      without a broker: their shares of what processors compute
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import polars as pl
import psutil
from prometheus_client import generate_latest

from infra.bench import load
from infra.bench.child import environment
from infra.broker.cluster import Stack, isolated
from infra.keys import init_keys
from infra.monitoring.metrics import WorkerMetrics
from infra.provision import provision
from infra.rest import Flow
from infra.settings import Settings
from producers.publisher import Publisher
from schemas import contracts, wire
from schemas.codec import arrow_schema, encode
from schemas.registry import StaticRegistry
from stream_processors.access import ADMIN
from stream_processors.arrow import one_batch
from stream_processors.runtime.account import BATCH_BYTES, BATCH_HEADER, Accountant
from stream_processors.runtime.driver import Driver
from stream_processors.runtime.observer import Batch
from stream_processors.runtime.partition import partitions_of
from stream_processors.runtime.records import Inputs
from stream_processors.runtime.task import Step, Task
from stream_processors.topology import NAMES, Context, build

_REST_S = 900
_SHARE_OF_PERSONS = 0.1
_PARTITIONS, _BATCH, _RECEIVED_MS = 4, 15_000, 1_500_000_000_000


def measure(records: int, *, accounts: bool) -> dict[str, float]:
    """Processor seconds by what runs (user and system), from the first record published to the flow at rest."""
    home = Path(mkdtemp(prefix="lethe-accounts-"))
    settings = isolated(home, Settings().model_copy(update={"accounts": accounts})).acting_as(ADMIN)
    people = int(records * _SHARE_OF_PERSONS)
    try:
        with Stack(settings):
            provision(settings, suppliers=["dfe", "council-northam"])
            init_keys(settings)
            env = environment(settings)
            with (home / "workers.log").open("wb") as log:
                workers = subprocess.Popen([sys.executable, "-m", "infra.worker", *NAMES], env=env, stderr=log)
            try:
                _rest(settings)
                broker = _broker(settings)
                before = _seconds(workers.pid, broker)
                mine = sum(os.times()[:2])
                _publish(settings, people, records - 2 * people, announced=accounts)
                published = sum(os.times()[:2]) - mine
                _rest(settings)
                after = _seconds(workers.pid, broker)
            finally:
                workers.terminate()
                workers.wait(60)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return {name: after[name] - before[name] for name in after} | {"publisher": published}


def _publish(settings: Settings, people: int, events: int, *, announced: bool) -> None:
    frame = load.persons(people)
    batches: list[tuple[str, str, pl.DataFrame]] = [
        ("council-northam", "person", load.council(frame)),
        ("dfe", "person", load.department(frame, "UPN")),
        ("dfe", "absence", load.absences(events, people)),
    ]
    for supplier, dataset, rows in batches:
        with patch.object(Publisher, "_make_announcer", Publisher._make_announcer if announced else lambda *_: None):
            publisher = Publisher(supplier, dataset, settings=settings)
        with publisher:
            for part in rows.drop("number", strict=False).iter_slices(20_000):
                publisher.publish_batch(part)


def _rest(settings: Settings) -> None:
    flow = Flow(settings)
    try:
        flow.wait(_REST_S)
    finally:
        flow.close()


def _broker(settings: Settings) -> int:
    port = int(settings.bootstrap.rpartition(":")[2])
    return next(
        c.pid
        for c in psutil.net_connections("tcp")
        if c.laddr and c.laddr.port == port and c.status == "LISTEN" and c.pid
    )


def _seconds(workers: int, broker: int) -> dict[str, float]:
    processes = {p.cmdline()[-1]: p for p in psutil.Process(workers).children()} | {"broker": psutil.Process(broker)}
    return {name: p.cpu_times().user + p.cpu_times().system for name, p in processes.items()}


def compute(records: int) -> dict[str, dict[str, float]]:
    """The shares of accounting and of metrics, in percent, of what each processor computes, and of all; batches as
    large as there are. Scraped every 15 s, a process answers in some ms more: `scrape_ms`."""
    spent: dict[str, float] = dict.fromkeys(NAMES, 0.0)
    worked, watched = dict(spent), dict(spent)
    home = Path(mkdtemp(prefix="lethe-metrics-"))
    metrics = {name: WorkerMetrics(name, home, _BATCH) for name in NAMES}

    def observed(task: Task, inputs: Sequence[Inputs]) -> Step:
        step: Step = stepped(task, inputs)
        name, began = task.processor.declaration.name, time.thread_time()
        metrics[name].batch(Batch(inputs, step.outputs.emits, step.outputs.counts, {"compute": 0.1}))
        watched[name] += time.thread_time() - began
        return step

    def timed(into: dict[str, float], name: Callable[[Any], str], call: Callable[..., Any]) -> Callable[..., Any]:
        def called(of: Any, *args: Any, **more: Any) -> Any:
            began = time.thread_time()
            try:
                return call(of, *args, **more)
            finally:
                into[name(of)] += time.thread_time() - began

        return called

    ids = StaticRegistry()
    ids.schema_id = cache(ids.schema_id)  # type: ignore[method-assign]  # as a worker's registry remembers
    context = Context.default(lambda: b"t" * 32, lambda: b"r" * 32, ids, _PARTITIONS)
    driver = Driver([build(name, context) for name in NAMES], _PARTITIONS, seed=1, accounts=ids)
    people = int(records * _SHARE_OF_PERSONS)
    frame = load.persons(people)
    for supplier, dataset, rows in (
        ("council-northam", "person", load.council(frame)),
        ("dfe", "person", load.department(frame, "UPN")),
        ("dfe", "absence", load.absences(records - 2 * people, people)),
    ):
        _append(driver, ids, supplier, dataset, rows)
    stepped = timed(worked, lambda t: t.processor.declaration.name, Task.step)
    with (
        patch.object(Accountant, "book", timed(spent, lambda a: a.processor, Accountant.book)),
        patch.object(Task, "step", observed),
        patch.object(Task, "commit", timed(worked, lambda t: t.processor.declaration.name, Task.commit)),
    ):
        while ready := driver.ready():
            for task in ready:
                driver.step(task, _BATCH)
    began = time.thread_time()
    for of in metrics.values():
        generate_latest(of.registry)
    scrape = 1_000 * (time.thread_time() - began) / len(metrics)
    shutil.rmtree(home, ignore_errors=True)
    out = {}
    for what, seconds in (("accounts", spent), ("metrics", watched)):
        shares = {name: 100 * seconds[name] / worked[name] for name in NAMES}
        shares["all"] = 100 * sum(seconds.values()) / sum(worked.values())
        out[what] = {name: round(n, 2) for name, n in shares.items()}
    return out | {"scrape_ms": {"each": round(scrape, 1)}}


def _append(driver: Driver, ids: StaticRegistry, supplier: str, dataset: str, rows: pl.DataFrame) -> None:
    contract, topic = contracts.identified(supplier, dataset), contracts.identified_topic(supplier, dataset)
    subject, record = contract.subject_field, contract.record_field
    batch = one_batch(rows.select(arrow_schema(contract).names))
    values = wire.frame(ids.schema_id(topic), encode(batch, contract))
    keys = rows.select(pl.concat_str([subject, record], separator="|")).to_series() if record else rows[subject]
    headers = [(BATCH_HEADER, topic.encode()[-BATCH_BYTES:])]
    for key, value, partition in zip(
        keys.to_list(), values, partitions_of(rows[subject], _PARTITIONS).tolist(), strict=True
    ):
        driver.append(topic, partition, key.encode(), value, _RECEIVED_MS, headers)


def main(records: int, rounds: int) -> None:
    """Rounds of both, in turn; prints the sums and what accounting adds."""
    sums: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for _ in range(rounds):
        for accounts in (False, True):
            for name, seconds in measure(records, accounts=accounts).items():
                sums[accounts][name] = sums[accounts].get(name, 0.0) + seconds
    without, with_ = sum(sums[False].values()), sum(sums[True].values())
    print(
        json.dumps(
            {
                "records": records,
                "rounds": rounds,
                "cpu_seconds_without": {k: round(v, 1) for k, v in sums[False].items()},
                "cpu_seconds_with": {k: round(v, 1) for k, v in sums[True].items()},
                "adds_percent": round(100 * (with_ / without - 1), 2),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["compute"]:
        print(json.dumps(compute(int((sys.argv[2:3] or ["48000"])[0])), indent=1))
    else:
        main(int((sys.argv[1:2] or ["60000"])[0]), int((sys.argv[2:3] or ["1"])[0]))
