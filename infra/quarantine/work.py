"""Requeue and drop: in Kafka transactions, so that a record is in quarantine or back, never both, never neither.

A transaction holds the records that go back to their source topics, the tombstones of their entries, and of what
`governance.quarantine` tells of them, and how far the work has got.
Before it is committed, what others have written in the meantime is read: Kafka has given our records
their offsets by then, so whoever wrote a key later comes after us, and whoever wrote it before us is seen here. If
somebody did, all is taken back and done again without those keys. So no older value can ever lie over a newer one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import numpy as np
import polars as pl
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from numpy.typing import NDArray

from infra.operation import Mark, Operation, OperationLog, now_ms
from infra.quarantine.entries import Collector, Filter, Pace, decide, follow_newest, place_of
from infra.quarantine.reader import Reader
from infra.settings import Settings
from schemas import contracts
from stream_processors.accounting.trace import DROPPED
from stream_processors.edition import NAME, Edition
from stream_processors.quarantine import TOPIC as GOVERNED_QUARANTINE
from stream_processors.runtime import kafka
from stream_processors.runtime.account import ATTEMPTS, BATCH_HEADER, publication_of
from stream_processors.runtime.faults import Faults
from stream_processors.runtime.records import HEARTBEAT_KEY

Act = Literal["requeue", "drop"]
OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

_TRANSACTIONAL_ID = "lethe.quarantine"  # one for all: a second command fences the first
_TRANSACTION_MS = 30_000
_CALL_S = 30.0
_MOST_RECORDS = 2_000
_MOST_BYTES = 16 << 20
_PREFIX = "identified."
_QUARANTINE = re.compile(rf"identified\.([a-z0-9-]+)\.quarantine(?:\.({NAME}))?")


@dataclass
class Tally:
    """What became, or would become, of the entries that were meant. `left` counts by reason those that stay."""

    done: int = 0
    left: dict[str, int] = field(default_factory=dict)
    by_dataset: dict[str, int] = field(default_factory=dict)
    also: int = 0
    """Entries of requeued records that other editions had too: they leave quarantine with them."""

    def take(self, dataset: str, count: int = 1) -> None:
        """Count entries that are acted on."""
        self.done += count
        self.by_dataset[dataset] = self.by_dataset.get(dataset, 0) + count

    def leave(self, why: str, count: int = 1) -> None:
        """Count entries that stay."""
        if count:
            self.left[why] = self.left.get(why, 0) + count


@dataclass(frozen=True)
class Chosen:
    """One entry to act on: key in quarantine, source topic and key, value, attempts so far, whether its source has
    a part in it (the record goes back, or is dropped there, too), the publication that it came in with (empty for
    none), and the key that `governance.quarantine` tells of it under (empty if the entry does not say)."""

    offset: int
    key: bytes
    source: str
    value: bytes
    attempts: int
    source_too: bool
    publication: bytes = b""
    told: bytes = b""

    @property
    def source_key(self) -> bytes:
        """The key of the record that failed."""
        return self.key.partition(b"|")[2]


class NothingMeantError(ValueError):
    """A supplier or an edition is asked for that has no quarantine. The message says which there are."""


class InterruptedWorkError(Exception):
    """Stopped between two transactions: nothing is open, and the operation's marks say where to go on."""


@dataclass
class _Others:
    """What others have written to the keys in hand since they were looked at: of each topic up to where it was read,
    as hashes of keys. `told`: what they have told governance."""

    read_to: dict[str, int]
    keys: frozenset[int] = frozenset()
    wrote: set[int] = field(default_factory=set)
    told: set[int] = field(default_factory=set)

    def have(self, entry: Chosen) -> bool:
        """Whether it is theirs now."""
        return hash(entry.source_key) in self.wrote or (bool(entry.told) and hash(entry.told) in self.told)


@dataclass(frozen=True)
class _Sent:
    """Own records of one transaction: the last offset of each topic, and all of them."""

    last: Mapping[str, int]
    own: frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Quarantine:
    """One quarantine topic: of a supplier, and of the edition whose processors write it."""

    topic: str
    supplier: str
    edition: Edition
    partitions: int

    @property
    def name(self) -> str:
        """As places have it: `dfe`, `dfe@v2`."""
        return self.edition.folder(self.supplier)


