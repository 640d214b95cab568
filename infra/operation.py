"""`governance.operation`: what operators did to the flow. One record for each act: who, when, what, why, how far."""

from __future__ import annotations

import getpass
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from infra.settings import Settings
from infra.topic_table import table
from schemas.registry import SchemaIds
from schemas.rows import from_value, to_value
from stream_processors.runtime.kafka import producer_config
from stream_processors.runtime.partition import partition_of

TOPIC = "governance.operation"
Kind = Literal[
    "quarantine_requeue",
    "quarantine_drop",
    "quarantine_reveal",
    "replay",
    "rollout_switch",
    "rollout_retire",
    "trace",
    "erasure",
    "erasure_lift",
    "remove_strays",
]
State = Literal["begun", "interrupted", "done"]
_CALL_S = 30


@dataclass(frozen=True)
class Mark:
    """How far one partition was worked through: everything before `next_offset` is done with, `end_offset` is the
    end."""

    topic: str
    partition: int
    next_offset: int
    end_offset: int


@dataclass(frozen=True)
class Operation:
    """One act of an operator. `what` holds technical names only, never a value of a record."""

    kind: Kind
    by: str
    reason: str | None
    what: Mapping[str, Any]
    begun_ms: int
    operation_id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = "begun"
    updated_ms: int = 0
    done: int = 0
    skipped: int = 0
    marks: Sequence[Mark] = ()

    def row(self) -> dict[str, Any]:
        """As the contract has it."""
        return {
            **{k: getattr(self, k) for k in ("operation_id", "kind", "state", "by", "reason", "begun_ms")},
            "what": json.dumps(self.what, sort_keys=True),
            "updated_ms": max(self.updated_ms, self.begun_ms),
            "done": self.done,
            "skipped": self.skipped,
            "marks": [vars(m) for m in self.marks],
        }

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Operation:
        """From a row of the topic."""
        marks = tuple(Mark(**m) for m in row["marks"])
        return cls(**{**row, "what": json.loads(row["what"]), "marks": marks})

    def now(self, now_ms: int, **changes: Any) -> Operation:
        """The same act, further on."""
        return replace(self, updated_ms=now_ms, **changes)


class OperationLog:
    """Reads and writes the topic."""

    def __init__(self, settings: Settings, schema_ids: SchemaIds) -> None:
        self._settings, self._ids = settings, schema_ids

    def message(self, operation: Operation) -> tuple[str, bytes, bytes, int]:
        """Topic, value, key and partition, for a producer of the caller's own."""
        key = operation.operation_id
        value = to_value(TOPIC, operation.row(), self._ids)
        return TOPIC, value, key.encode(), partition_of(key, self._settings.partitions)

    def write(self, operation: Operation) -> None:
        """Say it, and return once the broker has it.

        Raises:
            KafkaException: the broker is away; nothing was said.
        """
        producer = Producer(producer_config(self._settings, "lethe.operation") | {"message.timeout.ms": _CALL_S * 1000})
        failed: list[KafkaError | None] = []

        def told(error: KafkaError | None, _: Message) -> None:
            failed.append(error)

        producer.produce(*self.message(operation), on_delivery=told)
        producer.flush(_CALL_S + 5)
        for error in failed or [KafkaError(KafkaError._TIMED_OUT)]:
            if error is not None:
                raise KafkaException(error)

    def all(self) -> list[Operation]:
        """Every act that is held, the earliest first.

        Raises:
            KafkaException: the broker is away.
        """
        rows = (from_value(TOPIC, v, self._ids) for v in table(self._settings, TOPIC).values())
        return sorted(map(Operation.of, rows), key=lambda o: (o.begun_ms, o.operation_id))

    def find(self, operation_id: str) -> Operation | None:
        """The act of that id."""
        return next((o for o in self.all() if o.operation_id == operation_id), None)


def whoever() -> str:
    """The user that the machine knows, where nobody says a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def now_ms() -> int:
    """Milliseconds since 1970; for the record of who did what when, never for what a record becomes."""
    return int(time.time() * 1000)
