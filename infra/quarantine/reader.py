"""Partitions read from here to there, a bounded number of records in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.settings import Settings
from stream_processors.runtime.kafka import meet, reader_config

_CALL_S = 30
_LIST_S = 8  # the first call: whether anybody is there
_WAIT_S = 0.5
_QUIET = 60
_BATCH = 500  # quarantined values are as large as 9 MB


class Reader:
    """Reads without a group. `committed`: leave out what a transaction holds back or has taken back."""

    def __init__(self, settings: Settings, *, committed: bool = True) -> None:
        level = "read_committed" if committed else "read_uncommitted"
        self._consumer = Consumer(
            reader_config(settings, f"lethe.{settings.principal}.reader")
            | {"isolation.level": level, "session.timeout.ms": 10_000}
        )
        self._met: set[str] = set()
        self.ended_at = 0
        """Where the last `read` without a stop ended: behind records that were taken back, too."""

    def topics(self) -> dict[str, int]:
        """Every topic and how many partitions it has.

        Raises:
            KafkaException: the broker is away.
        """
        found = self._consumer.list_topics(timeout=_LIST_S).topics
        return {name: len(t.partitions) for name, t in found.items()}

    def ends(self, topic: str, partition: int) -> tuple[int, int]:
        """Offset of the first record that is held, and of the next that will be written.

        Raises:
            KafkaException: the broker is away.
        """
        low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_CALL_S)
        return low, high

    def read(self, topic: str, partition: int, start: int, stop: int | None = None) -> Iterator[list[Message]]:
        """Records with start <= offset < stop, or to the end as it is when it is reached.

        Raises:
            KafkaException: the broker is away.
        """
        if stop is not None and start >= stop:
            return
        meet(self._consumer, [topic], self._met)
        self._consumer.assign([TopicPartition(topic, partition, start)])
        try:
            ended, quiet = False, 0
            while not ended:
                found: list[Message] = []
                first = self._consumer.consume(1, _WAIT_S)
                for m in first + (self._consumer.consume(_BATCH - 1, 0.02) if first and not first[0].error() else []):
                    error = m.error()
                    if (m.topic(), m.partition()) != (topic, partition) and m.topic() is not None:
                        continue  # of an assignment before this one
                    if error is None:
                        ended = ended or (stop is not None and m.offset() + 1 >= stop)
                        if stop is None or m.offset() < stop:
                            found.append(m)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended, self.ended_at = True, m.offset()
                    elif not error.retriable():
                        raise KafkaException(error)
                if found:
                    yield found
                quiet = 0 if found else quiet + 1
                if quiet > _QUIET:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """Release the connection."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
