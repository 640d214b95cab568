"""The transactional loop: consume a batch, step each partition, commit outputs and offsets together, apply the state.

While the broker commits a batch, the next one is taken and stepped upon it, as if it were applied already. Nothing of
the next is produced before that: a transaction that aborts takes the step upon it along.

A crash before the Kafka commit leaves the store untouched. A crash after it leaves the store behind the committed
offsets, and the next start replays the gap with outputs off. A transaction that must abort rewinds to the committed
offsets. Anything that this worker cannot be sure of (a fenced producer, a commit that timed out: librdkafka issue 5423)
ends the session: clients are closed, the old epoch is fenced, and the state is restored from what is committed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from infra.settings import Settings
from schemas.registry import SchemaIds
from stream_processors.balance import BALANCES
from stream_processors.edition import Edition
from stream_processors.runtime import kafka
from stream_processors.runtime.account import Accountant, Booked, home_of
from stream_processors.runtime.faults import Faults
from stream_processors.runtime.instance import Instance
from stream_processors.runtime.observer import Batch, Observer, Part, Place, Unobserved
from stream_processors.runtime.processor import Processor
from stream_processors.runtime.records import Emit, Inputs, Outputs
from stream_processors.runtime.restore import Restorer, inputs_of, metadata_of
from stream_processors.runtime.state import History, Leftovers, Position
from stream_processors.runtime.task import Step, Task

_log = structlog.get_logger()
_CALL_S = 30.0
_IDLE_S = 0.2
_FILL_S = 0.03
_BUSY_RECORDS = 1_000
_BUSY_FILL_S = 0.5
_LULL_S = 0.1
_ASK_AGAIN_S = 5.0
_COLLECT_EVERY = 100
_TIDY_S = 60.0
_PLACES_EVERY_S = 1.0
_PARTS_S = 5.0


class SessionLostError(RuntimeError):
    """The session cannot go on: clients are made anew and the state is restored. The message names the error's code."""


@dataclass
class _Slot:
    """One assigned partition number: its task, and what it still owes."""

    topics: list[str]
    task: Task
    at_end: set[str] = field(default_factory=set)
    accountant: Accountant | None = None
    reconcile: bool = False
    """Once its inputs are caught up with, all that was said is held to what is true. Until then, and until what a
    replay is about is said anew, commits look as old as can be: a crash makes it start over."""
    sweep_at: float = 0.0
    """When its files are rewritten without what was deleted, on the monotonic clock."""
    written: bool = True
    """Whether anything was written since they were; what a restart finds may have been."""
    replayed: dict[str, set[bytes]] | None = None
    """A stateless processor that re-reads all of its inputs: the keys that it said per output topic."""
    anew: Mapping[str, int] = field(default_factory=dict)
    """A replay: topic to the offset from which it says everything again."""
    touched: frozenset[bytes] | None = None
    """A replay: what it is about; None for everything."""
    more: bool = False
    """Whether there is more to say than was said: a step without records says it."""
    superseded: dict[str, frozenset[int]] = field(default_factory=dict)
    """While it reads all of them: per input topic, offsets of records that later ones replace."""

    @property
    def missing(self) -> set[str]:
        """Inputs whose end was not told since they were assigned."""
        return set(self.topics) - self.at_end

    @property
    def caught_up(self) -> bool:
        """Whether it has to reconcile, and can: all that there is was read."""
        return self.reconcile and not self.missing


@dataclass
class _Transaction:
    """One over all partitions of a batch. `ends`: by partition number and topic, the offset that is committed.

    `inputs`: None if it is no batch. `seconds`: how long its parts took.
    """

    steps: dict[int, Step]
    ends: dict[int, dict[str, int]]
    inputs: Mapping[int, Sequence[Inputs]] | None = None
    seconds: dict[Part, float] = field(default_factory=dict)
    booked: dict[int, Booked] = field(default_factory=dict)
    now_ms: int = 0
    began: float = 0.0
    done: Future[None] | None = None
    """Raises what the broker answered, if it is not committed."""


