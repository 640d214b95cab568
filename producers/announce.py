"""How a batch announces itself: one record of `governance.batch` with its control totals and where its records lie."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from producers.totals import Totals
from schemas.registry import SchemaIds
from schemas.rows import to_value
from stream_processors.runtime.partition import partition_of

TOPIC = "governance.batch"
_CALL_S = 30
_ID_DIGITS = 32


@dataclass
class Announcer:
    """Announces batches of one topic, one after the other: what lies between two announcements is a batch.

    Another publisher of the same dataset at the same time is not told apart: its records lie in between.

    Raises:
        KafkaException: the broker does not answer, or does not have the announcement.
    """

    topic: str
    partitions: int
    producer: Producer
    ids: SchemaIds
    config: Mapping[str, Any]
    _starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._admin = AdminClient({"log_level": 2, **self.config})
        self._batch_partitions = len(self.producer.list_topics(timeout=_CALL_S).topics[TOPIC].partitions)
        self._starts = self._ends()

    def file(self, totals: Totals) -> None:
        """A file's totals. The same file again is the same batch."""
        warnings = sum(totals.warnings.values())
        self._announce(totals.digest[:_ID_DIGITS], totals.read, totals.published, totals.rejected, warnings)

    def records(self, published: int) -> None:
        """So many records that came from no file, deletions included."""
        self._announce(secrets.token_hex(_ID_DIGITS // 2), published, published, 0, 0)

    def _announce(self, batch_id: str, read: int, published: int, rejected: int, warnings: int) -> None:
        _, supplier, dataset = self.topic.split(".")
        ends = self._ends()
        row = {
            "supplier": supplier,
            "dataset": dataset,
            "batch_id": batch_id,
            "read": read,
            "published": published,
            "rejected": rejected,
            "warnings": warnings,
            "starts": self._starts,
            "ends": ends,
            "published_ms": time.time_ns() // 1_000_000,
        }
        key = f"{supplier}|{dataset}|{batch_id}"
        said: list[KafkaError | None] = []
        partition = partition_of(key, self._batch_partitions)
        value = to_value(TOPIC, row, self.ids)
        self.producer.produce(TOPIC, value, key.encode(), partition, on_delivery=lambda error, _: said.append(error))
        self.producer.flush(_CALL_S)
        if said != [None]:
            raise KafkaException(said[0] if said and said[0] else KafkaError(KafkaError._TIMED_OUT))
        self._starts = ends

    def _ends(self) -> list[int]:
        wanted = {TopicPartition(self.topic, p): OffsetSpec.latest() for p in range(self.partitions)}
        found = self._admin.list_offsets(wanted, request_timeout=_CALL_S)
        ends = {tp.partition: future.result(timeout=_CALL_S).offset for tp, future in found.items()}
        return [ends[p] for p in range(self.partitions)]
