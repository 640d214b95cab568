"""Whether the flow is at rest: every processor has taken in every committed record of its inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from infra.settings import Settings
from stream_processors.runtime.kafka import client_config, consumer_config, error_of, matches
from stream_processors.topology import TOPOLOGY

_CALL_S = 30
_POLL_S = 0.25
_NEAR = 64


class NotAtRestError(TimeoutError):
    """The flow did not come to rest in time. The message names the processors that are behind."""


@dataclass(frozen=True)
class Lag:
    """How far a processor is behind on one partition, in offsets (transaction markers have offsets too)."""

    processor: str
    topic: str
    partition: int
    committed: int
    end: int


_PASSING = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
"""What a broker answers for a moment after topics were made."""


class Flow:
    """Looks at groups and logs, without taking part."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient(client_config(settings))
        self._reader = Consumer(consumer_config(settings, "lethe.at-rest"))
        self._groups: dict[str, Consumer] = {}

    def close(self) -> None:
        """Release the connections."""
        for consumer in [self._reader, *self._groups.values()]:
            consumer.close()

    def lags(self) -> list[Lag]:
        """Every partition that every processor reads."""
        ends = self._ends()
        out = []
        for declaration in TOPOLOGY:
            mine = {tp: end for tp, end in ends.items() if matches(declaration.reads, tp[0])}
            committed = self._committed(f"lethe.{declaration.name}", mine)
            out += [Lag(declaration.name, t, p, committed.get((t, p), 0), end) for (t, p), end in mine.items()]
        return out

    def behind(self) -> set[str]:
        """Processors with a committed record that they have not taken in; empty means at rest."""
        lags = [lag for lag in self.lags() if lag.committed < lag.end]
        far = {lag.processor for lag in lags if lag.end - lag.committed > _NEAR}
        if far:
            return far
        # The last offsets of a log may be transaction markers, which nobody can commit past: read to be sure.
        return {lag.processor for lag in lags if self._has_record(lag)}

    def wait(self, seconds: float, on_wait: Callable[[set[str]], None] = lambda _: None) -> None:
        """Return once the flow is at rest.

        Raises:
            NotAtRestError: it is not after that many seconds.
        """
        deadline = time.monotonic() + seconds
        before: Mapping[tuple[str, int], int] | None = None
        while True:
            try:
                behind, ends = self.behind(), self._ends()
            except KafkaException as e:
                if error_of(e).code() not in _PASSING:
                    raise
                behind, ends = {"broker"}, None
            if not behind and ends == before:
                return
            before = ends
            on_wait(behind)
            if time.monotonic() > deadline:
                raise NotAtRestError(
                    f"not at rest after {seconds:.0f} s; behind: {', '.join(sorted(behind)) or 'none'}"
                )
            time.sleep(_POLL_S)  # Kafka tells nobody that a group has caught up

    def _ends(self) -> dict[tuple[str, int], int]:
        topics = self._admin.list_topics(timeout=_CALL_S).topics
        wanted = {
            TopicPartition(name, p): OffsetSpec.latest()
            for name, topic in topics.items()
            if any(matches(d.reads, name) for d in TOPOLOGY)
            for p in topic.partitions
        }
        found = self._admin.list_offsets(wanted) if wanted else {}
        return {(tp.topic, tp.partition): f.result(timeout=_CALL_S).offset for tp, f in found.items()}

    def _committed(self, group: str, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        # By a consumer that never joins, not by AdminClient.list_consumer_group_offsets: when its response is an error,
        # librdkafka 2.16 handles it as if the admin client were in a group, and crashes the process.
        if group not in self._groups:
            config = consumer_config(self._settings, group) | {"isolation.level": "read_uncommitted"}
            self._groups[group] = Consumer(config)
        asked = [TopicPartition(topic, partition) for topic, partition in wanted]
        found = self._groups[group].committed(asked, _CALL_S) if asked else []
        for tp in found:
            if tp.error is not None:
                raise KafkaException(tp.error)
        return {(tp.topic, tp.partition): tp.offset for tp in found if tp.offset >= 0}

    def _has_record(self, lag: Lag) -> bool:
        self._reader.assign([TopicPartition(lag.topic, lag.partition, lag.committed)])
        try:
            while True:
                for message in self._reader.consume(1, 1.0):
                    error = message.error()
                    if error is None:
                        return True
                    if error.code() == KafkaError._PARTITION_EOF:
                        return False
        finally:
            self._reader.unassign()
