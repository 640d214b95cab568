"""All stages in one run on one broker, as figures and as ratios to the raw pass-through."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import polars as pl
import psutil
from confluent_kafka import Consumer, TopicPartition

from infra.bench import load
from infra.bench.child import COPY_TOPIC, child, environment, make_copy_topic
from infra.broker.cluster import Stack, isolated
from infra.clock import tick
from infra.held import due
from infra.keys import init_keys, read_key, research_key, token_key
from infra.provision import provision
from infra.rest import Flow
from infra.settings import Settings
from infra.topic_table import table
from schemas.registry import Registry
from stream_processors import ledger
from stream_processors.access import ADMIN
from stream_processors.matching.catalogue import load_catalogue
from stream_processors.refs import Refs, ResearchIds
from stream_processors.retention_policy import load_policy
from stream_processors.runtime.kafka import consumer_config
from stream_processors.topology import NAMES

SHARE_OF_PERSONS = 0.2
TRICKLE_PER_S, TRICKLE_S = 100, 20
_REST_S = 900

TARGETS = {
    "pseudonymise_events": 0.6,
    "pseudonymise_persons": 0.3,
    "link": 0.1,
    "join": 0.35,
    "publish": 0.35,
    "end_to_end": 0.12,
    "expiry": 0.2,
}
"""At least this share of `pass_through`, in the same run."""


@dataclass
class Figures:
    """`rates` in records a second; `cpu_us`: processor time of a record in the stage's process; the rest in the unit
    of its name, None if it was not measured."""

    records: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    cpu_us: dict[str, float] = field(default_factory=dict)
    trickle_p50_ms: float | None = None
    trickle_p99_ms: float | None = None
    peak_rss_mb: dict[str, float] = field(default_factory=dict)
    rebuild_s_per_million: float | None = None
    expired: int = 0
    expiry_flow_s: float = 0.0
    tick_to_research_ms: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For bench.json: the figures, their ratios to the pass-through, and the targets."""
        through = self.rates.get("pass_through", 0.0)
        return {
            "records": self.records,
            "records_per_second": {k: round(v) for k, v in self.rates.items()},
            "ratio_to_pass_through": {k: round(v / through, 3) for k, v in self.rates.items()} if through else {},
            "cpu_us_a_record": {k: round(v, 1) for k, v in self.cpu_us.items()},
            "targets": TARGETS,
            "trickle_p50_ms": _rounded(self.trickle_p50_ms, 1),
            "trickle_p99_ms": _rounded(self.trickle_p99_ms, 1),
            "peak_rss_mb": {k: round(v, 1) for k, v in self.peak_rss_mb.items()},
            "rebuild_s_per_million": _rounded(self.rebuild_s_per_million, 2),
            "expired_at_one_tick": self.expired,
            "expiry_to_empty_research_s": round(self.expiry_flow_s, 1),
            "tick_to_research_tombstone_ms": round(self.tick_to_research_ms),
        }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def bench(
    base: Settings, records: int, say: Callable[[str], None], keep: bool = False, expiry_alone: bool = False
) -> Figures:
    """Run all stages on a stack of its own in a temporary folder; or what expires at one tick alone."""
    home = Path(mkdtemp(prefix="lethe-bench-"))
    settings = isolated(home, base).acting_as(
        ADMIN
    )  # it writes and reads topics of its own; workers act for themselves
    try:
        with Stack(settings):
            run = _Run(settings, records, say)
            return run.expiry_alone() if expiry_alone else run.all()
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)


