"""The brokerless driver: records in, records out, on the very declarations and functions that the workers run.

Topics are lists. Every choice that Kafka leaves open (which task goes next, how many records it takes) is drawn from a
seeded generator, and a task can be crashed before or after its commit, so that a test can try every interleaving.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

from schemas.registry import SchemaIds
from stream_processors.balance import BALANCES
from stream_processors.runtime.account import Accountant, home_of
from stream_processors.runtime.processor import Declaration, Processor
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import History, MemoryStore, Position, Store
from stream_processors.runtime.task import Step, Task


class Record(NamedTuple):
    """One record of a log. `time` is the broker's, in ms since 1970."""

    offset: int
    key: bytes | None
    value: bytes | None
    time: int
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Log:
    """One partition: records by ascending offset; `end` is the next offset, also after compaction."""

    records: list[Record] = field(default_factory=list)
    end: int = 0

    def append(
        self, key: bytes | None, value: bytes | None, time: int, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Add a record at the end."""
        self.records.append(Record(self.end, key, value, time, tuple(headers)))
        self.end += 1

    def read(self, start: int, count: int | None = None, stop: int | None = None) -> list[Record]:
        """Up to `count` records from offset `start`, before `stop`."""
        found = [r for r in self.records if r.offset >= start and (stop is None or r.offset < stop)]
        return found if count is None else found[:count]

    def compact(self, drop_tombstones: bool) -> None:
        """Keep the last record of each key; with `drop_tombstones`, as long after as `delete.retention.ms` allows."""
        last = {r.key: r.offset for r in self.records}
        self.records = [
            r for r in self.records if last[r.key] == r.offset and not (drop_tombstones and r.value is None)
        ]


@dataclass(frozen=True)
class _Taken:
    """A step of a task with what it took in, and where that ends."""

    inputs: list[Inputs]
    ends: dict[str, int]
    step: Step


class Driver:
    """A cluster of one process: topics, and one task for each processor and partition."""

    def __init__(
        self, processors: Iterable[Processor], partitions: int, seed: int = 0, accounts: SchemaIds | None = None
    ) -> None:
        """`accounts`: what accounts are written by; none are without it."""
        self.partitions = partitions
        self.topics: dict[str, list[Log]] = {}
        self.counts: dict[str, int] = {}
        self.now = 0
        """The broker's time of what processors write, in ms since 1970."""
        self._random = random.Random(seed)  # noqa: S311  (an order of events, not a secret)
        self._tasks = [(p, n) for p in processors for n in range(partitions)]
        self._state: dict[tuple[str, int], Task] = {
            (p.declaration.name, n): Task(p, n, MemoryStore(), self._history((p.declaration.name, n)))
            for p, n in self._tasks
        }
        self._committed: dict[tuple[str, int], dict[str, int]] = {key: {} for key in self._state}
        self._superseded: dict[tuple[tuple[str, int], str], frozenset[int]] = {}
        self._more: set[tuple[str, int]] = set()
        """Tasks that have more to say than they have said."""
        self.accountants = {
            (name, n): Accountant(name, n, accounts, BALANCES.get(name), home=home_of(name, partitions))
            for name, n in self._state
            if accounts
        }

    def log(self, topic: str, partition: int) -> Log:
        """A partition of a topic; the topic is made when it is first named."""
        logs = self.topics.get(topic)
        if logs is None:
            logs = self.topics[topic] = [Log() for _ in range(self.partitions)]
        return logs[partition]

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        time: int = 0,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Publish a record."""
        self.log(topic, partition).append(key, value, time, headers)

    def committed(self, key: tuple[str, int], topic: str) -> int:
        """The offset that a task goes on at."""
        return self._committed[key].get(topic, 0)

    def move(self, key: tuple[str, int], topic: str, offset: int) -> None:
        """Have a task that stands still go on at another offset, as an operator can."""
        self._committed[key][topic] = offset
        if key in self.accountants:
            self.accountants[key].resume(self._committed[key], 0)

    def table(self, topic: str) -> dict[bytes, bytes]:
        """A topic compacted: the last value of each key, without the deleted ones."""
        out: dict[bytes, bytes] = {}
        for log in self.topics.get(topic, []):
            for r in log.records:
                if r.key is None:
                    continue
                if r.value is None:
                    out.pop(r.key, None)
                else:
                    out[r.key] = r.value
        return out

    def run(
        self, batch: int = 10_000, until: Callable[[], bool] | None = None, only: Container[str] | None = None
    ) -> int:
        """Run tasks in random order, with batches of up to `batch` records, until all is at rest. Returns the steps.

        `only`: the processors that run; the others stand still.
        """
        steps = 0
        while True:
            ready = [key for key in self.ready() if only is None or key[0] in only]
            if not ready or (until is not None and until()):
                return steps
            self.step(self._random.choice(ready), self._random.randint(1, batch))
            steps += 1

    def step(self, key: tuple[str, int], most: int, crash: str | None = None, ahead: int = 0) -> None:
        """One transaction of one task. `crash`: `before` the commit, or `after` it and before the state is written.

        `ahead`: two transactions, of which the second takes so many records before the first is committed, as a worker
        does. A crash is the first one's; an `abort` takes the first back, and the second with it, and nothing dies.
        """
        first = self._take(key, most)
        second: _Taken | None = None
        if ahead:
            committed = self._committed[key]
            self._committed[key] = {**committed, **first.ends}
            second = self._take(key, ahead, first.step)
            self._committed[key] = committed
        if crash in ("before", "abort"):
            if crash == "before":
                self.crash(key)
            return
        self._commit(key, first)
        if crash == "after":
            self.crash(key)
            return
        self._state[key].commit(first.step, self._position(key))
        if second is not None:
            self._commit(key, second)
            self._state[key].commit(second.step, self._position(key))

    def _take(self, key: tuple[str, int], most: int, after: Step | None = None) -> _Taken:
        """Up to `most` records of each topic through one step, which changes nothing."""
        inputs: list[Inputs] = []
        ends: dict[str, int] = {}
        for topic in self._pending(key):
            records = self.log(topic, key[1]).read(self.committed(key, topic), most)
            ends[topic] = records[-1].offset + 1 if records else self.log(topic, key[1]).end
            inputs.append(_inputs(topic, key[1], records, self._superseded.get((key, topic), frozenset())))
        return _Taken(inputs, ends, self._state[key].step(inputs, after))

    def _commit(self, key: tuple[str, int], taken: _Taken) -> None:
        """Outputs and offsets of a step, and its account."""
        outputs = taken.step.outputs
        (self._more.add if outputs.more else self._more.discard)(key)
        accountant = self.accountants.get(key)
        if accountant is not None:
            booked = accountant.book(taken.inputs, outputs, taken.step.writes, taken.ends, 0)
            outputs.emits.append(booked.emit)
            accountant.commit(booked)
        self._append(outputs)
        for name, n in outputs.counts.items():
            self.counts[f"{key[0]}.{name}"] = self.counts.get(f"{key[0]}.{name}", 0) + n
        self._committed[key].update(taken.ends)

    def _append(self, outputs: Outputs) -> None:
        for emit in outputs.emits:
            for i, (k, v) in enumerate(zip(emit.keys, emit.values, strict=True)):
                partition = emit.partitions if isinstance(emit.partitions, int) else emit.partitions[i]
                self.log(emit.topic, partition).append(k, v, self.now, emit.headers[i] if emit.headers else ())

    def crash(self, key: tuple[str, int], lose_state: bool = False) -> None:
        """Kill a task, and start it again as a worker does: replay the gap silently, then the changelog's tail."""
        task = self._state[key]
        declaration = task.processor.declaration
        if lose_state or declaration.stateless:
            task = self._state[key] = Task(task.processor, key[1], MemoryStore(), self._history(key))
        had = task.store.position()
        for topic in dict.fromkeys([*self._committed[key], *(t for t in declaration.recalls if t in self.topics)]):
            end = None if topic in declaration.recalls else self._committed[key][topic]
            records = self.log(topic, key[1]).read(had.inputs.get(topic, 0), stop=end)
            task.restore_inputs([_inputs(topic, key[1], records)], had)
        changelog = task.processor.declaration.changelog
        if changelog:
            tail = [(r.key, r.value) for r in self.log(changelog, key[1]).read(had.changelog) if r.key is not None]
            task.restore_said(tail, had)
        task.store.apply({}, self._position(key))
        if declaration.says_in_parts:
            self._more.add(key)
        if (accountant := self.accountants.get(key)) is not None:
            for topic, held in task.held().items():
                accountant.recount(topic, held)

    def lag(self, key: tuple[str, int], most: int = 10_000) -> None:
        """A task that lost its state and was away longer than tombstones live: rebuild, catch up, then reconcile.

        A task that keeps nothing reads its inputs again from the beginning, and takes back what it no longer says.
        """
        declaration = self._state[key].processor.declaration
        from_end = {t: self.log(t, key[1]).end for t in declaration.derives}
        accountant = self.accountants.get(key)
        if accountant is not None and not declaration.stateless:
            accountant.forget(self._committed[key])
        elif accountant is not None:
            accountant.resume(dict.fromkeys(self._committed[key], 0), 0)
        if declaration.stateless:
            self._committed[key].clear()
            self._superseded = {(key, t): _superseded(self.log(t, key[1])) for t in self._pending(key)}
        self.crash(key, lose_state=True)
        while self._pending(key):
            self.step(key, most)
        self._superseded = {}
        task = self._state[key]
        result = task.reconcile()
        if declaration.stateless:
            for topic, end in from_end.items():
                log = self.log(topic, key[1])
                said = {r.key for r in log.read(end)}
                orphans = {r.key: None for r in log.read(0, stop=end) if r.key is not None and r.key not in said}
                result.outputs.emit(topic, key[1], list(orphans), list(orphans.values()))
        self._said(key, result)

    def replay(self, key: tuple[str, int]) -> None:
        """What an operator's replay makes of a task: rebuild, catch up, reconcile, and say everything anew."""
        self.lag(key)
        for step in self._state[key].anew():
            self._said(key, step)

    def _said(self, key: tuple[str, int], result: Step) -> None:
        """Outputs and state of a step that takes no record in."""
        accountant = self.accountants.get(key)
        if accountant is not None:
            booked = accountant.book([], result.outputs, result.writes, {}, 0)
            accountant.commit(booked)
            result.outputs.emits.append(booked.emit)
        self._append(result.outputs)
        self._state[key].commit(result, self._position(key))

    def ready(self) -> list[tuple[str, int]]:
        """Tasks that have records to take, or more to say."""
        return [key for key in self._state if key in self._more or self._pending(key)]

    def replace(self, processor: Processor) -> None:
        """Start a processor anew in another version. One that keeps nothing must then `lag`, as a worker does."""
        for key, task in self._state.items():
            if key[0] == processor.declaration.name:
                task.processor = processor

    @property
    def tasks(self) -> list[tuple[str, int]]:
        """Processor and partition of every task."""
        return list(self._state)

    def declaration(self, name: str) -> Declaration:
        """What a processor declares."""
        return self._state[name, 0].processor.declaration

    def behind(self, key: tuple[str, int], topic: str) -> bool:
        """Whether a task has records of a topic to take."""
        return topic in self._pending(key)

    def state(self, key: tuple[str, int]) -> dict[str, dict[bytes, bytes]]:
        """The tables of a task, as committed."""
        task = self._state[key]
        return {t.name: dict(task.store.scan(t.name, b"")) for t in task.processor.declaration.keeps}

    def _history(self, key: tuple[str, int]) -> History:
        def history(pattern: str) -> Iterator[Inputs]:
            for topic in list(self.topics):
                if reads_topic((pattern,), topic):
                    records = self.log(topic, key[1]).read(0, stop=self._committed[key].get(topic, 0))
                    yield _inputs(topic, key[1], records)

        return history

    def store(self, key: tuple[str, int]) -> Store:
        """The store of a task."""
        return self._state[key].store

    def _pending(self, key: tuple[str, int]) -> list[str]:
        committed = self._committed[key]
        reads = self._state[key].processor.declaration.reads
        return [
            topic
            for topic, logs in self.topics.items()
            if reads_topic(reads, topic) and committed.get(topic, 0) < logs[key[1]].end
        ]

    def _position(self, key: tuple[str, int]) -> Position:
        changelog = self._state[key].processor.declaration.changelog
        return Position(dict(self._committed[key]), self.log(changelog, key[1]).end if changelog else 0)


def reads_topic(reads: Iterable[str], topic: str) -> bool:
    """Whether a declaration's patterns name a topic. Quarantine is written by processors, and read by none."""
    return _named(tuple(reads), topic)


@cache
def _named(patterns: tuple[str, ...], topic: str) -> bool:
    return not topic.endswith(".quarantine") and any(fnmatchcase(topic, pattern) for pattern in patterns)


def _superseded(log: Log) -> frozenset[int]:
    """Offsets of records that a later one of the same key replaces."""
    last = {r.key: r.offset for r in log.records}
    return frozenset(r.offset for r in log.records if r.key is not None and last[r.key] != r.offset)


def _inputs(topic: str, partition: int, records: Sequence[Record], superseded: frozenset[int] = frozenset()) -> Inputs:
    return Inputs(
        topic,
        partition,
        [r.key for r in records],
        [r.value for r in records],
        [r.offset for r in records],
        [r.time for r in records],
        [r.headers for r in records],
        superseded,
    )
