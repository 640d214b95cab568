"""Invariants 1, 4 and 5 on a real broker: whatever is killed, and whenever, the research topic ends as the oracle
has it.

The flow under test is real worker processes. What it must come to is computed twice from the identified topics: by the
oracle on plain tables, and byte for byte by the brokerless driver.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest
from confluent_kafka import Consumer, TopicPartition

from infra.bench.load import Loader, absences, council, department, persons
from infra.demo import live_records
from infra.provision import provision
from infra.settings import Settings
from infra.topic_table import messages, table
from schemas import contracts, wire
from schemas.codec import decode
from schemas.registry import Registry
from stream_processors import oracle
from stream_processors.areas import load_areas
from stream_processors.matching.catalogue import load_catalogue
from stream_processors.runtime.driver import Driver
from stream_processors.runtime.faults import Point
from stream_processors.runtime.kafka import producer_config
from stream_processors.topology import NAMES, Context, build
from tests.integration.containers import RunningStack, running_stack
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.crash, pytest.mark.timeout(900)]
SUPPLIERS = ["council-northam", "dfe"]
STATEFUL = [n for n in NAMES if n != "pseudonymise"]
TOMBSTONES_LIVE_MS = 4_000


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("crash")) as stack:
        yield stack


@pytest.fixture
def settings(fresh: RunningStack, tmp_path: Path) -> Settings:
    """A provisioned cluster without records, groups or state."""
    found = fresh.settings.model_copy(update={"home": tmp_path, "batch_records": 400, "session_timeout_ms": 6_000})
    _empty(found)
    provision(found, suppliers=SUPPLIERS)
    return found


def _empty(settings: Settings) -> None:
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": settings.bootstrap})
    topics = [t for t in admin.list_topics(timeout=30).topics if not t.startswith("_") and t != "kafkasql-journal"]
    if topics:
        for deleted in admin.delete_topics(topics).values():
            deleted.result(30)
    groups = [g.group_id for g in admin.list_consumer_groups().result().valid if g.group_id.startswith("lethe.")]
    deadline = time.monotonic() + 60
    while groups:  # a killed static member stays in its group until the session times out
        results = admin.delete_consumer_groups(groups)
        groups = [g for g, f in results.items() if f.exception() is not None]
        if groups and time.monotonic() > deadline:
            raise TimeoutError(f"groups are still alive: {groups}")
        time.sleep(0.3 if groups else 0)
    while set(admin.list_topics(timeout=30).topics) & set(topics):
        time.sleep(0.1)


class Population:
    """People who collide in names and dates, published, corrected and deleted."""

    def __init__(self, settings: Settings, people: int = 800) -> None:
        self.settings, self.people = settings, people
        self.loader = Loader(settings)
        self.frame = persons(people).with_columns(
            date_of_birth=pl.Series([date(2000, 1, 1 + i % 28) for i in range(people)])
        )

    def publish(self, events: int = 4_000, seed: int = 2) -> None:
        self.loader.publish("council-northam", "person", council(self.frame))
        self.loader.publish("dfe", "person", department(self.frame, "UPN"))
        self.loader.publish("dfe", "absence", absences(events, self.people, seed))

    def correct(self, seed: int, count: int = 100) -> None:
        """New dates of birth for some, so that they change blocks."""
        changed = self.frame.sample(count, seed=seed).with_columns(date_of_birth=pl.lit(date(2001, 2, 1 + seed % 28)))
        self.loader.publish("dfe", "person", department(changed, "UPN"))

    def delete(self, seed: int, count: int = 60) -> None:
        gone = self.frame.sample(count, seed=seed)
        for supplier, dataset, rows in (
            ("council-northam", "person", council(gone[: count // 2])),
            ("dfe", "person", department(gone[count // 2 :], "UPN")),
        ):
            for topic, _, key, partition in self.loader.messages(supplier, dataset, rows):
                self.loader.producer.produce(topic, None, key, partition)
        self.loader.producer.flush()


def assert_as_the_oracle_says(workers: Workers) -> None:
    settings = workers.settings
    token, research = workers.keys
    published = table(settings, "research.person")
    registry = Registry(settings.registry)
    context = Context.default(lambda: token, lambda: research, registry, settings.partitions)
    driver = Driver([build(n, context) for n in NAMES], settings.partitions)
    for supplier in SUPPLIERS:
        for dataset in contracts.DATASETS[contracts.kind_of(supplier)]:
            for m in messages(settings, contracts.identified_topic(supplier, dataset)):
                driver.append(m.topic(), m.partition(), m.key(), m.value(), m.timestamp()[1])
    driver.run(1_000_000)
    assert len(published) > 0
    assert published == driver.table("research.person")
    assert table(settings, "linkage.link") == driver.table("linkage.link")
    assert table(settings, "linkage.contribution") == driver.table("linkage.contribution")
    expected = oracle.research(live_records(settings), token, research, load_catalogue(), load_areas().by_postcode)
    assert oracle.equal(expected, _decoded(published)) == []


def _decoded(rows: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
    values = decode([v[wire.HEADER_BYTES :] for v in rows.values()], contracts.contract("research/person")).to_pylist()
    return {k.decode(): v for k, v in zip(rows, values, strict=True)}


def test_each_processor_killed_at_random_moments_twenty_times(settings: Settings, tmp_path: Path) -> None:
    population, chance = Population(settings), random.Random(7)
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        for i in range(20):
            if i % 4 == 0:
                population.publish(events=1_500, seed=10 + i)
            elif i % 4 == 1:
                population.correct(seed=i)
            elif i % 4 == 2:
                population.delete(seed=i)
            time.sleep(chance.uniform(0.1, 1.2))  # the moment of the kill is what is drawn here
            name = NAMES[i % len(NAMES)]
            if workers.alive(name):
                workers.kill(name)
            workers.start(name)
        workers.at_rest()
        assert_as_the_oracle_says(workers)


def test_killed_at_each_step_around_the_commit(settings: Settings, tmp_path: Path) -> None:
    """At each step, each processor in the order of the flow: the first that dies lets nothing through to the next. Each
    processor at a third of the steps, unless there is time for all (LETHE_THOROUGH)."""
    population = Population(settings, people=300)
    every = bool(os.environ.get("LETHE_THOROUGH"))
    with Workers(settings, tmp_path / "logs") as workers:
        for round_, point in enumerate(p for p in get_args(Point) if p != "restoring"):
            dies = [name for i, name in enumerate(NAMES) if every or (i + round_) % 3 == 0]
            for name in NAMES:
                if workers.alive(name) and name in dies:
                    workers.kill(name)
                if not workers.alive(name):
                    workers.start(name, kill_at=f"{point}:1" if name in dies else "")
            population.publish(events=500, seed=30 + round_)
            population.correct(seed=round_)
            for name in dies:
                assert workers.wait_exit(name, 180) == -signal.SIGKILL, (name, point)
                workers.start(name)
        population.delete(seed=3)
        workers.at_rest()
        assert_as_the_oracle_says(workers)


def test_deleted_state_is_rebuilt_silently_even_if_killed_half_way(settings: Settings, tmp_path: Path) -> None:
    population = Population(settings, people=300)
    population.publish(events=900)
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        workers.at_rest()
        before = _ends(settings)
        for name in STATEFUL:
            workers.kill(name)
            shutil.rmtree(settings.state / name)
            workers.start(name, kill_at="restoring:1")
        for name in STATEFUL:
            assert workers.wait_exit(name, 180) == -signal.SIGKILL, name
            workers.start(name)
        for name in STATEFUL:
            workers.wait_for_log(name, '"restored"')
        workers.at_rest()
        assert _ends(settings) == before, "a rebuild says nothing"
        population.correct(seed=5)
        population.delete(seed=6, count=40)
        workers.at_rest()
        assert_as_the_oracle_says(workers)


def test_state_lost_while_inputs_are_compacted_and_tombstones_are_gone(settings: Settings, tmp_path: Path) -> None:
    """All workers are away, with their state deleted, for longer than tombstones live; meanwhile records are deleted
    and corrected, and the broker compacts the tombstones away. Nothing of the deleted may stay."""
    provision(
        settings,
        suppliers=SUPPLIERS,
        overrides={
            "delete.retention.ms": str(TOMBSTONES_LIVE_MS),
            "segment.ms": "2000",
            "max.compaction.lag.ms": "2000",
            "min.cleanable.dirty.ratio": "0.01",
        },
    )
    population = Population(settings, people=300)
    population.publish(events=900)
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        workers.at_rest()
        for name in NAMES:
            workers.kill(name)
        shutil.rmtree(settings.state)
        population.correct(seed=8)
        population.delete(seed=9)
        _until_tombstones_are_gone(population)
        workers.start_all()
        workers.at_rest()
        for name in NAMES:
            workers.wait_for_log(name, "reconciled")
        workers.at_rest()
        assert_as_the_oracle_says(workers)


def _until_tombstones_are_gone(population: Population) -> None:
    """Heartbeats make segments roll; waits until no tombstone of a subject is left in the supplier's topic."""
    settings = population.settings
    deadline = time.monotonic() + 480
    while time.monotonic() < deadline:
        for topic in [f"identified.{s}.person" for s in SUPPLIERS]:
            for partition in range(settings.partitions):
                population.loader.producer.produce(topic, None, b"__heartbeat__", partition)
        population.loader.producer.flush()
        left = sum(
            m.value() is None and m.key() != b"__heartbeat__"
            for s in SUPPLIERS
            for m in messages(settings, f"identified.{s}.person")
        )
        if not left:
            return
        time.sleep(1)
    raise TimeoutError("the broker has not compacted the tombstones away")


