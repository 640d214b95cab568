"""Whether the flow is at rest: every processor has taken in every committed record of its inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from infra.settings import Settings
from stream_processors.runtime.kafka import consumer_config, matches
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


class Flow:
    """Looks at groups and logs, without taking part."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient({"bootstrap.servers": settings.bootstrap, "log_level": 3})
        self._reader = Consumer(consumer_config(settings, "lethe.at-rest"))

    def close(self) -> None:
        """Release the connection."""
        self._reader.close()

    def lags(self) -> list[Lag]:
        """Every partition that every processor reads."""
        ends = self._ends()
        out = []
        for declaration in TOPOLOGY:
            committed = self._committed(f"lethe.{declaration.name}")
            for (topic, partition), end in ends.items():
                if matches(declaration.reads, topic):
                    at = committed.get((topic, partition), 0)
                    out.append(Lag(declaration.name, topic, partition, at, end))
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
            behind = self.behind()
            ends = self._ends()
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

    def _committed(self, group: str) -> dict[tuple[str, int], int]:
        try:
            found = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
            result = next(iter(found.values())).result(timeout=_CALL_S)
        except KafkaException as e:
            if e.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return {}
            raise
        return {(tp.topic, tp.partition): tp.offset for tp in result.topic_partitions if tp.offset >= 0}

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
