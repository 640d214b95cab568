"""What the control plane looks up in the cluster: ends of logs, and how far groups have read. Takes part in nothing."""

from __future__ import annotations

from confluent_kafka import Consumer, IsolationLevel, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from infra.settings import Settings
from stream_processors.clock import TOPIC as CLOCK
from stream_processors.control.alerts import Observed, Stable, hanging, overdue
from stream_processors.edition import Edition
from stream_processors.runtime.account import TOPIC as ACCOUNTS
from stream_processors.runtime.account import home_of
from stream_processors.runtime.kafka import client_config, consumer_config

_COUNTS = "pseudonymise"
_RETENTION = "lethe.retention"  # and what it may be called besides
_CALL_S = 30
_SLACK_MS = 60_000
_OVERDUE_MS = 600_000


class Watch:
    """Asks the brokers; remembers since when a transaction has been open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient(client_config(settings))
        self._groups: dict[str, Consumer] = {}
        self._stable: dict[str, Stable] = {}
        topic = Edition(settings.edition).topic(ACCOUNTS)
        self._accounts = TopicPartition(topic, home_of(_COUNTS, settings.partitions), 0)
        # A transaction that its producer left is aborted by the broker after this long; one that is not, hangs.
        self._bound_ms = settings.transaction_timeout_ms + _SLACK_MS

    def close(self) -> None:
        """Release the connections."""
        for consumer in self._groups.values():
            consumer.close()

    def accounts(self) -> list[bytes]:
        """The last account of each key that pseudonymise has committed since the last look, encoded; from the first
        look on, since the beginning."""
        found = self._read(self._accounts)
        last = {m.key(): m.value() for m in found if m.key() is not None and m.key().startswith(_COUNTS.encode())}
        if found:
            self._accounts = TopicPartition(self._accounts.topic, self._accounts.partition, found[-1].offset() + 1)
        return [value for value in last.values() if value is not None]

    def partitions(self) -> list[tuple[str, int]]:
        """Every partition of every topic that is not Kafka's own."""
        return [(tp.topic, tp.partition) for tp in self._partitions()]

    def observe(self, now_ms: int) -> list[Observed]:
        """Transactions that hang, and ticks that `retention` has left lying."""
        partitions = self._partitions()
        stable, high = self._ends(partitions, committed=True), self._ends(partitions, committed=False)
        ends = {f"{t}-{p}": (stable[t, p], high[t, p]) for t, p in stable if (t, p) in high}
        self._stable, found = hanging(self._stable, ends, now_ms, self._bound_ms)
        return found + overdue(self._waiting([tp for tp in partitions if tp.topic == CLOCK]), now_ms, _OVERDUE_MS)

    def _waiting(self, clock: list[TopicPartition]) -> dict[str, tuple[int, int]]:
        """Ticks of each partition that `retention` has not taken in, and when the oldest came (ms since 1970)."""
        out: dict[str, tuple[int, int]] = {}
        groups = self._admin.list_consumer_groups(request_timeout=_CALL_S).result(timeout=_CALL_S).valid
        for group in sorted(g.group_id for g in groups if g.group_id.startswith(_RETENTION)):
            for tp in self._committed(group, clock):
                if tp.offset < 0:
                    continue  # it has never read this partition
                times = [m.timestamp()[1] for m in self._read(tp)]
                where = f"{group.removeprefix('lethe.')} {tp.topic}-{tp.partition}"
                out[where] = (len(times), times[0] if times else 0)
        return out

    def _read(self, start: TopicPartition) -> list[Message]:
        reader = self._group("lethe.control.watch")
        reader.assign([start])
        found: list[Message] = []
        try:
            while True:
                for message in reader.consume(1_000, 1.0):
                    if message.error() is not None:
                        return found
                    found.append(message)
        finally:
            reader.unassign()

    def _partitions(self) -> list[TopicPartition]:
        topics = self._admin.list_topics(timeout=_CALL_S).topics
        return [
            TopicPartition(name, p)
            for name, topic in topics.items()
            if not name.startswith("_")
            for p in topic.partitions
        ]

    def _ends(self, partitions: list[TopicPartition], *, committed: bool) -> dict[tuple[str, int], int]:
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        wanted = {tp: OffsetSpec.latest() for tp in partitions}
        found = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=_CALL_S) if wanted else {}
        return {(tp.topic, tp.partition): f.result(timeout=_CALL_S).offset for tp, f in found.items()}

    def _group(self, group: str) -> Consumer:
        # By a consumer that never joins: the admin call crashes librdkafka 2.16 on an error (see infra/rest.py).
        if group not in self._groups:
            self._groups[group] = Consumer(consumer_config(self._settings, group))
        return self._groups[group]

    def _committed(self, group: str, asked: list[TopicPartition]) -> list[TopicPartition]:
        found = self._group(group).committed(asked, _CALL_S) if asked else []
        for tp in found:
            if tp.error is not None:
                raise KafkaException(tp.error)
        return list(found)
