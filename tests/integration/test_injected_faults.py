"""Faults, one each, on a running stack: each is named with its place by `reconcile` or `doctor`, put right by what the
finding says to do, and named no longer.

The processors run in threads of this process, so that a test can make one of them fail at one record, in a real
transaction. All faults share one stack: what one test has broken, it mends.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from typer.testing import CliRunner

from infra.bench.load import Loader, absences, council, department, persons
from infra.cli import app
from infra.keys import credential, export_enquiry_key, init_council, init_keys, read_key, research_key, token_key
from infra.monitoring import doctor, metrics
from infra.monitoring.doctor import examine
from infra.monitoring.metrics import WorkerMetrics
from infra.monitoring.server import MonitoringServer
from infra.operation import OperationLog, now_ms
from infra.provision import provision
from infra.reconciler import reconcile_stack
from infra.rest import Flow
from infra.settings import Settings
from infra.topic_table import messages, table
from producers.publisher import Publisher
from schemas import contracts
from schemas.registry import Registry
from schemas.rows import from_value, to_value
from stream_processors.access import ADMIN, OPERATOR
from stream_processors.accounting import batches as batch_rules
from stream_processors.accounting import reconcile as rules
from stream_processors.accounting.hops import Finding
from stream_processors.clock import KEY, TOPIC
from stream_processors.control.clock import tick_value
from stream_processors.edition import Edition, EditionSchemas
from stream_processors.runtime import kafka, state
from stream_processors.runtime.account import publication_of
from stream_processors.runtime.instance import Instance
from stream_processors.runtime.kafka import client_config, consumer_config, producer_config
from stream_processors.runtime.partition import partition_of
from stream_processors.runtime.processor import Processor
from stream_processors.runtime.records import HEARTBEAT_KEY, Emit, Inputs, Outputs
from stream_processors.runtime.state import RocksStore, StateFolderError, View, is_damaged
from stream_processors.runtime.worker import Worker
from stream_processors.topology import NAMES, Context, build
from tests.integration.containers import running_stack
from tests.integration.workers import Workers
from tests.stream_processors.faulty import OUTPUTS, Spoil, altered, doubled, dropped, misplaced, of_another

pytestmark = [pytest.mark.containers, pytest.mark.crash, pytest.mark.long, pytest.mark.timeout(900)]
SUPPLIERS = ["council-northam", "dfe"]
ABSENCE = "identified.dfe.absence"
PEOPLE, KNOWN = 160, 40
"""In the cohort, and how many of them the department knows from the start: the others are for the faults."""


class Faulty:
    """A processor that spoils the next record that it says on a topic, or leaves out the next that it takes in; or
    stands still."""

    def __init__(self, inner: Processor) -> None:
        self.inner, self.declaration, self.version = inner, inner.declaration, inner.version
        self.spoil: Spoil | None = None
        self.topic, self.tombstones, self.leaves_out = "", False, ""
        self.partition: int | None = None
        self.going, self.stands = threading.Event(), threading.Event()
        self.going.set()

    def arm(self, topic: str, spoil: Spoil, *, tombstones: bool = False) -> None:
        """Spoil the next record of a topic."""
        self.topic, self.spoil, self.tombstones, self.partition = topic, spoil, tombstones, None

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        if any(i.keys for i in inputs):
            self.stands.set()
            self.going.wait(60)
            self.stands.clear()
        if self.leaves_out:
            inputs = [self._without_first(view, batch) for batch in inputs]
        self._taken = inputs
        return self.inner.absorb(view, inputs)

    def everything(self, view: View) -> set[bytes]:
        return self.inner.everything(view)

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:
        out = self.inner.settle(view, touched, self._taken if inputs else inputs)
        out.emits = [self._spoilt(view, emit) for emit in out.emits]
        return out

    def _spoilt(self, view: View, emit: Emit) -> Emit:
        matches = emit.topic == self.topic or (self.topic.startswith("*") and emit.topic.endswith(self.topic[1:]))
        if self.spoil is None or not matches:
            return emit
        for at, value in enumerate(emit.values):
            if (value is None) == self.tombstones:
                spoil, self.spoil, self.partition = self.spoil, None, view.partition
                return spoil(emit, at)
        return emit

    def _without_first(self, view: View, batch: Inputs) -> Inputs:
        if batch.topic != self.leaves_out or not batch.keys:
            return batch
        self.leaves_out, self.partition = "", view.partition
        return batch.only(range(1, len(batch.keys)))


class Runner:
    """Processors in threads, each with its own metrics and health as in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        registry = EditionSchemas(Registry(settings.registry), Edition())
        self._ids = registry
        keys = read_key(token_key(settings)), read_key(research_key(settings))
        self._context = Context.default(lambda: keys[0], lambda: keys[1], registry, settings.partitions)
        self.faulty: dict[str, Faulty] = {}
        self._workers: dict[str, Worker] = {}
        self._threads: dict[str, threading.Thread] = {}
        self.watched: dict[str, WorkerMetrics] = {}
        self.ended: dict[str, BaseException] = {}

    def start(self, name: str) -> None:
        self.faulty[name] = faulty = Faulty(build(name, self._context))
        ready = threading.Event()

        def work() -> None:
            with Instance.claim(self.settings.state, name, 1) as mine:
                self.watched[name] = told = WorkerMetrics(name, mine.folder, self.settings.batch_records)
                worker = Worker(faulty, self.settings, mine, accounts=self._ids, observer=told)
                self._workers[name] = worker
                ready.set()
                with MonitoringServer(told, 0, mine.folder):
                    try:
                        worker.run()
                    except StateFolderError as e:
                        self.ended[name] = e

        self._threads[name] = threading.Thread(target=work, name=name, daemon=True)
        self._threads[name].start()
        assert ready.wait(30)

    def stop(self, name: str) -> None:
        self._workers[name].stop()
        self.faulty[name].going.set()
        self._threads.pop(name).join(60)

    def __enter__(self) -> Runner:
        for name in NAMES:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._threads):
            self.stop(name)
        gc.unfreeze()  # as workers leave it
        gc.enable()


