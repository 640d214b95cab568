from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from infra.settings import Settings


@dataclass
class Cluster:
    """librdkafka's own mock broker: it lives as long as the client that made it."""

    host: Any
    bootstrap: str

    @property
    def settings(self) -> Settings:
        return Settings(bootstrap=self.bootstrap)

    def stop(self) -> None:
        self.host = None

    def create(self, topic: str) -> None:
        self.host.list_topics(topic, timeout=10)

    def messages(self, topic: str) -> list[tuple[int, bytes, bytes | None]]:
        """Partition, key and value of everything, in order within each partition."""
        return [(m.partition() or 0, m.key() or b"", m.value()) for m in self.records(topic)]

    def records(self, topic: str) -> list[Message]:
        """Everything, in order within each partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "test",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        out: list[Message] = []
        ended = 0
        while ended < len(partitions):
            message = consumer.poll(10)
            assert message is not None, "the mock broker does not answer"
            if message.error():
                ended += 1
            else:
                assert message.partition() is not None
                assert message.key() is not None
                out.append(message)
        consumer.close()
        return sorted(out, key=lambda m: m.partition() or 0)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    host = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(host.list_topics(timeout=10).brokers.values()))
    made = Cluster(host, f"{broker.host}:{broker.port}")
    del host
    yield made
    made.stop()