def quarantines(topics: Mapping[str, int], meant: Filter | None = None) -> list[Quarantine]:
    """The quarantine topics of all editions, of the suppliers and editions that are meant; a supplier's together.

    Raises:
        NothingMeantError: there is no such supplier, or no such edition.
    """
    found = [
        Quarantine(topic, of[1], Edition(of[2] or ""), partitions)
        for topic, partitions in topics.items()
        if (of := _QUARANTINE.fullmatch(topic)) is not None
    ]
    meant = meant or Filter()
    for what, asked, there in (
        ("supplier", meant.suppliers, {q.supplier for q in found}),
        ("edition", meant.editions, {q.edition.named() for q in found}),
    ):
        if lacking := sorted(set(asked) - there):
            raise NothingMeantError(
                f"no {what} {', '.join(lacking)} has a quarantine; there are: {', '.join(sorted(there))}"
            )
    return sorted(
        (
            q
            for q in found
            if (not meant.suppliers or q.supplier in meant.suppliers)
            and (not meant.editions or q.edition.named() in meant.editions)
        ),
        key=lambda q: (q.supplier, q.edition.name),
    )


def named(topic: str) -> str:
    """A quarantine topic as places have it: `dfe`, `dfe@v2`."""
    return quarantines({topic: 0})[0].name


def _told_topic(topic: str) -> str:
    """Where governance is told of the entries of a quarantine topic."""
    return quarantines({topic: 0})[0].edition.topic(GOVERNED_QUARANTINE)


def scan(reader: Reader, topic: str, partition: int, start: int, stop: int, seen: Callable[[int], None]) -> Collector:
    """Entries of a partition. `seen` is told how many offsets were passed."""
    out = Collector()
    at = start
    for batch in reader.read(topic, partition, start, stop):
        for m in batch:
            key = m.key()
            if key is None or key == HEARTBEAT_KEY:
                continue
            value = m.value()
            out.add(key, m.offset(), m.timestamp()[1], None if value is None else len(value), m.headers())
        seen(batch[-1].offset() + 1 - at)
        at = batch[-1].offset() + 1
    seen(stop - at)
    return out