@dataclass
class World:
    """The stack, and what is known of it."""

    settings: Settings
    run: Runner
    control: Workers
    monkeypatch: pytest.MonkeyPatch
    used: int = KNOWN
    events: int = 0
    known: set[Finding] = field(default_factory=set)
    """What a processor has done that is found already, and is mended with the next replay of it."""

    def __post_init__(self) -> None:
        self.admin = AdminClient(client_config(self.settings))
        self.flow = Flow(self.settings)
        self.producer = Producer(producer_config(self.settings, "faults"))
        self.registry = Registry(self.settings.registry)
        self.loader = Loader(self.settings)

    def publish(self, supplier: str, dataset: str, rows: pl.DataFrame) -> None:
        with Publisher(supplier, dataset, settings=self.settings) as publisher:
            publisher.publish_batch(rows.drop("number", strict=False))

    def someone(self) -> int:
        """One more of the cohort comes to the department, with an absence: every processor has something to say."""
        number = self.used
        self.used += 1
        self.publish("dfe", "person", department(persons(PEOPLE)[number : number + 1], "UPN"))
        self.publish("dfe", "absence", self.absence(number))
        return number

    def absence(self, number: int, count: int = 1) -> pl.DataFrame:
        self.events += 1
        named = pl.format("E" + str(self.events) + "-{}", "record_id")
        return absences(count, 1).with_columns(record_id=named, UPN=pl.lit(f"D{number}"))

    def leave(self, number: int) -> None:
        """They leave the cohort, and with them all that was linked to them."""
        with Publisher("council-northam", "person", settings=self.settings) as publisher:
            publisher.tombstone(f"C{number}")

    def produce(
        self, topic: str, partition: int, key: bytes, value: bytes | None, headers: Any = None
    ) -> tuple[int, int]:
        """Write past everybody; the partition and offset."""
        at: list[Message] = []
        self.producer.produce(
            topic, value, key, partition, headers=headers or [], on_delivery=lambda _, m: at.append(m)
        )
        self.producer.flush(10)
        return partition, int(at[0].offset() or 0)

    def last(self, topic: str) -> Message:
        """The last live record of a topic."""
        held: dict[tuple[int, bytes], Message] = {}
        for m in messages(self.settings, topic):
            if m.key() not in (None, HEARTBEAT_KEY):
                held.pop((m.partition(), m.key()), None)
                if m.value() is not None:
                    held[m.partition(), m.key()] = m
        return list(held.values())[-1]

    def rest(self) -> None:
        self.flow.wait(240)

    def reconciled(self) -> set[Finding]:
        """What is found that was not known."""
        self.rest()
        return set(reconcile_stack(self.settings.acting_as(OPERATOR), 20).findings) - self.known

    def lethe(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == code, result.output
        return result.stdout

    def replay(self, name: str) -> None:
        """As docs/operations.md says: stop it, have it say all again, start it."""
        self.run.stop(name)
        arguments = ["replay", name, "--from-beginning", "--reason", "a fault", "--execute"]
        deadline = time.monotonic() + 120
        while (done := CliRunner().invoke(app, arguments)).exit_code:  # a member counts until its session ends
            assert "stop first" in done.output
            assert time.monotonic() < deadline
        self.run.start(name)
        self.rest()

    def doctor(self) -> set[tuple[str, str]]:
        """What the doctor finds: check and place."""
        wall = self.settings.model_copy(update={"clock": "wall"})
        return {(f.check, f.where) for f in examine(wall, [self.settings.broker_data]) if f.severity != "info"}


def leaving(settings: Settings, group: str, member: str | None = None) -> dict[str, Any]:
    """A member that leaves its group at once when it is closed, where a worker's stays until its session ends."""
    config = dict(consumer_config(settings, group, member))
    config.pop("group.instance.id", None)
    return config


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("faults")
    quick = {"group.initial.rebalance.delay.ms": "0"}
    with running_stack(home, quick, security="tls") as stack, pytest.MonkeyPatch.context() as monkeypatch:
        settings = stack.settings.model_copy(update={"home": home, "batch_records": 2_000, "clock": "simulated"})
        settings = settings.acting_as(ADMIN)
        provision(settings, suppliers=SUPPLIERS)
        init_keys(settings)
        export_enquiry_key(settings)
        init_council(settings, "council-northam")
        # What takes minutes by default is to be seen at once.
        monkeypatch.setattr(rules, "STALLED_MS", 300)
        monkeypatch.setattr(batch_rules, "ABANDONED_MS", 1)
        monkeypatch.setattr(doctor, "_SLACK_MS", 0)
        monkeypatch.setattr(metrics, "LIVE_S", 1.5)
        monkeypatch.setattr(kafka, "consumer_config", leaving)
        for name, value in settings.environment().items():
            monkeypatch.setenv(name, value)
        with (
            Workers(settings.model_copy(update={"session_timeout_ms": 6_000}), home / "logs") as control,
            Runner(settings) as run,
        ):
            control.start("control")
            found = World(settings, run, control, monkeypatch)
            frame = persons(PEOPLE)
            found.publish("council-northam", "person", council(frame))
            found.publish("dfe", "person", department(frame[:KNOWN], "UPN"))
            found.publish("dfe", "absence", absences(200, KNOWN))
            tell(found, 0)
            assert found.reconciled() == set()
            until(lambda: found.doctor() == set(), lambda: str(found.doctor()))
            yield found


def until(holds: Callable[[], bool], say: Callable[[], str] = str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, say()
        time.sleep(0.1)  # what is waited for tells nobody


def tell(world: World, days_ago: int) -> None:
    """A tick of some day."""
    for partition in range(world.settings.partitions):
        world.produce(TOPIC, partition, KEY, tick_value(date.today() - timedelta(days_ago), world.registry))


# What a processor does to a record: by processor, all of them found one by one, and then mended by one replay.


@dataclass(frozen=True)
class Slip:
    processor: str
    topic: str
    spoil: Spoil | None
    tombstones: bool = False

    def __str__(self) -> str:
        what = self.spoil.__name__ if self.spoil else "not taken in"
        return f"{self.processor}: {self.topic} {'tombstone ' * self.tombstones}{what}"


SLIPS = [
    Slip("pseudonymise", "linkage.activity", dropped),
    Slip("pseudonymise", "linkage.activity", doubled),
    Slip("pseudonymise", "linkage.activity", dropped, tombstones=True),
    Slip("pseudonymise", "linkage.identity", dropped),
    Slip("pseudonymise", ABSENCE, None),
    Slip("route", "linkage.candidate", dropped),
    Slip("route", "linkage.candidate", doubled),
    Slip("route", "linkage.candidate", misplaced),
    Slip("route", "linkage.identity", None),
    Slip("link", "linkage.link", dropped),
    Slip("link", "linkage.link", doubled),
    Slip("link", "linkage.link", misplaced),
    Slip("link", "linkage.link", of_another),
    Slip("link", "linkage.candidate", None),
    Slip("join", "linkage.contribution", dropped),
    Slip("join", "linkage.contribution", doubled),
    Slip("join", "linkage.contribution", altered),
    Slip("join", "linkage.contribution", dropped, tombstones=True),
    Slip("join", "linkage.activity", None),
    Slip("publish", "research.person", dropped),
    Slip("publish", "research.person", doubled),
    Slip("publish", "research.person", misplaced),
    Slip("publish", "research.person", altered),
    Slip("publish", "research.person", dropped, tombstones=True),
]


@pytest.mark.parametrize("slip", SLIPS, ids=str)
def test_what_a_processor_does_to_a_record_is_named(world: World, slip: Slip) -> None:
    faulty = world.run.faulty[slip.processor]
    number = world.someone() if slip.tombstones else -1
    if slip.tombstones:
        world.rest()
    if slip.spoil is None:
        faulty.leaves_out = slip.topic
    else:
        faulty.arm(slip.topic, slip.spoil, tombstones=slip.tombstones)
    if slip.tombstones:
        world.leave(number)
    else:
        world.someone()
    found = world.reconciled()
    assert faulty.partition is not None, "the fault must have happened"
    mine = {f for f in found if f.processor == slip.processor}
    # What comes after it in the flow follows: the first is the one to look at.
    assert min((f.processor for f in found), key=NAMES.index) == slip.processor, [f.text for f in found]
    assert all(f.next > f.offset >= 0 and f.topic for f in mine)
    world.known |= found


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_replay_says_again_what_was_lost_and_what_was_said_too_much_is_removed(world: World, name: str) -> None:
    assert [f for f in world.known if f.processor == name]
    world.replay(name)
    CliRunner().invoke(
        app,
        ["reconcile", "--remove-strays", "--wait", "20", "--reason", "a fault", "--execute"],
        catch_exceptions=False,
    )
    world.known = set()
    left = world.reconciled()
    assert not [f.text for f in left if NAMES.index(f.processor) <= NAMES.index(name)]
    world.known = left


# What others do to the flow: found by `reconcile`.


@dataclass(frozen=True)
class Deed:
    """`do` returns how to mend it, and the place that must be named: processor, topic and partition."""

    name: str
    do: Callable[[World], tuple[Callable[[], object], tuple[str, str, int]]]

    def __str__(self) -> str:
        return self.name


def rewrite(topic: str, value: Callable[[bytes], bytes | None], processor: str) -> Callable[[World], Any]:
    """Somebody writes over a record; mended by writing it back."""

    def do(world: World) -> Any:
        m = world.last(topic)
        partition, key, was = int(m.partition() or 0), m.key() or b"", m.value() or b""
        world.produce(topic, partition, key, value(was))
        return lambda: world.produce(topic, partition, key, was), (processor, topic, partition)

    return do


def stray(world: World) -> Any:
    """Somebody writes a record of a person who is not there; mended by `reconcile --remove-strays`."""
    m = world.last("research.person")
    key = bytes(b"%032x" % 7)
    partition = partition_of(key, world.settings.partitions)
    world.produce("research.person", partition, key, m.value())
    # The same body under another key is not told apart by its digest; another one is.
    world.produce("research.person", partition, key, (m.value() or b"") + b"x")

    def mend() -> None:
        world.lethe("reconcile", "--remove-strays", "--wait", "20", "--reason", "a test", "--execute")

    return mend, ("publish", "research.person", partition)


def batch_row(world: World, **changes: Any) -> Callable[[str, Mapping[str, Any]], None]:
    def say(key: str, row: Mapping[str, Any]) -> None:
        value = to_value("governance.batch", {**row, **changes}, world.registry)
        world.produce("governance.batch", partition_of(key, world.settings.partitions), key.encode(), value)

    return say


def announced(world: World) -> tuple[str, dict[str, Any]]:
    """A batch that has just been published, its key and row."""
    world.publish("dfe", "absence", world.absence(1, 20))
    rows = {
        (m.key() or b"").decode(): from_value("governance.batch", m.value() or b"", world.registry)
        for m in messages(world.settings, "governance.batch")
        if m.value() is not None and m.key() != HEARTBEAT_KEY
    }
    key = max(rows, key=lambda k: rows[k]["published_ms"])
    return key, rows[key]


def told_otherwise(what: Callable[[dict[str, Any], int], dict[str, Any]]) -> Callable[[World], Any]:
    """A batch's announcement is not what was published; mended by announcing it as it is."""

    def do(world: World) -> Any:
        key, row = announced(world)
        partition = next(p for p, n in enumerate(row["counts"]) if n)
        batch_row(world, **what(row, partition))(key, row)
        return lambda: batch_row(world)(key, row), ("pseudonymise", ABSENCE, partition)

    return do


def with_one_more(row: dict[str, Any], partition: int) -> dict[str, Any]:
    counts = [n + (p == partition) for p, n in enumerate(row["counts"])]
    return {"counts": counts, "published": row["published"] + 1, "read": row["read"] + 1}


def with_another_digest(row: dict[str, Any], partition: int) -> dict[str, Any]:
    digests = list(row["digests"])
    digests[partition] = f"{int(digests[partition], 16) ^ 1:016x}"
    return {"digests": digests}


def announced_twice(world: World) -> Any:
    key, row = announced(world)
    other = f"dfe|absence|{'f' * 32}"
    batch_row(world, batch_id="f" * 32)(other, row)
    partition = next(p for p, n in enumerate(row["counts"]) if n)
    at = partition_of(other, world.settings.partitions)
    assert key != other
    return lambda: world.produce("governance.batch", at, other.encode(), None), ("publisher", ABSENCE, partition)


def sent_twice(world: World) -> Any:
    """A record lies in the log twice; mended by taking the announcement back, as for a batch published anew."""
    key, row = announced(world)
    last = next(
        m for m in messages(world.settings, ABSENCE)
        if publication_of(m.headers()).hex() == row["publication"]
    )  # fmt: skip
    partition = int(last.partition() or 0)
    world.produce(ABSENCE, partition, last.key() or b"", last.value(), last.headers())
    return lambda: world.produce("governance.batch", partition_of(key, 4), key.encode(), None), (
        "pseudonymise", ABSENCE, partition,
    )  # fmt: skip


def half(world: World) -> Any:
    """The publisher is killed in the midst of a batch; mended by its next, whole one."""

    def killed() -> None:
        with Publisher("dfe", "absence", settings=world.settings) as publisher:
            publisher.publish_batch(world.absence(2, 9)).wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    partition = partition_of("D2", world.settings.partitions)
    (key,) = [
        key
        for key, value in table(world.settings, "governance.batch").items()
        if from_value("governance.batch", value, world.registry)["open"]
    ]
    at = partition_of(key, world.settings.partitions)
    return lambda: world.produce("governance.batch", at, key, None), ("publisher", ABSENCE, partition)


def stalls(world: World) -> Any:
    """A processor stands still in the midst of a batch."""
    faulty = world.run.faulty["join"]
    faulty.going.clear()
    number = world.someone()
    assert faulty.stands.wait(30)
    partition = partition_of(f"D{number}", world.settings.partitions)
    return faulty.going.set, ("join", "linkage.activity", partition)


def skipped(world: World) -> Any:
    """Offsets are moved past a record; mended by a replay from there."""
    world.run.stop("join")
    number = world.someone()
    partition = partition_of(f"D{number}", world.settings.partitions)
    world.flow.wait(240, only=["pseudonymise", "route", "link"])
    group = Consumer(consumer_config(world.settings.acting_as("join"), "lethe.join"))
    (at,) = group.committed([TopicPartition("linkage.activity", partition)], 30)

    def moved() -> bool:
        try:
            group.commit(
                offsets=[TopicPartition(at.topic, partition, at.offset + 1, metadata=at.metadata)], asynchronous=False
            )
        except KafkaException:
            return False
        return True

    until(moved)  # a static member stays in its group until its session ends
    group.close()
    world.run.start("join")
    return lambda: world.replay("join"), ("join", "linkage.activity", partition)


DEEDS = [
    Deed("a row of state.route is lost", rewrite("state.route", lambda _: None, "route")),
    Deed("a row of state.join is lost", rewrite("state.join", lambda _: None, "join")),
    Deed("a row of state.publish is lost", rewrite("state.publish", lambda _: None, "publish")),
    Deed("a link is altered", rewrite("linkage.link", lambda v: v[:-1] + bytes([v[-1] ^ 2]), "link")),
    Deed("a person nobody has published", stray),
    Deed("a batch with a wrong count", told_otherwise(with_one_more)),
    Deed("a batch with a wrong digest", told_otherwise(with_another_digest)),
    Deed("a batch announced twice", announced_twice),
    Deed("a record sent twice", sent_twice),
    Deed("a batch half published", half),
    Deed("a processor stands still", stalls),
    Deed("offsets moved past a record", skipped),
]


@pytest.mark.parametrize("deed", DEEDS, ids=str)
def test_what_others_do_is_named_by_reconcile_with_its_place(world: World, deed: Deed) -> None:
    mend, (processor, topic, partition) = deed.do(world)
    if deed.do is not stalls:
        world.rest()

    def named() -> set[Finding]:
        return set(reconcile_stack(world.settings.acting_as(OPERATOR)).findings)

    try:
        until(
            lambda: any(
                (f.processor, f.partition) == (processor, partition)
                and (f.topic == topic or topic.startswith(("state.", "linkage.")))
                for f in named()
            ),
            lambda: str([f.text for f in named()]),
        )
    finally:
        mend()
    assert {f.text for f in world.reconciled()} == set()


# What is wrong around the flow: found by `doctor`.


def alter(topic: str, name: str, value: str) -> Callable[[World], Any]:
    """A setting of a topic is changed by hand; mended by `lethe provision`."""

    def do(world: World) -> Any:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        world.admin.incremental_alter_configs([resource])[resource].result(30)
        return lambda: provision(world.settings), ("topics", topic)

    return do


def idle(world: World) -> Any:
    """Nobody appends: with segments of a second, that is soon too long."""
    mend, _ = alter("linkage.identity", "segment.ms", "1000")(world)  # which has had records from the beginning
    monkeypatch_beats(world)
    return mend, ("idle", "linkage.identity")


def monkeypatch_beats(world: World) -> None:
    world.settings = world.settings.model_copy(update={"heartbeat_seconds": 0.1})


def missing_topic(world: World) -> Any:
    world.admin.delete_topics(["governance.answer"])["governance.answer"].result(30)
    until(lambda: "governance.answer" not in world.admin.list_topics(timeout=10).topics)
    return lambda: provision(world.settings), ("topics", "governance.answer")


def more_partitions(world: World) -> Any:
    """It cannot be taken back: the topic is made anew."""
    world.admin.create_partitions([NewPartitions("governance.answer", 6)])["governance.answer"].result(30)
    until(lambda: len(world.admin.list_topics(timeout=10).topics["governance.answer"].partitions) == 6)

    def mend() -> None:
        missing_topic(world)[0]()

    return mend, ("topics", "governance.answer")


def drifted_schema(world: World) -> Any:
    subject = "linkage.link-value"
    client = SchemaRegistryClient({"url": world.settings.registry})
    text = json.loads(contracts.contract("linkage/link").text)
    more = {"name": "more", "type": ["null", "string"], "default": None, "classification": "technical"}
    text["fields"].append(more)
    client.register_schema(subject, Schema(json.dumps(text), "AVRO"))
    version = client.get_latest_version(subject).version
    return lambda: client.delete_version(subject, version), ("schemas", "linkage.link")


def missing_schema(world: World) -> Any:
    client = SchemaRegistryClient({"url": world.settings.registry})
    client.delete_subject("governance.answer-value")
    return lambda: provision(world.settings), ("schemas", "governance.answer")


def lost(path: Callable[[Settings], Path]) -> Callable[[World], Any]:
    """A key file is gone; mended by putting it back."""

    def do(world: World) -> Any:
        file = path(world.settings)
        away = file.with_suffix(".away")
        file.rename(away)
        return lambda: away.rename(file), ("keys", str(file))

    return do


def readable(path: Callable[[Settings], Path]) -> Callable[[World], Any]:
    """Others may read a key file; mended by chmod."""

    def do(world: World) -> Any:
        file = path(world.settings)
        file.chmod(0o644)
        return lambda: file.chmod(0o600), ("keys", str(file))

    return do


def short(world: World) -> Any:
    file = research_key(world.settings)
    was = file.read_bytes()
    file.write_bytes(was[:7])
    return lambda: file.write_bytes(was), ("keys", str(file))


_LINK_READS = (
    ResourceType.TOPIC, "linkage.candidate", ResourcePatternType.LITERAL, "User:link", "*", AclOperation.READ,
    AclPermissionType.ALLOW,
)  # fmt: skip
_ANYBODY = (
    ResourceType.TOPIC, "research.person", ResourcePatternType.LITERAL, "User:somebody", "*", AclOperation.READ,
    AclPermissionType.ALLOW,
)  # fmt: skip


def missing_grant(world: World) -> Any:
    for future in world.admin.delete_acls([AclBindingFilter(*_LINK_READS)]).values():
        future.result(30)
    return lambda: provision(world.settings), ("grants", "User:link: allow read on topic linkage.candidate from *")


def extra_grant(world: World) -> Any:
    for future in world.admin.create_acls([AclBinding(*_ANYBODY)]).values():
        future.result(30)
    return lambda: provision(world.settings), ("grants", "User:somebody: allow read on topic research.person from *")


def full_disk(world: World) -> Any:
    usage = namedtuple("usage", "total used free")
    real = shutil.disk_usage
    world.monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1_000, 980, 20))
    return lambda: world.monkeypatch.setattr(shutil, "disk_usage", real), (
        "disk", str(world.settings.broker_data),
    )  # fmt: skip