class Worker:
    """Runs one processor until told to stop."""

    def __init__(
        self,
        processor: Processor,
        settings: Settings,
        instance: Instance,
        *,
        faults: Faults | None = None,
        observer: Observer | None = None,
        accounts: SchemaIds | None = None,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
        on_batch: Callable[[int], None] = lambda _n: None,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        """`accounts`: what accounts are written by; none are without it. `on_batch` is told of each commit and its
        records; `on_idle` of each wait in vain at the ends of all inputs."""
        self._processor, self._instance = processor, instance
        self._settings = settings.acting_as(processor.declaration.name)
        self._faults = faults or Faults()
        self.observer: Observer = observer or Unobserved()
        self.accounts = accounts
        self._now_ms, self._on_batch, self._on_idle = now_ms, on_batch, on_idle
        self._stopping = False
        self._batches = 0
        self.log = _log.bind(processor=processor.declaration.name, instance=instance.number)

    def stop(self) -> None:
        """Finish the batch in hand, commit it, and return from `run`."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    def run(self) -> None:
        """Sessions, one after the other, until stopped. Waits for the broker as long as it takes."""
        pause = 0.2
        # A batch makes hundreds of thousands of objects and no cycles: without the collector's scans a step takes a
        # fifth less time. What cycles there are (exceptions, closed sessions) are collected between batches.
        gc.collect()
        gc.freeze()
        gc.disable()
        while not self._stopping:
            session: _Session | None = None
            began = time.monotonic()
            try:
                session = _Session(self._processor, self._settings, self._instance, self, self._faults)
                session.run()
            except SessionLostError as e:
                self.observer.ended("session_lost")
                self.log.warning("session_lost", error=str(e), retry_in_s=pause)
            except KafkaException as e:
                error = kafka.error_of(e)
                self.log.warning("waiting_for_broker", error=kafka.describe(error), retry_in_s=pause)
            finally:
                if session is not None:
                    session.close()
                self.observer.revoked()
            if self._stopping:
                return
            if time.monotonic() - began > 60:
                pause = 0.2
            self.observer.turned()
            time.sleep(pause)  # between attempts to reach a broker that is away
            pause = min(5.0, pause * 2)

    def batch_done(self, records: int) -> None:
        """Called after each commit with the number of records in it."""
        self._batches += 1
        if not self._batches % _COLLECT_EVERY:
            gc.collect()
        self._on_batch(records)

    def idle(self) -> None:
        """Called when no record came and the ends of all inputs were seen."""
        self._on_idle()

    def now_ms(self) -> int:
        """Milliseconds since 1970; only for how old a state is, never for what a record becomes."""
        return self._now_ms()


class _Session:
    def __init__(
        self, processor: Processor, settings: Settings, instance: Instance, worker: Worker, faults: Faults
    ) -> None:
        self._processor, self._settings, self._worker, self._faults = processor, settings, worker, faults
        self._declaration = processor.declaration
        self._log = worker.log
        name = self._declaration.name
        self._observer = worker.observer
        self._restorer = Restorer(
            processor, settings, instance.folder, faults, worker.now_ms, self._keep_alive, self._observer
        )
        self._slots: dict[int, _Slot] = {}
        self._assigned: list[TopicPartition] | None = None
        self._edition = Edition(settings.edition)
        transactional_id = self._edition.transactional_id(name, instance.member)
        self._producer = Producer(kafka.producer_config(settings, instance.member, transactional_id))
        self._consumer = Consumer(kafka.consumer_config(settings, self._edition.group(name), instance.member))
        self._changelog_end: dict[int, int] = {}
        self._next: dict[tuple[str, int], int] = {}
        self._heard: dict[tuple[str, int], float] = {}
        self._leftovers = Leftovers(instance.folder, settings.sweep_seconds)
        self._tidy_at = 0.0
        self._placed = 0.0
        self._ended: dict[tuple[str, int], int] = {}
        self._in_flight: _Transaction | None = None
        self._committer = ThreadPoolExecutor(1, "commit")
        self._lost: SessionLostError | None = None
        self._consumed = 0.0

    def run(self) -> None:
        self._producer.init_transactions(_CALL_S)  # fences whoever had this id, and ends what it left open
        self._consumer.subscribe(
            [self._edition.topic(t) for t in kafka.subscription(self._declaration.reads)],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )
        self._log.info("started")
        while not self._worker.stopping:
            messages = self._consume() if self._may_consume() else []
            self._observer.turned()
            if self._lost is not None:
                raise self._lost
            self._say_places()
            if self._assigned is not None:
                self._take_over()
                continue
            if self._slots and (messages or self._more()):  # a revocation may have come behind the first of them
                self._process(messages)
            elif self._land() and self._slots and not self._missing():
                self._worker.idle()
            self._ask_again()
            for number, slot in self._slots.items():
                if slot.caught_up and self._land() and slot.caught_up:
                    self._reconcile(number, slot)
            self._sweep()
        self._land()
        self._log.info("drained")

    def close(self) -> None:
        # Whether the last transaction went through is found out by who opens the state next.
        self._committer.shutdown(wait=True)
        self._in_flight = None
        for slot in self._slots.values():
            slot.task.store.close()
        self._slots = {}
        self._restorer.close()
        self._consumer.close()
        # A transactional producer has nothing left to flush here: what was not committed is to be forgotten.
        self._producer.purge()
        self._producer.poll(0)

    def _keep_alive(self) -> None:
        """A long restore must not look like a dead member. What comes is dropped: `_read_on` is called after it."""
        self._observer.turned()
        for message in self._consumer.consume(1, 0):
            self._check(message)
        if self._assigned is not None:
            raise SessionLostError("partitions were assigned anew during a restore")

    def _missing(self) -> list[tuple[str, int]]:
        """Of all partitions."""
        return [(topic, number) for number, slot in self._slots.items() for topic in slot.missing]

    def _ask_again(self) -> None:
        """Have an end told again that may have been told in vain.

        librdkafka tells the end of a partition once, and one that it tells between two assignments is lost. On an input
        with traffic the next is told soon. Nobody else would miss that of a quiet one, but a session that has to
        reconcile waits for all ends, and would for as long as the others have traffic.
        """
        since = time.monotonic() - _ASK_AGAIN_S
        if any(self._heard[of] < since for of in self._missing()) and self._land():
            self._read_on()

    def _sweep(self) -> None:
        """Have no deleted byte in a state folder for longer than the settings say.

        One partition at a time is rewritten. What partitions that are elsewhere now have left is removed as late.
        """
        now, every = time.monotonic(), self._settings.sweep_seconds
        due = [(s.sweep_at, n) for n, s in self._slots.items() if s.sweep_at <= now and not self._declaration.stateless]
        if due:
            slot = self._slots[min(due)[1]]
            if slot.written:
                slot.task.store.sweep(self._worker.now_ms())
            slot.written, slot.sweep_at = False, time.monotonic() + every
        if now >= self._tidy_at:
            self._tidy_at = now + min(every, _TIDY_S)
            for number in self._leftovers.remove(now, self._slots.keys()):
                self._log.info("state_discarded", partition=number)

    def _more(self) -> bool:
        return any(slot.more for slot in self._slots.values())

    def _may_consume(self) -> bool:
        """Whether records are to be taken. What there is more to say goes before them, as long as the consumer does not
        look dead: what is said in parts would come back as records among the parts, and delay them."""
        now = time.monotonic()
        if self._more() and now < self._consumed + _PARTS_S:
            return False
        self._consumed = now
        return True

    def _consume(self) -> list[Message]:
        """Records, as many as are there up to the batch size; waits a moment for the first and less for the rest.

        Under load it waits longer: a larger batch says once what smaller ones would say and correct, all the way down.
        But not when nothing comes at the ends of all inputs.
        """
        first = self._consumer.consume(1, 0 if self._more() else _IDLE_S)
        found = [m for m in first if self._check(m)]
        if not first or self._assigned is not None:
            return found
        most = self._settings.batch_records
        found += self._checked(most - 1, _FILL_S)
        if len(found) <= _BUSY_RECORDS:
            return found
        until = time.monotonic() + _BUSY_FILL_S
        while self._assigned is None and len(found) < most and (left := until - time.monotonic()) > 0:
            more = self._checked(most - len(found), min(_LULL_S, left))
            if not more and self._at_ends():
                break
            found += more
        return found

    def _checked(self, most: int, seconds: float) -> list[Message]:
        return [m for m in self._consumer.consume(most, seconds) if self._check(m)]

    def _at_ends(self) -> bool:
        """Whether no input has told a record since it told its end."""
        if not self._next.keys() <= self._ended.keys():
            return False
        of = [TopicPartition(self._edition.topic(topic), number) for topic, number in self._next]
        return all(
            tp.offset <= self._ended[self._edition.plain(tp.topic), tp.partition] for tp in self._consumer.position(of)
        )

    def _check(self, message: Message) -> bool:
        """Whether a message is a record. Marks the ends of partitions."""
        error = message.error()
        if error is None:
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            slot = self._slots.get(message.partition())
            if slot is not None:
                plain = self._edition.plain(message.topic())
                slot.at_end.add(plain)
                self._ended[plain, message.partition()] = message.offset()
            return False
        if error.fatal() or error.code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._MAX_POLL_EXCEEDED):
            raise SessionLostError(kafka.describe(error))
        self._log.warning("waiting_for_broker", error=kafka.describe(error))
        return False

    # Assignment. Callbacks run inside `consume`, when one transaction may be in flight.

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign(partitions)
        if partitions:
            consumer.pause(partitions)
        self._assigned = partitions

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:  # noqa: ARG002
        try:
            self._land(read_on=False)
        except SessionLostError as e:
            self._lost = e  # raised after `consume`: nothing may be raised through the client
        for slot in self._slots.values():
            slot.task.store.close()
        self._slots, self._next = {}, {}
        self._assigned = None
        self._observer.revoked()
        consumer.unassign()

    def _take_over(self) -> None:
        """Bring the state of every assigned partition to its committed offsets, then let records flow."""
        partitions, self._assigned = self._assigned or [], None
        committed = self._consumer.committed(partitions, _CALL_S) if partitions else []
        numbers: dict[int, list[TopicPartition]] = {}
        for tp in committed:
            if tp.error is not None:
                raise SessionLostError(kafka.describe(tp.error))
            plain = self._edition.plain(tp.topic)
            at_plain = TopicPartition(plain, tp.partition, tp.offset, metadata=tp.metadata or "")
            numbers.setdefault(tp.partition, []).append(at_plain)
        for number, at in sorted(numbers.items()):
            restored = self._restorer.restore(number, at)
            slot = _Slot([tp.topic for tp in at], restored.task, reconcile=restored.lagged)
            slot.sweep_at = time.monotonic() + self._settings.sweep_seconds
            slot.anew, slot.touched = restored.anew, restored.touched
            slot.more = self._declaration.says_in_parts
            reads_again = restored.lagged and self._declaration.stateless
            if reads_again and not any(slot.anew.get(tp.topic, 0) for tp in at):
                slot.replayed = {t: set() for t in self._declaration.derives}
                slot.superseded = {tp.topic: self._restorer.superseded(tp.topic, number) for tp in at}
            self._slots[number] = slot
            restored.task.history = self._history(number, slot.topics)
            for tp in at:
                again = slot.anew.get(tp.topic, max(tp.offset, 0) if slot.anew else 0)
                self._next[tp.topic, number] = again if reads_again else max(tp.offset, 0)
            slot.accountant = self._accountant(number, {tp.topic: self._next[tp.topic, number] for tp in at})
            if slot.accountant is not None and restored.lagged and not self._declaration.stateless:
                slot.accountant.forget({tp.topic: self._next[tp.topic, number] for tp in at}, slot.anew)
            if slot.accountant is not None and (restored.replayed or restored.lagged):
                for topic, held in restored.task.held().items():
                    slot.accountant.recount(topic, held)
            self._changelog_end[number] = restored.changelog_end
        self._read_on()
        self._observer.assigned(sorted(numbers))
        self._log.info("assigned", partitions=sorted(numbers))

    def _history(self, number: int, topics: Sequence[str]) -> History:
        def history(pattern: str) -> Iterator[Inputs]:
            stops = {t: self._taken(t, number) for t in topics if fnmatchcase(t, pattern)}
            return self._restorer.history(number, stops, self._declaration.headers)

        return history

    def _taken(self, topic: str, number: int) -> int:
        """The offset after the last record that was stepped, committed or in flight."""
        ahead = self._in_flight.ends.get(number, {}) if self._in_flight is not None else {}
        return ahead.get(topic, self._next[topic, number])

    def _accountant(self, number: int, positions: dict[str, int]) -> Accountant | None:
        """With the accounts that were committed, held to where reading goes on."""
        if self._worker.accounts is None:
            return None
        name = self._declaration.name
        home = home_of(name, self._settings.partitions)
        accounts = self._restorer.accounts(number, home, self._worker.accounts)
        made = Accountant(name, number, self._worker.accounts, BALANCES.get(name), accounts, home)
        for gap in made.resume(positions, self._worker.now_ms()):
            self._log.error("skipped", topic=gap.ranges[0].topic, partition=number, records=gap.found - gap.expected)
        return made

    def _read_on(self) -> None:
        """Read every assigned partition from the offset after its last committed record."""
        self._ended = {}
        name = self._edition.topic
        positions = [TopicPartition(name(topic), number, at) for (topic, number), at in self._next.items()]
        self._consumer.assign(positions)
        if positions:
            self._consumer.resume(positions)
        self._heard = dict.fromkeys(self._next, time.monotonic())

    def _say_places(self) -> None:
        if time.monotonic() < self._placed + _PLACES_EVERY_S:
            return
        self._placed = time.monotonic()
        places = []
        for (topic, number), at in self._next.items():
            tp = TopicPartition(self._edition.topic(topic), number)
            ends = self._consumer.get_watermark_offsets(tp, cached=True)
            at = max(at, self._ended.get((topic, number), 0))  # the markers of transactions at the end are no records
            places.append(Place(topic, number, at, max(at, ends[1]) if ends else at))
        self._observer.places(places)

    # Batches.

    def _process(self, messages: Sequence[Message]) -> None:
        began = time.perf_counter()
        self._faults.reach("taken")
        batches: dict[tuple[int, str], list[Message]] = {}
        for message in messages:
            batches.setdefault((message.partition(), message.topic()), []).append(message)
        if self._edition.name:
            batches = {(number, self._edition.plain(topic)): found for (number, topic), found in batches.items()}
        steps: dict[int, Step] = {}
        ends: dict[int, dict[str, int]] = {}
        inputs: dict[int, list[Inputs]] = {}
        for (number, topic), found in batches.items():
            self._heard[topic, number] = time.monotonic()
            inputs.setdefault(number, []).append(self._inputs(topic, number, found))
            ends.setdefault(number, {})[topic] = found[-1].offset() + 1
        before = self._in_flight.steps if self._in_flight is not None else {}
        for number, slot in self._slots.items():
            if slot.more and number not in inputs:
                inputs[number], ends[number] = [], {}
        for number, group in inputs.items():
            slot = self._slots[number]
            steps[number] = slot.task.step(group, before.get(number))
            slot.more = steps[number].outputs.more
            self._note_replayed(slot, steps[number])
        transaction = _Transaction(steps, ends, inputs, {"compute": time.perf_counter() - began})
        if self._land():  # if not, its records are read again, and these after them
            self._launch(transaction)

    def _observe(self, transaction: _Transaction) -> None:
        counts: dict[str, int] = {}
        for step in transaction.steps.values():
            for name, n in step.outputs.counts.items():
                counts[name] = counts.get(name, 0) + n
        emits = [emit for step in transaction.steps.values() for emit in step.outputs.emits]
        inputs = [i for group in (transaction.inputs or {}).values() for i in group]
        self._worker.batch_done(sum(len(i.keys) for i in inputs))
        self._observer.batch(Batch(inputs, emits, counts, transaction.seconds))

    def _inputs(self, topic: str, number: int, found: Sequence[Message]) -> Inputs:
        superseded = self._slots[number].superseded.get(topic, frozenset())
        return inputs_of(topic, number, found, self._declaration.headers, superseded)

    def _reconcile(self, number: int, slot: _Slot) -> None:
        """The inputs were caught up with after tombstones may have been missed: take back what has no ground any
        more."""
        step = slot.task.reconcile()
        slot.more = step.outputs.more
        if slot.replayed is not None:
            for topic, said in slot.replayed.items():
                orphans = [k for k in self._restorer.live_keys(topic, number) if k not in said]
                step.outputs.emit(topic, number, orphans, [None] * len(orphans))
        again = slot.replayed is not None
        through = self._transact({number: step}, {number: {}})
        if through and slot.anew and not self._declaration.stateless:
            through = all(self._transact({number: anew}, {number: {}}) for anew in slot.task.anew(slot.touched))
        if through:
            ends = {topic: at for (topic, partition), at in self._next.items() if partition == number}
            was = slot.replayed, slot.anew
            slot.reconcile, slot.replayed, slot.anew, slot.superseded = False, None, {}, {}
            through = self._transact({number: Step(Outputs(), {})}, {number: ends})
            if through:
                self._log.info("said_anew" if was[1] else "reconciled", partition=number)
            else:
                slot.reconcile, (slot.replayed, slot.anew) = True, was
        if again and not through:
            raise SessionLostError("aborted while everything was said anew")
        if again:  # signs of life while the outputs were read have taken records, and dropped them
            self._read_on()

    def _note_replayed(self, slot: _Slot, step: Step) -> None:
        if slot.replayed is None:
            return
        for emit in step.outputs.emits:
            said = slot.replayed.get(emit.topic)
            if said is None:
                continue
            for key, value in zip(emit.keys, emit.values, strict=True):
                (said.discard if value is None else said.add)(key)

    def _transact(self, steps: dict[int, Step], ends: dict[int, dict[str, int]]) -> bool:
        """A transaction without a batch, waited for; False if it was aborted and the consumer rewound."""
        self._launch(_Transaction(steps, ends))
        return self._land()

    def _launch(self, transaction: _Transaction) -> None:
        """Produce what the steps say, and have it committed. None may be in flight.

        What the broker answers is told by `_land`.
        """
        transaction.began = time.perf_counter()
        transaction.now_ms = now = self._worker.now_ms()
        steps, ends, booked = transaction.steps, transaction.ends, transaction.booked
        offsets = [
            TopicPartition(self._edition.topic(topic), number, end, metadata=self._metadata(topic, number, now))
            for number, topics in ends.items()
            for topic, end in topics.items()
        ]
        for number, step in steps.items():
            if (accountant := self._slots[number].accountant) is not None:
                inputs = (transaction.inputs or {}).get(number, ())
                booked[number] = accountant.book(inputs, step.outputs, step.writes, ends[number], now)
        self._in_flight = transaction
        try:
            self._producer.begin_transaction()
            for number, step in steps.items():
                for emit in step.outputs.emits:
                    self._produce(emit, number)
                if number in booked:
                    self._produce(booked[number].emit, number)
        except KafkaException as e:
            transaction.done = Future()
            transaction.done.set_exception(e)
            return
        self._faults.reach("produced")
        transaction.done = self._committer.submit(self._commit, offsets, self._consumer.consumer_group_metadata())

    def _commit(self, offsets: list[TopicPartition], member: object) -> None:
        """Runs beside the loop and touches nothing but the producer: all of it is waiting.

        Raises:
            KafkaException: it is not committed, or nobody knows.
        """
        if offsets:
            self._retried(lambda: self._producer.send_offsets_to_transaction(offsets, member, _CALL_S))
        self._faults.reach("offsets_sent")
        self._producer.flush(_CALL_S)  # serves the delivery reports that the commit would wait for
        self._retried(lambda: self._producer.commit_transaction(_CALL_S))
        self._faults.reach("committed")

    def _land(self, read_on: bool = True) -> bool:
        """Wait for the transaction in flight, if there is one, and apply it; False if it was aborted.

        `read_on`: after an abort, the consumer reads again what was not committed.

        Raises:
            SessionLostError: it is not known to be either.
        """
        transaction, self._in_flight = self._in_flight, None
        if transaction is None or transaction.done is None:
            return True
        try:
            transaction.done.result()
        except KafkaException as e:
            self._abort(kafka.error_of(e), read_on)
            return False
        seconds, ends, booked, now = transaction.seconds, transaction.ends, transaction.booked, transaction.now_ms
        began = time.perf_counter()
        seconds["commit"] = began - transaction.began
        self._observer.ended("committed")
        for number, step in transaction.steps.items():
            self._next.update({(topic, number): end for topic, end in ends[number].items()})
            slot = self._slots[number]
            was = slot.task.store.position()
            if number in booked and slot.accountant is not None:
                for found in slot.accountant.commit(booked[number]):
                    self._log.error("imbalance", partition=number, rule=found.rule, where=found.where)
                    step.outputs.count("imbalance")
            slot.task.commit(step, Position({**was.inputs, **ends[number]}, self._changelog_end.get(number, 0), now))
            slot.written = True
        seconds["apply"] = time.perf_counter() - began
        self._faults.reach("applied")
        if transaction.inputs is not None:
            self._observe(transaction)
        return True

    def _metadata(self, topic: str, number: int, now: int) -> str:
        """Until all that was said is held to what is true, the commit looks as old as can be: a crash before the end
        makes it start over."""
        slot = self._slots[number]
        return metadata_of(0 if slot.reconcile else now, self._processor.version, slot.anew.get(topic))

    def _abort(self, error: KafkaError, read_on: bool) -> None:
        name = kafka.describe(error)
        if error.fatal() or not error.txn_requires_abort():
            raise SessionLostError(name)
        self._observer.ended("aborted")
        self._log.warning("aborted", error=name)
        try:
            self._retried(lambda: self._producer.abort_transaction(_CALL_S))
        except KafkaException as e:
            raise SessionLostError(kafka.describe(kafka.error_of(e))) from None
        # Nothing was committed and no store was written: read the same records again.
        if any(slot.replayed is not None for slot in self._slots.values()):
            raise SessionLostError(name)
        for slot in self._slots.values():
            slot.at_end.clear()  # there is something before the ends again
            slot.more = self._declaration.says_in_parts
        if read_on:
            self._read_on()

    def _retried(self, call: Callable[[], Any]) -> None:
        deadline = time.monotonic() + self._settings.transaction_timeout_ms / 1000
        while True:
            try:
                call()
                return
            except KafkaException as e:
                if not kafka.error_of(e).retriable() or time.monotonic() > deadline:
                    raise

    def _produce(self, emit: Emit, number: int) -> None:
        changelog = emit.topic == self._declaration.changelog
        produce, topic, last = self._producer.produce, self._edition.topic(emit.topic), len(emit.keys) - 1
        each = emit.partitions if not isinstance(emit.partitions, int) else None
        one = emit.partitions if isinstance(emit.partitions, int) else 0
        for i, (key, value) in enumerate(zip(emit.keys, emit.values, strict=True)):
            partition = each[i] if each is not None else one
            while True:
                try:
                    if emit.headers is not None:
                        produce(topic, value, key, partition, headers=emit.headers[i])
                    elif changelog and i == last:
                        produce(topic, value, key, partition, on_delivery=self._on_changelog(number))
                    else:
                        produce(topic, value, key, partition)
                    break
                except BufferError:
                    self._producer.poll(0.05)

    def _on_changelog(self, number: int) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self._changelog_end[number] = message.offset() + 1

        return delivered