def test_a_second_instance_joins_and_leaves(settings: Settings, tmp_path: Path) -> None:
    population = Population(settings)
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        population.publish(events=2_000)
        workers.start("join#2")
        workers.start("link#2")
        workers.wait_for_log("join#2", "assigned")
        population.correct(seed=1)
        population.publish(events=2_000, seed=12)
        assert workers.stop("join#2") == 0
        workers.kill("link#2")
        population.delete(seed=2)
        workers.at_rest()
        assert_as_the_oracle_says(workers)


def test_a_zombie_is_fenced_and_not_merged(settings: Settings, tmp_path: Path) -> None:
    """SIGSTOP past the session timeout, replaced, SIGCONT: what the old one still had in hand is not committed."""
    population = Population(settings)
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        population.publish(events=2_000)
        workers.wait_for_log("join", "assigned")
        workers.signal("join", signal.SIGSTOP)
        workers.start("join#2")
        workers.wait_for_log("join#2", "assigned", 180)
        population.correct(seed=4)
        population.publish(events=1_000, seed=21)
        workers.at_rest(only=["join#2"])
        workers.signal("join", signal.SIGCONT)
        population.delete(seed=5)
        workers.at_rest()
        assert_as_the_oracle_says(workers)


def test_sigterm_commits_the_batch_in_hand_and_exits_with_0(settings: Settings, tmp_path: Path) -> None:
    population = Population(settings)
    population.publish(events=3_000)
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        workers.wait_for_log("pseudonymise", "assigned")
        for name in NAMES:
            workers.wait_for_log(name, "started")  # before that nobody listens to signals
            assert workers.stop(name) == 0
        workers.start_all()
        workers.at_rest()
        assert_as_the_oracle_says(workers)