class _Fast:
    """This machine's clock, two minutes ahead of the others'."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    @staticmethod
    def time_ns() -> int:
        return time.time_ns() + 120_000_000_000


def skewed(world: World) -> Any:
    world.monkeypatch.setattr(doctor, "time", _Fast())
    return lambda: world.monkeypatch.setattr(doctor, "time", time), ("clocks", f"broker {world.settings.bootstrap}")


def no_tick(world: World) -> Any:
    """The clock was told a day last week, and none since."""
    tell(world, 5)
    return lambda: tell(world, 0), ("clock", "governance.clock")


def hanging(world: World) -> Any:
    """A transaction that nobody ends."""
    config = producer_config(world.settings, "hanging", "lethe.hanging") | {"transaction.timeout.ms": 600_000}
    producer = Producer(config)
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("governance.answer", b"x", b"k", 1)
    producer.flush(30)
    world.settings = world.settings.model_copy(update={"transaction_timeout_ms": 1_000})

    def mend() -> None:
        producer.abort_transaction(30)
        world.settings = world.settings.model_copy(update={"transaction_timeout_ms": 60_000})

    return mend, ("transactions", "governance.answer-1")


def dead(world: World) -> Any:
    world.control.kill("control")

    def mend() -> None:
        world.control.start("control")

    return mend, ("processes", "control")


def suspended(world: World) -> Any:
    pid = world.control.pid("control")
    world.control.signal("control", signal.SIGSTOP)
    return lambda: world.control.signal("control", signal.SIGCONT), ("processes", f"control 1 (pid {pid})")


def stuck(world: World) -> Any:
    """The loop of a worker does not turn: it hangs in a record."""
    mend, _ = stalls(world)
    return mend, ("processes", f"join 1 (pid {os.getpid()})")


def stopped(world: World) -> Any:
    world.run.stop("route")
    return lambda: world.run.start("route"), ("processes", "route")


def damaged_in_use(world: World) -> Any:
    """A state folder is damaged under a running worker, which ends; mended by starting it again."""
    folder = world.settings.state / "route" / "1" / "2"
    world.run.stop("route")
    store = RocksStore(folder)
    store.sweep(now_ms())  # so that all of it lies in files
    store.close()
    world.run.start("route")
    until(lambda: world.run.watched["route"].served == world.settings.partitions)
    for file in folder.glob("*.sst"):
        with file.open("r+b") as f:
            f.write(b"\x00" * (file.stat().st_size * 3 // 4))
    state._CACHE.set_capacity(0)  # the workers are threads here and share it: nothing is read from memory
    world.publish("council-northam", "person", council(persons(PEOPLE)).with_columns(surname=pl.lit("OTHER")))
    until(lambda: "route" in world.run.ended)
    assert str(folder) in str(world.run.ended.pop("route"))

    def mend() -> None:
        state._CACHE.set_capacity(state._CACHE_BYTES)
        world.run.start("route")
        until(lambda: not is_damaged(folder))
        world.rest()
        assert world.reconciled() == set()

    return mend, ("state", str(folder))


WRONG: Mapping[str, Callable[[World], Any]] = {
    "cleanup.policy of linkage.activity": alter("linkage.activity", "cleanup.policy", "delete"),
    "delete.retention.ms of research.person": alter("research.person", "delete.retention.ms", "1000000"),
    "max.compaction.lag.ms of state.join": alter("state.join", "max.compaction.lag.ms", "900000000"),
    "segment.ms of identified.dfe.absence": alter(ABSENCE, "segment.ms", "900000000"),
    "min.cleanable.dirty.ratio of linkage.link": alter("linkage.link", "min.cleanable.dirty.ratio", "0.9"),
    "an idle partition": idle,
    "a missing topic": missing_topic,
    "a topic with more partitions": more_partitions,
    "a drifted schema": drifted_schema,
    "a missing schema": missing_schema,
    "the token key is lost": lost(token_key),
    "the enquiry key is lost": lost(lambda s: s.keys / "enquiry.pub"),
    "the token key can be read by others": readable(token_key),
    "a council's secret can be read by others": readable(lambda s: next((s.keys / "councils").glob("*.secret"))),
    "the research key is cut short": short,
    "a credential is lost": lost(lambda s: credential(s, "quarantine")),
    "a credential can be read by others": readable(lambda s: credential(s, "erasure")),
    "a missing grant": missing_grant,
    "a grant by hand": extra_grant,
    "a full disk": full_disk,
    "clocks apart": skewed,
    "a hanging transaction": hanging,
    "the control plane is dead": dead,
    "the control plane is suspended": suspended,
    "a worker is stuck": stuck,
    "a worker is stopped": stopped,
    "a state folder is damaged in use": damaged_in_use,
    "no tick for days": no_tick,  # the last: what day it is ends all that is held
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_around_the_flow_is_named_by_doctor_with_its_place(world: World, name: str) -> None:
    settings = world.settings
    mend, (check, where) = WRONG[name](world)
    found: set[tuple[str, str]] = set()

    def named() -> bool:
        nonlocal found
        found = world.doctor()
        return any(c == check and (w == where or w.startswith(f"{where}-")) for c, w in found)

    try:
        until(named, lambda: str(found))
    finally:
        mend()
        world.settings = settings
    until(lambda: world.doctor() == set(), lambda: str(world.doctor()))


def test_there_are_fifty_faults_and_more() -> None:
    assert len(SLIPS) + len(DEEDS) + len(WRONG) >= 50


def test_in_the_end_all_is_balanced(world: World) -> None:
    world.rest()
    assert [f.text for f in world.reconciled()] == []
    log = OperationLog(world.settings, world.registry)
    assert {o.kind for o in log.all()} >= {"replay", "remove_strays"}