class _Run:
    def __init__(self, settings: Settings, records: int, say: Callable[[str], None]) -> None:
        self._settings, self._say = settings, say
        self._people = int(records * SHARE_OF_PERSONS / 2)
        self._events = records - 2 * self._people
        self._figures = Figures(records)
        self._env = environment(settings)

    def all(self) -> Figures:
        provision(self._settings, suppliers=["dfe", "moj", "dwp", "health", "council-northam", "council-southam"])
        init_keys(self._settings)
        make_copy_topic(self._settings)
        loader = load.Loader(self._settings)
        people = load.persons(self._people)
        self._say(f"persons: 2 x {self._people:,}")
        loader.publish("council-northam", "person", load.council(people))
        loader.publish("dfe", "person", load.department(people, "UPN"))
        self._stage("pseudonymise", "pseudonymise_persons")
        rounds = [(self._stage("route", None), self._stage("link", None)) for _ in load_catalogue().passes]
        for name, found in zip(("route", "link"), zip(*rounds, strict=True), strict=True):
            self._measured(name, {k: sum(f[k] for f in found) for k in ("records", "seconds", "cpu_seconds")})
        self._stage("join", None)
        self._stage("publish", None)
        self._say(f"events: {self._events:,}")
        loader.publish("dfe", "absence", load.absences(self._events, self._people))
        copied = child(self._settings, "infra.bench.pass_through", "identified.dfe.absence", COPY_TOPIC)
        self._measured("pass_through", copied)
        self._stage("pseudonymise", "pseudonymise_events")
        self._stage("join", "join")
        self._stage("publish", "publish")
        with self._everything():
            self._end_to_end(loader)
            self._trickle()
            self._one_expires(loader)
        self._rebuild()
        self._expiry()
        return self._figures

    def expiry_alone(self) -> Figures:
        """The records through everything at once, the pass-through, and a tick that makes all of them expire."""
        provision(self._settings, suppliers=["dfe", "moj", "dwp", "health", "council-northam", "council-southam"])
        init_keys(self._settings)
        make_copy_topic(self._settings)
        loader, people = load.Loader(self._settings), load.persons(self._people)
        loader.publish("council-northam", "person", load.council(people))
        loader.publish("dfe", "person", load.department(people, "UPN"))
        loader.publish("dfe", "absence", load.absences(self._events, self._people))
        copied = child(self._settings, "infra.bench.pass_through", "identified.dfe.absence", COPY_TOPIC)
        self._measured("pass_through", copied)
        with self._everything():
            self._one_expires(loader)
        self._expiry()
        return self._figures

    def _one_expires(self, loader: load.Loader) -> None:
        """From a tick to the research record without what expired, at rest: of one person who has one event more."""
        day = date(2019, 6, 1)  # before any other expires
        early = load.absences(1, 1, seed=8).with_columns(
            PeriodEnd=pl.lit(day - timedelta(load_policy().periods["dfe.absence"].days)), record_id=pl.lit("EARLY")
        )
        loader.publish("dfe", "absence", early)
        self._at_rest()
        registry = Registry(self._settings.registry)
        tick(self._settings, registry, day - timedelta(1))
        self._at_rest()
        ends = self._ends("research.person")
        began = time.monotonic()
        tick(self._settings, registry, day)
        consumer = Consumer(consumer_config(self._settings, "bench.expiry"))
        consumer.assign([TopicPartition("research.person", p, at) for p, at in ends.items()])
        while not any(m.error() is None for m in consumer.consume(100, 0.05)):
            if time.monotonic() > began + _REST_S:
                raise TimeoutError("no research record came after the tick")
        self._figures.tick_to_research_ms = (time.monotonic() - began) * 1000
        consumer.close()
        self._say(f"tick to research: {self._figures.tick_to_research_ms:,.0f} ms")

    def _expiry(self) -> None:
        """The hard stop: `retention.activity` alone, from the tick until the last line of the ledger can be read.

        Then everything, to an empty research topic.
        """
        stop = load_policy().hard_stop
        counted = due(self._settings, stop, stop)
        self._figures.expired = sum(n for (_, dataset), n in counted.items() if dataset != "identity")
        registry, topic = Registry(self._settings.registry), ledger.TOPIC
        worker = subprocess.Popen(
            [sys.executable, "-m", "infra.worker", "retention.activity"], env=self._env, stderr=subprocess.PIPE
        )
        assert worker.stderr is not None
        for line in worker.stderr:
            if b'"assigned"' in line:
                break
        threading.Thread(target=worker.stderr.read, daemon=True).start()  # or it blocks when the pipe is full
        tick(self._settings, registry, stop - timedelta(1))
        consumer = Consumer(consumer_config(self._settings, "bench.expiry"))
        consumer.assign([TopicPartition(topic, p, at) for p, at in self._ends(topic).items()])
        process = psutil.Process(worker.pid)
        began, seen, cpu = time.monotonic(), 0, sum(process.cpu_times()[:2])
        tick(self._settings, registry, stop)
        while seen < self._figures.expired:
            seen += sum(m.error() is None for m in consumer.consume(50_000, 0.1))
            if time.monotonic() > began + _REST_S:
                raise TimeoutError(f"{self._figures.expired - seen:,} records are not in the ledger")
        seconds, cpu = time.monotonic() - began, sum(process.cpu_times()[:2]) - cpu
        self._measured("expiry", {"records": seen, "seconds": seconds, "cpu_seconds": cpu})
        consumer.close()
        worker.terminate()
        worker.wait(120)
        began = time.monotonic()
        with self._everything():
            self._figures.expiry_flow_s = time.monotonic() - began
        left = len(table(self._settings, "research.person"))
        if left:
            raise RuntimeError(f"{left:,} research records are left after the hard stop")
        self._say(f"research topic empty {self._figures.expiry_flow_s:.1f} s later, all processors started anew")

    def _ends(self, topic: str) -> dict[int, int]:
        consumer = Consumer(consumer_config(self._settings, "bench.ends"))
        parts = list(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
        found = {p: consumer.get_watermark_offsets(TopicPartition(topic, p))[1] for p in parts}
        consumer.close()
        return found

    def _note(self, name: str, rate: float) -> None:
        self._figures.rates[name] = rate
        self._say(f"{name}: {rate:,.0f} records/s")

    def _measured(self, name: str, found: dict[str, Any]) -> None:
        if found["records"]:
            self._figures.cpu_us[name] = found["cpu_seconds"] / found["records"] * 1e6
        self._note(name, found["records"] / found["seconds"] if found["seconds"] else 0.0)

    def _stage(self, processor: str, name: str | None) -> dict[str, Any]:
        found = child(self._settings, "infra.bench.stage", processor)
        peak = self._figures.peak_rss_mb
        peak[processor] = max(peak.get(processor, 0.0), found["peak_rss_mb"])
        if name:
            self._measured(name, found)
        return found

    @contextmanager
    def _everything(self) -> Iterator[None]:
        workers = subprocess.Popen(
            [sys.executable, "-m", "infra.worker", *NAMES],
            env=self._env,
            stderr=(self._settings.base / "workers.log").open("wb"),
        )
        try:
            self._at_rest()
            yield
        finally:
            for child in psutil.Process(workers.pid).children():
                name, used = child.cmdline()[-1], child.memory_info().rss / 1024 / 1024
                self._figures.peak_rss_mb[name] = max(self._figures.peak_rss_mb.get(name, 0.0), used)
            workers.terminate()
            workers.wait(60)

    def _at_rest(self) -> None:
        flow = Flow(self._settings)
        try:
            flow.wait(_REST_S)
        finally:
            flow.close()

    def _end_to_end(self, loader: load.Loader) -> None:
        """A second population through everything at once: from its first record published to the flow at rest."""
        people = load.persons(self._people, seed=3)
        began = time.monotonic()
        sent = loader.publish("council-southam", "person", load.council(people))
        sent += loader.publish("dfe", "person", load.department(people, "UPN").with_columns(pl.col("UPN") + "B"))
        absences = load.absences(self._events, self._people, seed=4)
        sent += loader.publish("dfe", "absence", absences.with_columns(pl.col("UPN") + "B"))
        self._at_rest()
        self._note("end_to_end", sent / (time.monotonic() - began))

    def _trickle(self) -> None:
        """Acknowledged publish to readable research record, for events of people who are linked already."""
        latencies = trickle(self._settings, self._people)
        self._figures.trickle_p50_ms = float(np.percentile(latencies, 50))
        self._figures.trickle_p99_ms = float(np.percentile(latencies, 99))
        self._say(f"trickle: p99 {self._figures.trickle_p99_ms:,.0f} ms")

    def _rebuild(self) -> None:
        """Restore the largest state from Kafka: join's, from nothing."""
        shutil.rmtree(self._settings.state / "join", ignore_errors=True)
        worker = subprocess.Popen([sys.executable, "-m", "infra.worker", "join"], env=self._env, stderr=subprocess.PIPE)
        records, seconds = 0, 0.0
        assert worker.stderr is not None
        for line in worker.stderr:
            event = json.loads(line) if line.startswith(b"{") else {}
            if event.get("event") == "restored":
                records += event["records"]
                seconds += event["seconds"]
            if event.get("event") == "assigned":
                break
        worker.terminate()
        worker.communicate(timeout=60)
        self._figures.rebuild_s_per_million = seconds / records * 1e6 if records else 0.0
        self._say(f"rebuild: {self._figures.rebuild_s_per_million:.1f} s per million records")


def trickle(settings: Settings, people: int) -> list[float]:
    """Latencies in ms at 100 records a second; each record is of another person, whose research id is computed here."""
    count = TRICKLE_PER_S * TRICKLE_S
    numbers = np.random.default_rng(5).choice(people, min(count, people), replace=False)
    refs, ids = Refs(read_key(token_key(settings))), ResearchIds(read_key(research_key(settings)))
    frame = pl.DataFrame({"number": numbers}).with_columns(cohort=pl.format("C{}", "number"))
    frame = frame.with_columns(refs.subject("council-northam", pl.col("cohort")).alias("person_ref"))
    research = frame.select(ids.person(pl.col("person_ref")).alias("id"))["id"].to_list()
    rows = load.absences(len(numbers), people, seed=6).with_columns(
        UPN=pl.format("D{}", pl.Series(numbers)), record_id=pl.concat_str(pl.lit("T"), "record_id")
    )
    consumer = Consumer(consumer_config(settings, "bench.trickle"))
    topic = "research.person"
    parts = list(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    consumer.assign(
        [TopicPartition(topic, p, consumer.get_watermark_offsets(TopicPartition(topic, p))[1]) for p in parts]
    )
    loader = load.Loader(settings)
    acknowledged: dict[str, float] = {}
    seen: dict[str, float] = {}
    wanted = set(research)

    def take(wait: float) -> None:
        for message in consumer.consume(500, wait):
            if message.error() is None and message.value() is not None:
                key = message.key().decode()
                if key in wanted:
                    seen.setdefault(key, time.monotonic())

    def acknowledge(id_: str) -> Callable[[object, object], None]:
        def delivered(_error: object, _message: object) -> None:
            acknowledged[id_] = time.monotonic()

        return delivered

    began = time.monotonic()
    for i, (id_, message) in enumerate(zip(research, loader.messages("dfe", "absence", rows), strict=True)):
        loader.producer.produce(*message, on_delivery=acknowledge(id_))
        while time.monotonic() < began + (i + 1) / TRICKLE_PER_S:
            loader.producer.poll(0)
            take(0.002)
    loader.producer.flush()
    deadline = time.monotonic() + 30
    while len(seen) < len(research) and time.monotonic() < deadline:
        take(0.05)
    consumer.close()
    missing = len(research) - len(seen)
    # A record that never came counts as the whole wait: it must not make the figure better.
    return [(seen[k] - t) * 1000 for k, t in acknowledged.items() if k in seen] + [30_000.0] * missing