class Work:
    """One act over quarantine topics; `preview` counts, `execute` does it.

    What several editions could not read is the same record at its source: it goes back once, and each of them reads it.
    """

    def __init__(
        self,
        settings: Settings,
        act: Act,
        meant: Filter,
        *,
        rate: float | None = None,
        superseded_only: bool = False,
        on_progress: OnProgress = lambda *_: None,
        stopping: Callable[[], bool] = lambda: False,
        faults: Faults | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`superseded_only`: of drop, leave those that could still be put back. `stopping` is asked between
        transactions and while reading."""
        self._settings, self._act, self._meant, self._rate = settings, act, meant, rate
        self._superseded_only, self._on_progress, self._faults = superseded_only, on_progress, faults or Faults()
        self._stopping = stopping
        self._clock, self._sleep = clock, sleep
        self._doing = False
        self._went: tuple[tuple[str, int], list[pl.DataFrame]] | None = None
        """Of requeue: supplier and partition in hand, and which of its records have gone back so far."""
        self._last_of: set[str] = set()
        """The quarantine topics after which no other edition of their supplier comes."""
        self.tally = Tally()
        self.operation: Operation | None = None

    def preview(self) -> Tally:
        """Count what `execute` would do. Changes nothing.

        Raises:
            KafkaException: the broker is away.
        """
        with Reader(self._settings) as reader:
            for topic, partition, start, stop in self._spans(reader, ()):
                rows, _ = self._look(reader, topic, partition, start, stop)
                chosen = rows.filter(pl.col("why") == "")
                self._remember(topic, chosen)
                self._count(chosen)
        return self.tally

    def execute(self, operation: Operation, log: OperationLog) -> Tally:
        """Do it, from where the operation's marks say.

        Raises:
            KafkaException: the broker is away, or another command took over. Run it again with `--resume`.
            InterruptedWorkError: it was told to stop; the operation is left `interrupted`.
        """
        self.tally, self._doing = Tally(operation.done), True
        config = kafka.producer_config(self._settings, _TRANSACTIONAL_ID, _TRANSACTIONAL_ID)
        producer = Producer(config | {"transaction.timeout.ms": _TRANSACTION_MS, "linger.ms": 5})
        producer.init_transactions(_CALL_S)  # ends what a killed command left open
        with Reader(self._settings) as reader, Reader(self._settings, committed=False) as raw:
            spans = list(self._spans(reader, operation.marks))
            marks = tuple(Mark(t, p, start, stop) for t, p, start, stop in spans)
            self.operation = operation = operation.now(now_ms(), marks=marks, state="begun")
            log.write(operation)
            try:
                for topic, partition, start, stop in spans:
                    rows, read_to = self._look(reader, topic, partition, start, stop)
                    chosen = rows.filter(pl.col("why") == "")
                    self._do(producer, reader, raw, log, (topic, partition, stop), chosen, read_to)
            except InterruptedWorkError:
                self._say(log, "interrupted")
                raise
            self._say(log, "done")
        return self.tally

    def _say(self, log: OperationLog, state: Literal["interrupted", "done"]) -> None:
        assert self.operation is not None
        skipped = sum(self.tally.left.values())
        self.operation = self.operation.now(now_ms(), state=state, skipped=skipped)
        log.write(self.operation)

    def _progress(self, what: str, done: int, of: int) -> None:
        self._on_progress(what, done, of)
        if self._stopping():
            raise InterruptedWorkError

    def _spans(self, reader: Reader, marks: Sequence[Mark]) -> Iterator[tuple[str, int, int, int]]:
        """Topic, partition, first and end offset of what is to be looked at."""
        self._last_of = {of[-1].topic for of in self._by_supplier(reader)}
        if marks:
            yield from ((m.topic, m.partition, m.next_offset, m.end_offset) for m in marks)
            return
        for mine in self._by_supplier(reader):
            for partition in range(max(q.partitions for q in mine)):
                for q in mine:
                    low, high = reader.ends(q.topic, partition) if partition < q.partitions else (0, 0)
                    if low < high:
                        yield q.topic, partition, low, high

    def _by_supplier(self, reader: Reader) -> list[list[Quarantine]]:
        found = quarantines(reader.topics(), self._meant)
        return [list(of) for _, of in groupby(found, lambda q: q.supplier)]

    def _look(
        self, reader: Reader, topic: str, partition: int, start: int, stop: int
    ) -> tuple[pl.DataFrame, dict[str, int]]:
        """The entries that are meant, with `why` they stay; and up to where each topic was read."""
        supplier = quarantines({topic: 0})[0].supplier
        what, passed = f"{named(topic)} {partition}: looking", 0

        def seen(n: int) -> None:
            nonlocal passed
            passed += n
            self._progress(what, passed, stop - start)

        rows = self._meant.of(scan(reader, topic, partition, start, stop, seen).latest())
        home = f"{_PREFIX}{supplier}."
        newest: dict[str, dict[str, NDArray[np.int64]]] = {}
        # Of the entries, too, what came before the source was read is known by it.
        read_to = {topic: max(stop, reader.ends(topic, partition)[1])}
        told = _told_topic(topic)
        read_to[told] = reader.ends(told, partition)[1]
        for source, mine in rows.filter(pl.col("source_offset") >= 0).group_by("source"):
            name = str(source[0])
            if name.startswith(home) and contracts.of_topic(name) is not None:
                first = int(mine["source_offset"].min() or 0)  # type: ignore[arg-type]
                newest[name], read_to[name] = self._newest(reader, name, partition, first, mine["key"].to_numpy())
        rows = decide(rows, newest, home, partition)
        if self._act == "drop":
            # What is the last word of its source goes there too, or a replay would bring the entry back.
            rows = rows.with_columns(
                source_too=(pl.col("newest") == pl.col("source_offset")) & (pl.col("why") != "no_place"),
                why=pl.when(pl.lit(self._superseded_only) & (pl.col("why") != "superseded"))
                .then(pl.lit("not_superseded"))
                .otherwise(pl.lit("")),
            )
        else:
            rows = self._once(topic, partition, rows)
        rows = rows.sort("offset")
        for why, n in rows.filter(pl.col("why") != "").group_by("why").len().iter_rows():
            self.tally.leave(why, n)
        return rows, read_to

    def _once(self, topic: str, partition: int, rows: pl.DataFrame) -> pl.DataFrame:
        """What went back already, since another edition had it too, only leaves this one's quarantine: not
        `source_too`."""
        where = named(topic).partition("@")[0], partition
        if self._went is None or self._went[0] != where:
            self._went = where, []
        if not self._went[1]:
            return rows.with_columns(source_too=pl.lit(True))
        found = rows.with_columns(pl.col("source").cast(pl.String)).join(
            pl.concat(self._went[1]), on=["source", "source_offset"], how="left", maintain_order="left"
        )
        # What did not go back after all, since its entry was gone, is still the last word at its source.
        went = pl.col("went").fill_null(False) & (
            pl.lit(not self._doing) | (pl.col("newest") != pl.col("source_offset"))
        )
        return found.with_columns(source_too=~went, why=pl.when(went).then(pl.lit("")).otherwise("why")).drop("went")

    def _remember(self, topic: str, rows: pl.DataFrame, wrote: Set[int] = frozenset()) -> None:
        """That these went back, but those whose keys others wrote; for the next edition of the same supplier."""
        if self._went is not None and topic not in self._last_of:
            went = rows.filter(pl.col("source_too") & ~pl.col("key").is_in(list(wrote)))
            self._went[1].append(went.select(pl.col("source").cast(pl.String), "source_offset", went=pl.lit(True)))

    def _newest(
        self, reader: Reader, topic: str, partition: int, first: int, keys: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[np.int64]], int]:
        asked = np.unique(keys)
        newest = np.full(len(asked), -1, dtype=np.int64)
        end = reader.ends(topic, partition)[1]
        at = first
        for batch in reader.read(topic, partition, first):
            follow_newest(asked, newest, [m.key() or b"" for m in batch], [m.offset() for m in batch])
            at = batch[-1].offset() + 1
            self._progress(f"{topic} {partition}: newer records", at - first, max(end, at) - first)
        return {"key": asked, "offset": newest}, reader.ended_at

    def _count(self, rows: pl.DataFrame) -> None:
        for dataset, first, n in rows.group_by("dataset", "source_too").len().iter_rows():
            if first or self._act == "drop":
                self.tally.take(dataset, n)
            else:
                self.tally.also += n

    def _do(
        self,
        producer: Producer,
        reader: Reader,
        raw: Reader,
        log: OperationLog,
        span: tuple[str, int, int],
        rows: pl.DataFrame,
        read_to: dict[str, int],
    ) -> None:
        topic, partition, stop = span
        others = _Others(read_to, frozenset(rows["key"].to_list()))
        pace, began_with = Pace(self._rate, self._clock()), self.tally.done
        for group in self._groups(reader, topic, partition, rows):
            wait = pace.wait(self.tally.done - began_with + len(group), self._clock())
            if wait:
                self._sleep(wait)
            self._transact(producer, raw, log, (topic, partition, stop), group, others)
            self._progress(f"{named(topic)} {partition}: {self._act}", self.tally.done - began_with, max(1, len(rows)))
        self._mark(topic, partition, stop)
        self._remember(topic, rows, others.wrote)

    def _groups(self, reader: Reader, topic: str, partition: int, rows: pl.DataFrame) -> Iterator[list[Chosen]]:
        """The chosen entries with their values, in log order, as many as one transaction takes."""
        if not len(rows):
            return
        most = max(1, min(_MOST_RECORDS, int(self._rate or _MOST_RECORDS)))
        wanted = {
            offset: (source, attempts, too_)
            for offset, source, attempts, too_ in zip(
                rows["offset"].to_list(), rows["source"].cast(pl.String).to_list(), rows["attempts"].to_list(),
                rows["source_too"].to_list(),
                strict=True,
            )
        }  # fmt: skip
        offsets = rows["offset"]
        group: list[Chosen] = []
        size = met = 0
        for batch in reader.read(topic, partition, offsets[0], offsets[-1] + 1):
            for m in batch:
                found = wanted.get(m.offset())
                if found is None or m.value() is None:
                    continue
                met += 1
                value = m.value() if self._act == "requeue" else b""
                publication = publication_of(m.headers())
                told = place_of(m.headers()).told
                group.append(Chosen(m.offset(), m.key(), found[0], value, found[1], found[2], publication, told))
                size += len(value)
                if len(group) >= most or size >= _MOST_BYTES:
                    yield group
                    group, size = [], 0
        if group:
            yield group
        self.tally.leave("contended", len(wanted) - met)  # compacted away since: it has a newer entry, or none

    def _transact(
        self,
        producer: Producer,
        raw: Reader,
        log: OperationLog,
        span: tuple[str, int, int],
        group: list[Chosen],
        others: _Others,
    ) -> None:
        """One transaction, done again without the keys that others have written meanwhile."""
        topic, partition, _ = span
        next_offset = group[-1].offset + 1
        while group:
            assert self.operation is not None
            was = self.operation
            taken = [c for c in group if c.source_too or self._act == "drop"]
            operation = self._marked(topic, partition, next_offset).now(
                now_ms(), done=self.tally.done + len(taken), skipped=sum(self.tally.left.values())
            )
            producer.begin_transaction()
            sent = self._send(producer, topic, partition, group, log.message(operation))
            self._faults.reach("produced")
            self._read_others(raw, partition, sent, others)
            theirs = {hash(c.source_key) for c in group if others.have(c)}
            if theirs:
                rest = [c for c in group if hash(c.source_key) not in theirs]
                producer.abort_transaction(_CALL_S)
                self.operation = was
                self.tally.leave("contended", len(group) - len(rest))
                others.wrote |= theirs
                group = rest
                continue
            self._faults.reach("offsets_sent")
            producer.commit_transaction(_CALL_S)
            self._faults.reach("committed")
            self.operation = operation
            for c in taken:
                self.tally.take(c.source.rpartition(".")[2])
            self.tally.also += len(group) - len(taken)
            return
        self._mark(topic, partition, next_offset)

    def _send(
        self, producer: Producer, topic: str, partition: int, group: Sequence[Chosen], mark: tuple[Any, ...]
    ) -> _Sent:
        own: list[tuple[str, int]] = []
        failed: list[KafkaError] = []
        told_topic = _told_topic(topic)

        def told(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append(error)
            else:
                own.append((message.topic(), message.offset()))

        def send(*record: Any, **more: Any) -> None:
            while True:
                try:
                    producer.produce(*record, on_delivery=told, **more)
                    return
                except BufferError:
                    producer.poll(0.05)

        assert self.operation is not None
        dropped = [(DROPPED, self.operation.operation_id.encode())]
        for c in group:
            if self._act == "requeue" and c.source_too:
                headers = [(ATTEMPTS, str(c.attempts + 1).encode())]
                if c.publication:
                    headers.append((BATCH_HEADER, c.publication))
                send(c.source, c.value, c.source_key, partition, headers=headers)
            elif self._act == "drop" and c.source_too:
                send(c.source, None, c.source_key, partition, headers=dropped)
            send(topic, None, c.key, partition)
            if c.told:
                send(told_topic, None, c.told, partition)
        producer.produce(*mark)
        producer.flush(_CALL_S)
        if failed:
            raise KafkaException(failed[0])
        last: dict[str, int] = {}
        for name, offset in own:
            last[name] = max(last.get(name, -1), offset)
        return _Sent(last, frozenset(own))

    def _read_others(self, raw: Reader, partition: int, sent: _Sent, others: _Others) -> None:
        """Take in what lies before the last record that was sent, committed or not."""
        for topic, last in sent.last.items():
            for batch in raw.read(topic, partition, others.read_to[topic], last):
                for m in batch:
                    if (topic, m.offset()) in sent.own:
                        continue
                    key = m.key() or b""
                    if topic.startswith(GOVERNED_QUARANTINE):
                        others.told.add(hash(key))
                        continue
                    found = hash(key.partition(b"|")[2] if _QUARANTINE.fullmatch(topic) else key)
                    if found in others.keys:
                        others.wrote.add(found)
            others.read_to[topic] = last + 1

    def _marked(self, topic: str, partition: int, next_offset: int) -> Operation:
        assert self.operation is not None
        marks = tuple(
            Mark(m.topic, m.partition, next_offset, m.end_offset) if (m.topic, m.partition) == (topic, partition) else m
            for m in self.operation.marks
        )
        return self.operation.now(now_ms(), marks=marks)

    def _mark(self, topic: str, partition: int, next_offset: int) -> None:
        self.operation = self._marked(topic, partition, next_offset)
