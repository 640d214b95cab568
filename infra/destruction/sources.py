"""What suppliers' own topics still hold although it has expired: worked out from the records, as pseudonymise does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

from confluent_kafka import Message

from infra.destruction.proof import Proof
from infra.destruction.topics import SOURCES, Held
from schemas import contracts
from schemas.registry import SchemaIds
from stream_processors.clock import EPOCH
from stream_processors.erasure.reading import held_until
from stream_processors.retention_policy import RetentionPolicy
from stream_processors.runtime.kafka import matches
from stream_processors.runtime.records import HEARTBEAT_KEY
from stream_processors.runtime.restore import inputs_of

_AT_ONCE = 5_000


class AtSource:
    """Records of suppliers by place, if they have expired by the confirmed day of their partition."""

    def __init__(self, policy: RetentionPolicy, ids: SchemaIds, confirmed: Mapping[tuple[str, int], int]) -> None:
        """`confirmed`: days since 1970 by topic that retention reads, and partition; the earlier of its two counts."""
        self._policy, self._ids = policy, ids
        self._days: dict[int, date] = {}
        for partition in {p for _, p in confirmed}:
            told = [confirmed.get((topic, partition)) for topic in SOURCES]
            if None not in told:
                self._days[partition] = EPOCH + timedelta(min(d for d in told if d is not None))
        self._waiting: dict[tuple[str, int], list[Message]] = {}
        self._over: dict[str, set[tuple[int, int]]] = {}

    def take(self, m: Message) -> None:
        """Look at a record, if it is a supplier's."""
        topic, partition = m.topic() or "", m.partition() or 0
        if m.value() is None or m.key() in (None, HEARTBEAT_KEY) or partition not in self._days:
            return
        if not topic.startswith("identified.") or not _is_supplied(topic):
            return
        waiting = self._waiting.setdefault((topic, partition), [])
        waiting.append(m)
        if len(waiting) >= _AT_ONCE:
            self._flush(topic, partition)

    def find(self, proof: Proof, tables: Mapping[str, Held]) -> None:
        """What lives of them stands against the proof."""
        for topic, partition in list(self._waiting):
            self._flush(topic, partition)
        for topic, places in sorted(self._over.items()):
            for partition, offset in sorted(places & set(tables.get(topic, Held()).at.values())):
                proof.find("overdue", f"{topic}-{partition}@{offset}")

    def _flush(self, topic: str, partition: int) -> None:
        batch = inputs_of(topic, partition, self._waiting.pop((topic, partition)))
        _, supplier, dataset = topic.split(".")
        contract = contracts.identified(supplier, dataset)
        until = held_until(self._policy, batch, contract, self._ids, range(len(batch.keys)))
        day = self._days[partition]
        self._over.setdefault(topic, set()).update((partition, batch.offsets[r]) for r, d in until.items() if d <= day)


def _is_supplied(topic: str) -> bool:
    """Whether it is a supplier's dataset: no quarantine, and no enquiry, which ends by itself."""
    return matches(("identified.*",), topic) and not topic.endswith(f".{contracts.ENQUIRY}")
