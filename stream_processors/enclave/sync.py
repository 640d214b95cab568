"""From `research.person` to the enclave's file, round after round.

A round reads every partition from where the file is to its end, batch by batch, each batch and its offsets in one
DuckDB transaction. Then the file is swept if rows were removed, Parquet copies are renewed, and the deletions are
acknowledged. Without `follow` there is one round.

It takes part in no group and commits nothing to Kafka: its credential reads the research zone, and may write
acknowledgements.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from infra.settings import Settings
from schemas.registry import SchemaIds
from stream_processors.access import ENCLAVE
from stream_processors.edition import Edition
from stream_processors.enclave.acknowledge import Acknowledger
from stream_processors.enclave.changes import TOPIC, Versions, changes
from stream_processors.enclave.store import FileInUseError, Position, Store
from stream_processors.runtime import kafka
from stream_processors.runtime.records import HEARTBEAT_KEY

BATCH_RECORDS = 50_000
_WAIT_S = 0.5
_FILL_S = 0.2
_CALL_S = 30
_ASK_AGAIN_S = 600.0
"""How often a quiet topic is asked whether anything was missed: the answer also keeps the file from going stale."""
_RETRY_S = 2.0

_log = structlog.get_logger(__name__)


class TopicUnreadableError(RuntimeError):
    """The topic is not there, or the credential may not read or describe it."""


@dataclass(frozen=True)
class Options:
    """How a sync goes about it.

    `parquet`: None renews the copies that are there. `sweep_s`: how long removed rows may stay in the file while
    following; a sync that ends sweeps at once. `wait_s`: how long to wait for a file that a reader has open. `moved`:
    asked while following, between rounds; once another edition is to be read, the sync ends.
    """

    name: str = "enclave"
    follow: bool = False
    parquet: bool | None = None
    memory_mb: int = 512
    batch_records: int = BATCH_RECORDS
    sweep_s: float = 60.0
    wait_s: float = 60.0
    moved: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Round:
    """What one round did. `rebuilt` says why the file was begun anew; `acknowledged` where the deletions were."""

    records: int
    tombstones: int
    refused: int
    rows: Mapping[str, int]
    rebuilt: str | None
    swept: bool
    acknowledged: str
    seconds: float


def reason_to_rebuild(
    position: Position, topic_id: str, ends: Mapping[int, tuple[int, int]], now_ms: int, tombstones_live_ms: int
) -> str | None:
    """Why the file cannot go on from where it is; None if it can.

    Args:
        position: how far the file is.
        topic_id: of the topic as it is now.
        ends: first and next offset of each partition.
        now_ms: the clock.
        tombstones_live_ms: `delete.retention.ms` of the topic. Half of it is allowed, as for the processors' state: a
            replica may have been cleaned earlier, and clocks differ.
    """
    if not position.topic_id:
        return "there is no file yet"
    if position.topic_id != topic_id:
        return "the topic was made anew"
    if set(position.offsets) != set(ends):
        return "the topic has another number of partitions"
    if any(not low <= position.offsets[p] <= high for p, (low, high) in ends.items()):
        return "the topic no longer goes on from where the file is"
    if not 0 <= now_ms - position.as_of_ms <= tombstones_live_ms // 2:
        return "the file is older than tombstones live, so deletions may have been missed"
    return None


def sync(
    settings: Settings,
    folder: Path,
    schema_ids: SchemaIds,
    options: Options,
    on_round: Callable[[Round], None],
    now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
) -> None:
    """Bring the file in `folder` to the end of the topic, and keep it there with `follow`.

    Raises:
        TopicUnreadableError: no such topic, or no right to read it.
        FileInUseError: another process has the file open for longer than `wait_s`.
        KeyFileError: the enclave's credential is missing or may not be used.
    """
    settings = settings.acting_as(ENCLAVE)
    topic = _Topic(settings)
    acknowledger = Acknowledger(settings, folder, options.name, schema_ids)
    try:
        _Sync(topic, acknowledger, folder, Versions(schema_ids), options, now_ms).run(on_round)
    finally:
        topic.close()


class _Sync:
    def __init__(
        self,
        topic: _Topic,
        acknowledger: Acknowledger,
        folder: Path,
        versions: Versions,
        options: Options,
        now_ms: Callable[[], int],
    ) -> None:
        self._topic, self._acknowledger, self._folder = topic, acknowledger, folder
        self._versions, self._options, self._now_ms = versions, options, now_ms
        self._swept_at = time.monotonic()

    def run(self, on_round: Callable[[Round], None]) -> None:
        patience = time.monotonic() + self._options.wait_s
        while True:
            try:
                with Store(self._folder, self._options.memory_mb) as store:
                    on_round(self._round(store))
                    unswept = store.position.unswept
            except FileInUseError as e:
                if time.monotonic() > patience and not self._options.follow:
                    raise
                _log.warning("waiting", what=str(e))
                time.sleep(_RETRY_S)
                continue
            if not self._options.follow:
                return
            # The file is closed while nothing comes, so that researchers can open it.
            due = self._options.sweep_s - (time.monotonic() - self._swept_at) if unswept else _ASK_AGAIN_S
            self._topic.wait(max(0.0, due))
            if self._options.moved():
                return

    def _round(self, store: Store) -> Round:
        began, now = time.monotonic(), self._now_ms()
        ends = self._topic.ends()
        reason = reason_to_rebuild(store.position, self._topic.id, ends, now, self._topic.tombstones_live_ms)
        if reason:
            reason = store.unusable or reason
            if store.position.topic_id:
                _log.warning("rebuilding", what=reason)
                store.rebuild()
            store.begin(self._topic.id, sorted(ends), now)
        before = store.position
        records = 0
        for messages in self._topic.read(store.position.offsets, self._options.batch_records):
            records += self._take(store, messages)
        store.caught_up(now)
        sweep = not self._options.follow or time.monotonic() - self._swept_at >= self._options.sweep_s
        swept = store.position.unswept and sweep
        if swept:
            store.sweep()
            self._swept_at = time.monotonic()
        self._parquet(store, changed=records > 0 or bool(reason))
        after = store.position
        acknowledged = "not yet" if after.unswept else self._acknowledger.acknowledge(after, self._now_ms())
        return Round(
            records,
            after.tombstones - before.tombstones,
            after.refused - before.refused,
            store.counts(),
            reason,
            swept,
            acknowledged,
            time.monotonic() - began,
        )

    def _take(self, store: Store, messages: list[Message]) -> int:
        """How many of them are records, and no heartbeats."""
        keys = [m.key() for m in messages]
        offsets: dict[int, int] = {}
        for m in messages:
            offsets[m.partition()] = m.offset() + 1
        found = changes(
            keys,
            [m.value() for m in messages],
            [(m.partition(), m.offset()) for m in messages],
            self._versions,
        )
        store.apply(found, offsets)
        for r in found.refused:
            _log.error("refused", topic=TOPIC, partition=r.partition, offset=r.offset, error=r.error)
        return len(keys) - keys.count(HEARTBEAT_KEY)

    def _parquet(self, store: Store, changed: bool) -> None:
        there = store.has_parquet()
        if self._options.parquet is False:
            store.remove_parquet()
        elif (self._options.parquet and not there) or (there and changed):
            store.export_parquet()


class _Topic:
    """`research.person` on the brokers, read committed."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient(kafka.client_config(settings))
        self.name = Edition(settings.edition).topic(TOPIC)
        try:
            described = self._admin.describe_topics(TopicCollection([self.name]), request_timeout=_CALL_S)[
                self.name
            ].result()
            resource = ConfigResource(ResourceType.TOPIC, self.name)
            config = self._admin.describe_configs([resource], request_timeout=_CALL_S)[resource].result()
        except KafkaException as e:
            raise TopicUnreadableError(
                f"{self.name} at {settings.bootstrap} cannot be read ({kafka.error_of(e).name()}); the enclave's "
                "credential needs Read, Describe and DescribeConfigs on it"
            ) from None
        self.id = str(described.topic_id)
        self._partitions = [p.id for p in described.partitions]
        self.tombstones_live_ms = int(config["delete.retention.ms"].value)
        self._consumer = Consumer(
            kafka.consumer_config(settings, f"lethe.{ENCLAVE}.sync")
            | {
                "auto.offset.reset": "error",
                "queued.min.messages": 100_000,
                "queued.max.messages.kbytes": 64 * 1024,
            }
        )

    def close(self) -> None:
        self._consumer.close()

    def ends(self) -> dict[int, tuple[int, int]]:
        """First and next offset of each partition."""
        return {
            p: self._consumer.get_watermark_offsets(TopicPartition(self.name, p), timeout=_CALL_S)
            for p in self._partitions
        }

    def read(self, offsets: Mapping[int, int], most: int) -> Iterator[list[Message]]:
        """Batches from the offsets on, until the end of every partition has been seen."""
        self._consumer.assign([TopicPartition(self.name, p, o) for p, o in offsets.items()])
        left = set(offsets)
        while left:
            first = self._consumer.consume(1, _WAIT_S)
            rest = self._consumer.consume(most - 1, _FILL_S) if first and first[0].error() is None else []
            records = []
            for m in first + rest:
                error = m.error()
                if error is None:
                    records.append(m)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(m.partition())
                elif error.code() == KafkaError._AUTO_OFFSET_RESET or error.fatal():
                    raise KafkaException(error)
                else:
                    _log.warning("waiting_for_broker", error=kafka.describe(error))
            if records:
                yield records

    def wait(self, seconds: float) -> None:
        """Return when a record has come, or after that time. What has come is read again by the next round."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for m in self._consumer.consume(1, min(left, 1.0)):
                if m.error() is None:
                    return
