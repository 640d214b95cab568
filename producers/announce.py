"""How a batch announces itself: a record of `governance.batch` when it begins, and one when all of it is published,
with its control totals, what its records add up to, and where they lie."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from producers.rows import WHOLE_ROW
from producers.totals import DUPLICATE, Totals
from schemas.registry import SchemaIds
from schemas.rows import to_value
from stream_processors.runtime.account import BATCH_BYTES, BATCH_HEADER, record_hashes
from stream_processors.runtime.kafka import PASSING, error_of
from stream_processors.runtime.partition import partition_of

TOPIC = "governance.batch"
_CALL_S = 30
_AGAIN_S = 0.1
_PASSING = PASSING - {KafkaError.UNKNOWN_TOPIC_OR_PART}  # a topic that is missing is said at once
_ID_DIGITS = 32


@dataclass
class Announcer:
    """Announces batches of one topic, one after the other: what is sent between two announcements is a batch.

    Each record carries its publication in a header, so that another publisher of the same dataset is told apart.

    Raises:
        KafkaException: the broker does not answer, or does not have the announcement.
    """

    topic: str
    partitions: int
    producer: Producer
    ids: SchemaIds
    config: Mapping[str, Any]
    _starts: list[int] = field(init=False)
    _publication: bytes = field(init=False, default=b"")
    _counts: list[int] = field(init=False)
    _digests: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._admin = AdminClient({"log_level": 2, **self.config})
        self._batch_partitions = len(self.producer.list_topics(timeout=_CALL_S).topics[TOPIC].partitions)
        self._starts = self._ends()
        self._begin()

    def headers(self) -> list[tuple[str, bytes]]:
        """What the next record is to carry; with the first of a batch, says that it has begun."""
        if not self._publication:
            self._publication = secrets.token_bytes(BATCH_BYTES)
            name = self._publication.hex()
            self._say(name, {"batch_id": name, "open": True, "ends": self._starts})
        return [(BATCH_HEADER, self._publication)]

    def count(self, partitions: npt.NDArray[np.int32], keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Records that are sent: their partitions, keys and values, in order."""
        hashes = record_hashes(keys, values)
        for p in range(self.partitions):
            here = partitions == p
            self._counts[p] += int(here.sum())
            self._digests[p] = (self._digests[p] + int(hashes[here].sum())) & ((1 << 64) - 1)

    def _begin(self) -> None:
        self._publication = b""
        self._counts, self._digests = [0] * self.partitions, [0] * self.partitions

    def file(self, totals: Totals) -> None:
        """A file's totals. The same file again is the same batch."""
        self._announce(
            totals.digest[:_ID_DIGITS],
            {
                "read": totals.read,
                "published": totals.published,
                "rejected": totals.rejected,
                "warnings": sum(totals.warnings.values()),
                "duplicates": totals.warnings[WHOLE_ROW, DUPLICATE],
            },
        )

    def records(self, published: int) -> None:
        """So many records that came from no file, deletions included."""
        self._announce(secrets.token_hex(_ID_DIGITS // 2), {"read": published, "published": published})

    def _announce(self, batch_id: str, totals: Mapping[str, int]) -> None:
        ends, publication = self._ends(), self._publication.hex()
        said: list[KafkaError | None] = []
        self._say(
            batch_id,
            {
                "batch_id": batch_id,
                **totals,
                "ends": ends,
                "publication": publication,
                "counts": self._counts,
                "digests": [f"{digest:016x}" for digest in self._digests],
            },
            lambda error, _: said.append(error),
        )
        self.producer.flush(_CALL_S)
        if said != [None]:
            raise KafkaException(said[0] if said and said[0] else KafkaError(KafkaError._TIMED_OUT))
        if publication:
            self._say(publication, None)
            self.producer.flush(_CALL_S)
        self._starts = ends
        self._begin()

    def _say(
        self,
        batch_id: str,
        row: Mapping[str, Any] | None,
        delivered: Callable[[KafkaError | None, object], None] = lambda *_: None,
    ) -> None:
        _, supplier, dataset = self.topic.split(".")
        whole = {
            "supplier": supplier,
            "dataset": dataset,
            **dict.fromkeys(("read", "published", "rejected", "warnings", "duplicates"), 0),
            "starts": self._starts,
            "published_ms": time.time_ns() // 1_000_000,
            "publication": self._publication.hex(),
            "open": False,
            "counts": [],
            "digests": [],
        }
        key = f"{supplier}|{dataset}|{batch_id}"
        value = to_value(TOPIC, {**whole, **row}, self.ids) if row is not None else None
        self.producer.produce(
            TOPIC, value, key.encode(), partition_of(key, self._batch_partitions), on_delivery=delivered
        )

    def _ends(self) -> list[int]:
        wanted = {TopicPartition(self.topic, p): OffsetSpec.latest() for p in range(self.partitions)}
        until = time.monotonic() + _CALL_S
        while True:
            try:
                found = self._admin.list_offsets(wanted, request_timeout=_CALL_S)
                ends = {tp.partition: future.result(timeout=_CALL_S).offset for tp, future in found.items()}
            except KafkaException as e:
                if error_of(e).code() not in _PASSING or time.monotonic() > until:
                    raise
                time.sleep(_AGAIN_S)  # a topic that was made a moment ago; nobody tells when its leaders are known
            else:
                return [ends[p] for p in range(self.partitions)]
