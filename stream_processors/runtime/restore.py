"""Bring a partition's state to its committed offsets, silently: what is true from the inputs, what was said from the
changelog.

Three cases. The store is at the committed offsets: open it. It is behind (a crash between the two commits): replay
the gap.
It is missing, damaged, ahead, of another form, or older than tombstones live: discard it and rebuild from the beginning
of the inputs.
If the *group* was away for longer than tombstones live, some may have been compacted away unseen: the caller is told
(`lagged`) to catch up and then to settle every key anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from infra.settings import Settings
from schemas.registry import SchemaIds
from schemas.rows import from_value
from stream_processors.edition import Edition
from stream_processors.runtime import kafka
from stream_processors.runtime.account import TOPIC as ACCOUNTS
from stream_processors.runtime.account import Account
from stream_processors.runtime.faults import Faults
from stream_processors.runtime.observer import Observer, Unobserved
from stream_processors.runtime.processor import Processor
from stream_processors.runtime.records import HEARTBEAT_KEY, Inputs
from stream_processors.runtime.state import MemoryStore, Position, RocksStore, Store, Writes, discard, is_damaged
from stream_processors.runtime.task import Task

_log = structlog.get_logger()
_BATCH = 10_000
_WAIT_S = 0.5
_FILL_S = 0.02
_QUIET = 60
_FORM = "\x01form"  # a table beside the processor's: of which form they are


@dataclass(frozen=True)
class Restored:
    """A task at its committed offsets; `lagged` if tombstones may have been missed, or all must be said anew.

    `replayed`: how many records brought it there.
    `anew`: a replay was asked for: topic to the offset from which what is read is said again. `touched`: the keys that
    it is about, of a processor with state; None for all.
    """

    task: Task
    changelog_end: int
    lagged: bool
    replayed: int = 0
    anew: Mapping[str, int] = field(default_factory=dict)
    touched: frozenset[bytes] | None = None


class Restorer:
    """Reads inputs and changelog without a group; one per session."""

    def __init__(
        self,
        processor: Processor,
        settings: Settings,
        folder: Path,
        faults: Faults,
        now_ms: Callable[[], int],
        keep_alive: Callable[[], None],
        observer: Observer | None = None,
    ) -> None:
        self._processor, self._folder, self._faults = processor, folder, faults
        self._now_ms, self._keep_alive = now_ms, keep_alive
        self._observer: Observer = observer or Unobserved()
        self._admin = AdminClient(kafka.client_config(settings))
        self._consumer = Consumer(kafka.reader_config(settings, f"lethe.{processor.declaration.name}.restore"))
        self._met: set[str] = set()
        self._edition = Edition(settings.edition)
        self._tombstones: dict[str, int] = {}

    def close(self) -> None:
        """Release the connection."""
        self._consumer.close()

    def restore(self, number: int, committed: Sequence[TopicPartition]) -> Restored:
        """The task of one partition, with its store at the committed offsets."""
        declaration = self._processor.declaration
        target = {tp.topic: max(tp.offset, 0) for tp in committed}
        now = self._now_ms()
        began = time.monotonic()
        alive_ms = min(map(self._tombstones_live_ms, target), default=0)
        told = [told_by(tp.metadata) for tp in committed if tp.offset >= 0]
        times = [t.time_ms for t in told if t.time_ms is not None]
        anew = {
            tp.topic: min(at, max(tp.offset, 0)) for tp in committed if (at := told_by(tp.metadata).anew) is not None
        }
        # Half the time, since the broker may have cleaned a partition's other replica, or its clock may be ahead.
        lagged = bool(times) and now - max(times) > alive_ms // 2
        if declaration.stateless:
            changed = any(t.version != self._processor.version for t in told if t.time_ms is not None)
            if changed:
                _log.info("read_again", processor=declaration.name, partition=number, version=self._processor.version)
            task = Task(self._processor, number, MemoryStore())
            # To the end, not to what is committed: what is recalled holds for all that is read from now on.
            for topic in declaration.recalls:
                for batch in self._read(topic, number, 0, None):
                    task.restore_inputs([inputs_of(topic, number, batch)], Position({}))
            return Restored(task, 0, lagged or changed, anew={} if changed else anew)
        store = self._open(number)
        had = store.position()
        ahead = any(had.inputs.get(t, 0) > end for t, end in target.items())
        stale = bool(had.inputs) and now - had.written_ms > alive_ms // 2
        formed = is_of_form(store, declaration.form)
        lagged = lagged or bool(anew)
        # Without a position: a rebuild that was cut short, or new.
        if ahead or stale or lagged or not formed or not had.inputs:
            store.close()
            discard(self._path(number))
            store = self._open(number)
            had = Position({})
        task = Task(self._processor, number, store)
        replayed = 0
        inputs = dict(had.inputs)
        touched: set[bytes] = set()
        for topic, end in target.items():
            start = had.inputs.get(topic, 0)
            split = max(start, min(anew.get(topic, end), end))
            for since, until in ((start, split), (split, end)):
                for batch in self._read(topic, number, since, until):
                    inputs[topic] = batch[-1].offset() + 1
                    unfinished = Position(dict(had.inputs), had.changelog, 0)
                    differ = task.restore_inputs([inputs_of(topic, number, batch)], unfinished)
                    if anew and since == split:
                        touched |= differ
                    replayed += len(batch)
                    self._observer.restoring(number, topic, inputs[topic], end)
                    self._faults.reach("restoring")
        changelog_end = had.changelog
        if declaration.changelog:
            for batch in self._read(declaration.changelog, number, had.changelog, None):
                said = [(m.key(), m.value()) for m in batch if m.key() is not None]
                task.restore_said(said, Position(dict(had.inputs), had.changelog, 0))
                changelog_end = batch[-1].offset() + 1
                replayed += len(batch)
                self._observer.restoring(
                    number, declaration.changelog, changelog_end, self._end_of(declaration.changelog, number)
                )
        store.apply(of_form(declaration.form), Position(target, changelog_end, now))
        if replayed:
            _log.info(
                "restored",
                processor=declaration.name,
                partition=number,
                records=replayed,
                seconds=round(time.monotonic() - began, 3),
                lagged=lagged,
            )
        everything = bool(anew) and not any(anew.get(topic, 1) for topic, end in target.items() if end)
        return Restored(task, changelog_end, lagged, replayed, anew, None if everything else frozenset(touched))

    def accounts(self, number: int, home: int, ids: SchemaIds) -> list[Account]:
        """What this processor has counted of a partition, as committed. `home`: where its accounts lie."""
        mine = f"{self._processor.declaration.name}|".encode()
        rows: dict[bytes, bytes] = {}
        for batch in self._read(ACCOUNTS, home, 0, None):
            rows.update({m.key(): m.value() for m in batch if m.value() is not None and m.key().startswith(mine)})
        found = [Account.of_row(from_value(ACCOUNTS, value, ids)) for value in rows.values()]
        return [account for account in found if account.partition == number]

    def live_keys(self, topic: str, number: int) -> list[bytes]:
        """Keys of a partition that have a value at the end of the log."""
        live: dict[bytes, None] = {}
        for batch in self._read(topic, number, 0, None):
            for m in batch:
                if m.key() is None or m.key() == HEARTBEAT_KEY:
                    continue
                if m.value() is None:
                    live.pop(m.key(), None)
                else:
                    live[m.key()] = None
        return list(live)

    def superseded(self, topic: str, number: int) -> frozenset[int]:
        """Offsets of records of a partition that a later one of the same key replaces, as the log is now.

        Said again one by one, an old value would be said before the new one, and a deleted record before its end.
        """
        last: dict[bytes, int] = {}
        old: set[int] = set()
        for batch in self._read(topic, number, 0, None):
            for m in batch:
                key, at = m.key(), m.offset()
                if key is not None and at is not None:
                    if key in last:
                        old.add(last[key])
                    last[key] = at
        return frozenset(old)

    def history(self, number: int, stops: Mapping[str, int], headers: bool = False) -> Iterator[Inputs]:
        """Committed records of a partition of some topics, each before an offset, in batches, in the midst of a step.

        All topics are read at once: one after the other, most of the time would be waiting for the first record of
        each.
        """
        left = {self._edition.topic(topic): (topic, stop) for topic, stop in stops.items() if stop > 0}
        kafka.meet(self._consumer, left, self._met)
        self._consumer.assign([TopicPartition(name, number, 0) for name in left])
        quiet = 0
        try:
            while left:
                found: dict[str, list[Message]] = {}
                ended: set[str] = set()
                messages = self._some()
                for m in messages:
                    name, error = m.topic(), m.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        if not error.retriable():
                            raise KafkaException(error)
                    elif error is not None or m.offset() >= left.get(name, ("", 0))[1]:
                        ended.add(name)
                    else:
                        found.setdefault(name, []).append(m)
                for name, batch in found.items():
                    yield inputs_of(left[name][0], number, batch, headers)
                for name in ended:
                    left.pop(name, None)
                quiet = 0 if messages else quiet + 1
                if quiet == _QUIET:
                    _log.warning("waiting_for_broker", topics=sorted(left), partition=number)
        finally:
            self._consumer.unassign()

    def _end_of(self, topic: str, number: int) -> int:
        ends = self._consumer.get_watermark_offsets(TopicPartition(topic, number), cached=True)
        return int(ends[1]) if ends else 0

    def _path(self, number: int) -> Path:
        return self._folder / str(number)

    def _open(self, number: int) -> Store:
        if is_damaged(self._path(number)):
            _log.warning("state_discarded", partition=number, error="damaged")
            discard(self._path(number))
        try:
            store = RocksStore(self._path(number))
            store.position()
            return store
        except Exception as e:  # rocksdict has no narrower type; a damaged cache is rebuilt, never repaired
            _log.warning("state_discarded", partition=number, error=type(e).__name__)
            discard(self._path(number))
            return RocksStore(self._path(number))

    def _tombstones_live_ms(self, topic: str) -> int:
        if topic not in self._tombstones:
            resource = ConfigResource(ResourceType.TOPIC, self._edition.topic(topic))
            entries = self._admin.describe_configs([resource])[resource].result(timeout=30)
            self._tombstones[topic] = int(entries["delete.retention.ms"].value)
        return self._tombstones[topic]

    def _read(
        self, topic: str, number: int, start: int, stop: int | None, alive: bool = True
    ) -> Iterator[list[Message]]:
        """Committed records of offsets start <= o < stop (the end of the log without a stop), in batches.

        `alive`: show the group a sign of life meanwhile, which only works while nothing is read.
        """
        if stop is not None and start >= stop:
            return
        name = self._edition.topic(topic)
        kafka.meet(self._consumer, [name], self._met)
        self._consumer.assign([TopicPartition(name, number, start)])
        quiet = 0
        try:
            while True:
                if alive:
                    self._keep_alive()
                records, ended = [], False
                for m in self._some():
                    error = m.error()
                    if error is None:
                        if stop is not None and m.offset() >= stop:
                            ended = True
                            break
                        records.append(m)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended = True
                        break
                    elif not error.retriable():
                        raise KafkaException(error)
                if records:
                    quiet = 0
                    yield records
                if ended:
                    return
                quiet = 0 if records else quiet + 1
                if quiet == _QUIET:
                    _log.warning("waiting_for_broker", topic=topic, partition=number)
        finally:
            self._consumer.unassign()

    def _some(self) -> list[Message]:
        """What has come: the end of a partition is an event of its own, and is not waited behind."""
        first: list[Message] = self._consumer.consume(1, _WAIT_S)
        if not first or first[0].error() is not None:
            return first
        rest: list[Message] = self._consumer.consume(_BATCH - 1, _FILL_S)
        return first + rest


@dataclass(frozen=True)
class Told:
    """What a commit says of itself besides the offset: when it was made (ms since 1970; None: it is not ours), by which
    version, and, until a replay is through, the offset from which it says everything again."""

    time_ms: int | None
    version: str = ""
    anew: int | None = None


def of_form(form: str) -> Writes:
    """What a state says of its form: written when it is whole, beside the tables of its processor."""
    return {_FORM: {b"": form.encode()}}


def is_of_form(store: Store, form: str) -> bool:
    """Whether a state can be read as this form; one that says nothing is of the first, ""."""
    return (store.get_many(_FORM, [b""])[0] or b"").decode() == form


def metadata_of(time_ms: int, version: str, anew: int | None = None) -> str:
    """A commit's metadata: `<time>[/<anew>] <version>`."""
    return f"{time_ms}{'' if anew is None else f'/{anew}'} {version}".rstrip()


def told_by(metadata: str | None) -> Told:
    """The metadata of a commit, read."""
    head, _, version = (metadata or "").partition(" ")
    time_ms, slash, anew = head.partition("/")
    if not time_ms.isdigit() or (slash and not anew.isdigit()):
        return Told(None)
    return Told(int(time_ms), version, int(anew) if slash else None)


def inputs_of(
    topic: str,
    number: int,
    messages: Sequence[Message],
    headers: bool = False,
    superseded: frozenset[int] = frozenset(),
) -> Inputs:
    """Messages of one partition as a processor takes them; with their headers if it wants them."""
    return Inputs(
        topic,
        number,
        [m.key() for m in messages],
        [m.value() for m in messages],
        [m.offset() for m in messages],
        [m.timestamp()[1] for m in messages],
        [m.headers() for m in messages] if headers else None,
        superseded,
    )