def test_bad_records_are_quarantined_once_and_the_partition_goes_on(settings: Settings, tmp_path: Path) -> None:
    from confluent_kafka import Producer

    population = Population(settings, people=200)
    population.publish(events=300)
    topic = "identified.dfe.person"
    producer = Producer(producer_config(settings, "bad"))
    good = next(iter(table(settings, topic).values()))
    for key, value in (
        (b"X1", b"\x01" + good[1:]),  # magic byte
        (b"X2", wire.header(999_999) + good[5:]),  # unknown schema id
        (b"X3", good[:-4]),  # truncated
        (b"X4", good + b"x" * 5_000_000),  # too large
    ):
        producer.produce(topic, value, key, 0)
    refused: list[str] = []
    producer.produce(topic, good, None, 0, on_delivery=lambda e, _: refused.append(e.name()))
    producer.flush()
    assert refused == ["INVALID_RECORD"], "a compacted topic takes no record without a key; the producer is told"
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        workers.at_rest()
        workers.kill("pseudonymise")
        workers.start("pseudonymise")
        workers.at_rest()
        held = list(messages(settings, "identified.dfe.quarantine"))
        bad = [m for m in held if m.value() is not None]
        errors = sorted(dict(m.headers())["__connect.errors.exception.class.name"].decode() for m in bad)
        assert errors == ["BadMagicByte", "RecordTooLarge", "Undecodable", "UnknownSchemaId"]
        assert len(table(settings, "governance.quarantine")) == 4
        assert_as_the_oracle_says(workers)


def _ends(settings: Settings) -> dict[tuple[str, int], int]:
    """Number of committed records so far, by topic and partition, of everything that processors write."""
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": "ends"})
    try:
        topics = [t for t in consumer.list_topics(timeout=30).topics if t.split(".")[0] in ("linkage", "research")]
        return {
            (t, p): consumer.get_watermark_offsets(TopicPartition(t, p))[1]
            for t in topics
            for p in range(settings.partitions)
        }
    finally:
        consumer.close()
