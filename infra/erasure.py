"""The operator's side of an erasure: seal an order to pseudonymise, give it, gather what each partition answers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from infra.settings import Settings
from schemas.registry import SchemaIds
from schemas.rows import from_value, to_value
from stream_processors.enquiry.finding import Holding, merged
from stream_processors.erasure.eraser import FINDING
from stream_processors.erasure.order import TOPIC, Action, Reason, Target, order_row
from stream_processors.runtime.kafka import meet, producer_config, reader_config
from stream_processors.runtime.partition import partition_of

_CALL_S = 30
_ID_BYTES = 16
_GOES = frozenset({"found", "nobody", "erased", "lifted"})
_ANSWERS: dict[Action, frozenset[str]] = {
    "preview": frozenset({"found", "nobody"}),
    "erase": frozenset({"erased"}),
    "lift": frozenset({"lifted", "nobody"}),
}
_FAULTS = frozenset({"ambiguous", "insufficient", "unreadable"})


class NotFollowedError(ConnectionError):
    """Not every partition answered in time. The order lies on its topic, and is followed when they are up."""


@dataclass(frozen=True)
class Followed:
    """What became of an order: the worst outcome of any partition, and what was counted."""

    order_id: str
    outcome: str
    holdings: tuple[Holding, ...]

    @property
    def records(self) -> int:
        """How many records there are in all."""
        return sum(h.records for h in self.holdings)


@dataclass
class Orders:
    """Gives orders. public: what they are sealed to (enquiry.pub). A context manager: closes its connections."""

    settings: Settings
    ids: SchemaIds
    public: bytes
    timeout_s: float = 60.0
    _producer: Producer = field(init=False)
    _consumer: Consumer = field(init=False)
    _met: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        config = producer_config(self.settings, "lethe.erase") | {"message.timeout.ms": _CALL_S * 1000}
        # The control plane's client reads no lz4 without another package.
        self._producer = Producer(config | {"compression.type": "gzip"})
        self._consumer = Consumer(reader_config(self.settings, f"lethe.{self.settings.principal}.erase"))

    def give(self, action: Action, target: Target, reason: Reason, by: str, order_id: str | None = None) -> Followed:
        """Give an order to every partition and wait until each has answered.

        `order_id`: of the preview, for the erasure of a person: who is erased is who was found then.

        Raises:
            NotFollowedError: not in time.
            KafkaException: the broker is away, or lacks the topics.
        """
        id_ = order_id or secrets.token_hex(_ID_BYTES)
        row = order_row(id_, action, target, reason, by, time.time_ns() // 1_000_000, self.public)
        where = TopicPartition(FINDING, partition_of(id_, self.settings.partitions))
        meet(self._consumer, [FINDING], self._met)
        where.offset = self._consumer.get_watermark_offsets(where, _CALL_S)[1]
        self._consumer.assign([where])
        self._send(id_, to_value(TOPIC, row, self.ids))
        return self._gathered(id_, _ANSWERS[action] | _FAULTS)

    def forget(self, order_id: str) -> None:
        """Delete an order that is followed: it holds, sealed, whom it was about."""
        self._send(order_id, None)

    def _send(self, order_id: str, value: bytes | None) -> None:
        errors: list[KafkaError | None] = []

        def taken(error: KafkaError | None, _: Message) -> None:
            errors.append(error)

        for partition in range(self.settings.partitions):
            self._producer.produce(TOPIC, value, order_id.encode(), partition, on_delivery=taken)
        self._producer.flush(_CALL_S + 5)
        for error in errors:
            if error is not None:
                raise KafkaException(error)

    def _gathered(self, order_id: str, wanted: Iterable[str]) -> Followed:
        deadline = time.monotonic() + self.timeout_s
        found: dict[int, dict[str, Any]] = {}
        while len(found) < self.settings.partitions:
            if time.monotonic() > deadline:
                raise NotFollowedError(f"{len(found)} of {self.settings.partitions} partitions answered")
            for message in self._consumer.consume(100, 0.2):
                error, key, value = message.error(), message.key(), message.value()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                of, _, partition = (key or b"").decode(errors="replace").partition("|")
                if error is None and value is not None and of == order_id:
                    row = from_value(FINDING, value, self.ids)
                    if row["outcome"] in wanted:
                        found[int(partition)] = row
        outcomes = {row["outcome"] for row in found.values()}
        worst = next((o for o in ("unreadable", "insufficient", "ambiguous") if o in outcomes), None)
        outcome = worst or next((o for o in ("erased", "lifted", "found") if o in outcomes), "nobody")
        rows = [Holding(**h) for row in found.values() for h in row["holdings"]] if outcome in _GOES else []
        return Followed(order_id, outcome, merged(rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()
