"""Groups and their offsets: what a replay looks at, and the one thing that it changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.replay.plan import At, Span
from infra.settings import Settings
from stream_processors.edition import Edition
from stream_processors.runtime.kafka import client_config, consumer_config
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.restore import metadata_of, told_by

_CALL_S = 15
_LIST_S = 8  # the first call: whether anybody is there


class Groups:
    """Looks at the cluster; `reset` alone changes it. Topics have their plain names here, whatever the edition."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._edition = settings, Edition(settings.edition)
        self._admin = AdminClient(client_config(settings))
        self._reader = Consumer(consumer_config(settings, f"lethe.{settings.principal}.replay"))

    def topics(self) -> dict[str, int]:
        """Topics and their partitions.

        Raises:
            KafkaException: the broker is away.
        """
        found = self._admin.list_topics(timeout=_LIST_S).topics
        plain = {self._edition.plain(name): (name, len(t.partitions)) for name, t in found.items()}
        return {p: n for p, (name, n) in plain.items() if self._edition.topic(p) == name}

    def members(self, processor: str) -> int:
        """How many members its group has: those that were killed, too, until their session times out."""
        group = self._edition.group(processor)
        found = self._admin.describe_consumer_groups([group], request_timeout=_CALL_S)[group]
        try:
            return len(found.result().members)
        except KafkaException:  # no such group
            return 0

    def spans(self, declaration: Declaration, topics: Iterable[str], partitions: int) -> list[Span]:
        """Every partition of these inputs that the group has ever committed."""
        wanted = [TopicPartition(self._edition.topic(t), p) for t in topics for p in range(partitions)]
        asked = ConsumerGroupTopicPartitions(self._edition.group(declaration.name), wanted)
        (found,) = self._admin.list_consumer_group_offsets([asked], request_timeout=_CALL_S).values()
        out = []
        for tp in found.result().topic_partitions:
            if tp.error is not None:
                raise KafkaException(tp.error)
            if tp.offset >= 0:
                low, _ = self._reader.get_watermark_offsets(TopicPartition(tp.topic, tp.partition), timeout=_CALL_S)
                at = At(declaration.name, self._edition.plain(tp.topic), tp.partition)
                out.append(Span(at, low, tp.offset, tp.metadata or ""))
        return out

    def at_time(self, spans: Sequence[Span], ms: int) -> dict[At, int]:
        """The first offset of each at that moment or later; what is committed, if there is none."""
        name = self._edition.topic
        asked = {(s.at.topic, s.at.partition): TopicPartition(name(s.at.topic), s.at.partition, ms) for s in spans}
        found = self._reader.offsets_for_times(list(asked.values()), timeout=_CALL_S) if asked else []
        offsets = {(self._edition.plain(tp.topic), tp.partition): tp.offset for tp in found}
        return {
            s.at: min(s.committed, o) if (o := offsets[s.at.topic, s.at.partition]) >= 0 else s.committed for s in spans
        }

    def reset(self, processor: str, spans: Sequence[Span]) -> None:
        """Commit, for a group without members, that all from `since` on is to be said anew. Offsets stay where they
        are: until the worker is through, they say where it goes on. Acts for the processor, whose group it is.

        Raises:
            KafkaException: the broker is away, or a member has joined: nothing was changed.
        """
        offsets = [
            TopicPartition(
                self._edition.topic(s.at.topic),
                s.at.partition,
                s.committed,
                metadata=metadata_of(0, told_by(s.metadata).version, s.since),
            )
            for s in spans
        ]
        mine = self._settings.acting_as(processor)
        consumer = Consumer(consumer_config(mine, self._edition.group(processor)))
        try:
            for tp in consumer.commit(offsets=offsets, asynchronous=False) or []:
                if tp.error is not None:
                    raise KafkaException(tp.error)
        finally:
            consumer.close()

    def close(self) -> None:
        """Release the connections."""
        self._reader.close()
