"""Clients of a broker that is not there: logs in memory, transactions, and commits that a test holds up or refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from stream_processors.runtime import restore, worker
from stream_processors.runtime.driver import Log, Record

FIRST_MS = 1_700_000_000_000
Rebalance = Callable[[Any, list[TopicPartition]], None]


@dataclass
class Broker:
    """One partition of each topic, one group, and at most one member.

    `committing`: called with the number of each commit, from 1, in the thread that commits and before anything happens;
    what it raises is the broker's answer. `then_say`: the same, after the commit has happened.
    """

    logs: dict[str, Log] = field(default_factory=dict)
    committed: dict[str, tuple[int, str]] = field(default_factory=dict)
    committing: Callable[[int], None] = lambda _: None
    then_say: Callable[[int], None] = lambda _: None
    commits: int = 0
    transaction_open: bool = False
    revokes: bool = False
    """Once, the member's partition is taken from it and given back, when it asks for records and a commit is under
    way."""
    loses_end_of: str = ""
    """A topic whose end the member is not told, once."""
    ends_told: set[str] = field(default_factory=set)
    """Topics whose end it was told."""
    under_way: threading.Event = field(default_factory=threading.Event)
    revoking: threading.Event = field(default_factory=threading.Event)
    revoked: threading.Event = field(default_factory=threading.Event)
    """Set before the member is told, and when it lets go."""

    def log(self, topic: str) -> Log:
        return self.logs.setdefault(topic, Log())

    def serve(self, patch: pytest.MonkeyPatch) -> None:
        """From now on, workers that are made get clients of this broker."""
        for module in (worker, restore):
            patch.setattr(module, "Consumer", lambda _config: Consumer(self))
        patch.setattr(worker, "Producer", lambda _config: Producer(self))
        patch.setattr(restore, "AdminClient", lambda _config: Admin())


@dataclass(frozen=True)
class Message:
    of: str
    record: Record
    end: bool = False

    def error(self) -> KafkaError | None:
        return KafkaError(KafkaError._PARTITION_EOF) if self.end else None

    def topic(self) -> str:
        return self.of

    def partition(self) -> int:
        return 0

    def key(self) -> bytes | None:
        return self.record.key

    def value(self) -> bytes | None:
        return self.record.value

    def offset(self) -> int:
        return self.record.offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self.record.time

    def headers(self) -> Sequence[tuple[str, bytes]]:
        return self.record.headers


class Consumer:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._at: dict[str, int] = {}
        self._ended: set[str] = set()
        self._topics: list[str] = []
        self._joined = True
        self._assign: Rebalance = lambda _c, _p: None
        self._revoke: Rebalance = lambda _c, _p: None

    def subscribe(self, topics: list[str], on_assign: Rebalance, on_revoke: Rebalance, on_lost: Rebalance) -> None:
        self._topics, self._joined = topics, False
        self._assign, self._revoke = on_assign, on_revoke
        del on_lost

    def consume(self, most: int, timeout: float) -> list[Message]:
        del timeout
        broker = self._broker
        if self._topics and broker.revokes and broker.transaction_open:
            assert broker.under_way.wait(20)
            broker.revokes = False
            broker.revoking.set()
            self._revoke(self, self._partitions())
            broker.revoked.set()
            self._joined = False
            return []
        if not self._joined:
            self._joined = True
            self._assign(self, self._partitions())
            return []
        out: list[Message] = []
        for topic, at in self._at.items():
            records = self._broker.log(topic).read(at, most - len(out))
            out += [Message(topic, r) for r in records]
            if records:
                self._at[topic] = records[-1].offset + 1
            elif topic not in self._ended and len(out) < most:
                self._ended.add(topic)
                if self._topics and topic == broker.loses_end_of:
                    broker.loses_end_of = ""
                    continue
                if self._topics:
                    broker.ends_told.add(topic)
                out.append(Message(topic, Record(at, None, None, 0), end=True))
        return out

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(topic, 0) for topic in self._topics]

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._at = {tp.topic: max(tp.offset, 0) for tp in partitions}
        self._ended = set()

    def unassign(self) -> None:
        self._at = {}

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(tp.topic, tp.partition, self._at[tp.topic]) for tp in partitions]

    def list_topics(self, timeout: float) -> None:
        """All of them are known."""

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        del timeout
        found = [(tp.topic, *self._broker.committed.get(tp.topic, (-1001, ""))) for tp in partitions]
        return [TopicPartition(topic, 0, offset, metadata=told) for topic, offset, told in found]

    def consumer_group_metadata(self) -> object:
        return self

    def get_watermark_offsets(self, tp: TopicPartition, cached: bool = False) -> tuple[int, int]:
        del cached
        return 0, self._broker.log(tp.topic).end

    def pause(self, partitions: list[TopicPartition]) -> None:
        """Nothing is read before `assign` in any case."""

    def resume(self, partitions: list[TopicPartition]) -> None:
        """See `pause`."""

    def close(self) -> None:
        """Nothing to release."""


class Producer:
    """Fails the test if a record is sent outside of a transaction, or while one is being committed."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._sent: list[tuple[str, bytes | None, bytes | None, Any]] = []
        self._offsets: dict[str, tuple[int, str]] = {}
        self._committing = False

    def init_transactions(self, timeout: float) -> None:
        del timeout
        self._broker.transaction_open = False

    def begin_transaction(self) -> None:
        assert not self._broker.transaction_open, "a producer has one transaction at a time"
        self._broker.transaction_open = True
        self._sent, self._offsets = [], {}

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        headers: Any = None,
        on_delivery: Any = None,
    ) -> None:
        del headers
        assert self._broker.transaction_open
        assert not self._committing
        assert partition == 0
        self._sent.append((topic, key, value, on_delivery))

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], member: object, timeout: float) -> None:
        del member, timeout
        self._offsets = {tp.topic: (tp.offset, tp.metadata) for tp in offsets}

    def flush(self, timeout: float) -> None:
        """Everything is with the broker at once."""

    def poll(self, timeout: float) -> None:
        """No report is outstanding."""

    def purge(self) -> None:
        """See `flush`."""

    def commit_transaction(self, timeout: float) -> None:
        del timeout
        broker = self._broker
        broker.commits += 1
        number, self._committing = broker.commits, True
        broker.under_way.set()
        try:
            broker.committing(number)
        finally:
            self._committing = False
            broker.under_way.clear()
        for topic, key, value, on_delivery in self._sent:
            log = broker.log(topic)
            log.append(key, value, FIRST_MS)
            if on_delivery is not None:
                on_delivery(None, Message(topic, log.records[-1]))
        broker.committed.update(self._offsets)
        broker.transaction_open = False
        broker.then_say(number)

    def abort_transaction(self, timeout: float) -> None:
        del timeout
        self._broker.transaction_open = False


class _Answer:
    def result(self, timeout: float) -> Mapping[str, Any]:
        del timeout
        return {"delete.retention.ms": type("Entry", (), {"value": "86400000"})}


class Admin:
    def describe_configs(self, resources: list[Any]) -> dict[Any, _Answer]:
        return {r: _Answer() for r in resources}
