"""Whether the flow is at rest: every processor has taken in every committed record of its inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from infra.settings import Settings
from stream_processors.access import SUPER
from stream_processors.edition import Edition
from stream_processors.runtime.kafka import (
    PASSING,
    client_config,
    consumer_config,
    error_of,
    matches,
    meet,
    reader_config,
)
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.restore import told_by
from stream_processors.topology import TOPOLOGY, declaration

_CALL_S = 30
_POLL_S = 0.25
_NEAR = 64
_AGES_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800, 3_600, 21_600, 86_400, 259_200, 604_800, 2_592_000, 1e9)


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
    """Looks at groups and logs, without taking part.

    A record is read for whoever reads that topic anyway: an operator may not. That needs the processors' credentials.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient(client_config(settings))
        self._readers: dict[str, Consumer] = {}
        self._met: dict[str, set[str]] = {}
        self._groups: dict[str, Consumer] = {}
        self._edition = Edition(settings.edition)
        self._again: set[str] = set()
        """Groups that read everything again, and have not held what they said to it yet: by what they commit."""

    def close(self) -> None:
        """Release the connections."""
        for consumer in [*self._readers.values(), *self._groups.values()]:
            consumer.close()

    def lags(self) -> list[Lag]:
        """Every partition that every processor reads."""
        ends = self._ends()
        out = []
        for d in TOPOLOGY:
            mine = {tp: end for tp, end in ends.items() if self._reads(d, tp[0])}
            committed = self._committed(self._edition.group(d.name), mine)
            out += [Lag(d.name, t, p, committed.get((t, p), 0), end) for (t, p), end in mine.items()]
        return out

    def _reads(self, of: Declaration, topic: str) -> bool:
        """Whether a processor of this edition reads a topic."""
        plain = self._edition.plain(topic)
        return self._edition.topic(plain) == topic and matches(of.reads, plain)

    def behind(self, only: Container[str] | None = None) -> set[str]:
        """Processors with a committed record that they have not taken in, or that read or say anew and are not through;
        empty means at rest. `only`: of these."""
        lags = [lag for lag in self.lags() if lag.committed < lag.end and (only is None or lag.processor in only)]
        again = {d.name for d in TOPOLOGY if self._edition.group(d.name) in self._again}
        if again := again if only is None else {name for name in again if name in only}:
            return again
        far = {lag.processor for lag in lags if lag.end - lag.committed > _NEAR}
        if far:
            return far
        # The last offsets of a log may be transaction markers, which nobody can commit past: read to be sure.
        return {lag.processor for lag in self._with_records(lags)}

    def replays(self) -> list[Lag]:
        """Partitions that a processor reads or says anew and is not through with, for a replay or after a long absence:
        from there to what is committed."""
        out = []
        wanted = self._ends()
        for d in TOPOLOGY:
            mine = [tp for tp in wanted if self._reads(d, tp[0])]
            for tp in self._places(self._edition.group(d.name), mine):
                told = told_by(tp.metadata)
                if tp.offset >= 0 and told.time_ms == 0:
                    out.append(Lag(d.name, tp.topic, tp.partition, told.anew or 0, tp.offset))
        return out

    def open(self, lags: Iterable[Lag]) -> list[Lag]:
        """Those of the lags behind which there is a committed record, and not only transaction markers."""
        late = [lag for lag in lags if lag.committed < lag.end]
        near = [lag for lag in late if lag.end - lag.committed <= _NEAR]
        kept = set(self._with_records(near)) if near else set()
        return [lag for lag in late if lag not in near or lag in kept]

    def ages_at_most(self, lags: Iterable[Lag], now_ms: int) -> dict[Lag, float]:
        """How old, in seconds, the oldest record is that was not taken in: the least of `_AGES_S` that it is not above.

        Asks brokers for offsets by time and reads nothing, so whoever may describe a topic may ask. A transaction's
        marker counts as a record does.
        """
        left = {lag: (0, len(_AGES_S) - 1) for lag in lags if lag.committed < lag.end}
        out: dict[Lag, float] = {}
        while left:
            middle = {lag: (low + high) // 2 for lag, (low, high) in left.items()}
            for lag in middle:
                low, high = left[lag]
                if low == high:
                    out[lag] = _AGES_S[low]
            left = {lag: span for lag, span in left.items() if lag not in out}
            # One request for each step of the ladder: a partition stands in a request once.
            for i in sorted({middle[lag] for lag in left}):
                mine = [lag for lag in left if middle[lag] == i]
                spec = OffsetSpec.for_timestamp(max(0, now_ms - int(_AGES_S[i] * 1000)))
                asked = {TopicPartition(lag.topic, lag.partition): spec for lag in mine}
                found = {(tp.topic, tp.partition): f for tp, f in self._admin.list_offsets(asked).items()}
                for lag in mine:
                    first = found[lag.topic, lag.partition].result(timeout=_CALL_S).offset
                    low, high = left[lag]
                    # The first record of the last so many seconds is no later than the one that waits: it is younger.
                    left[lag] = (low, i) if 0 <= first <= lag.committed else (i + 1, high)
        return out

    def ends_of(self, processor: str) -> dict[tuple[str, int], int]:
        """End of every partition that a processor reads."""
        declared = declaration(processor)
        return {tp: end for tp, end in self._ends().items() if self._reads(declared, tp[0])}

    def short_of(self, processor: str, marks: Mapping[tuple[str, int], int]) -> list[Lag]:
        """Where a processor has not taken in what lay before these offsets."""
        committed = self._committed(self._edition.group(processor), marks)
        return self.open(Lag(processor, t, p, committed.get((t, p), 0), end) for (t, p), end in marks.items())

    def wait(
        self,
        seconds: float,
        on_wait: Callable[[set[str]], None] = lambda _: None,
        only: Container[str] | None = None,
    ) -> None:
        """Return once the flow is at rest, or these processors of it.

        Raises:
            NotAtRestError: it is not after that many seconds.
        """
        deadline = time.monotonic() + seconds
        before: Mapping[tuple[str, int], int] | None = None
        while True:
            try:
                behind, ends = self.behind(only), self._ends()
            except KafkaException as e:
                if error_of(e).code() not in PASSING:
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
            if any(self._reads(d, name) for d in TOPOLOGY)
            for p in topic.partitions
        }
        found = self._admin.list_offsets(wanted) if wanted else {}
        return {(tp.topic, tp.partition): f.result(timeout=_CALL_S).offset for tp, f in found.items()}

    def _committed(self, group: str, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        found = self._places(group, wanted)
        self._again.discard(group)
        if any(tp.offset >= 0 and told_by(tp.metadata).time_ms == 0 for tp in found):
            self._again.add(group)
        return {(tp.topic, tp.partition): tp.offset for tp in found if tp.offset >= 0}

    def _places(self, group: str, wanted: Iterable[tuple[str, int]]) -> list[TopicPartition]:
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
        return list(found)

    def _with_records(self, lags: list[Lag]) -> list[Lag]:
        """Those behind which a record lies, and not markers alone."""
        if self._settings.principal in SUPER:
            return self._read(self._settings.principal, lags)
        names = sorted({lag.processor for lag in lags})
        return [lag for name in names for lag in self._read(name, [lag for lag in lags if lag.processor == name])]

    def _read(self, principal: str, lags: list[Lag]) -> list[Lag]:
        """As `_with_records`, by somebody who may read them. All are read at once."""
        reader = self._readers.get(principal)
        if reader is None:
            config = reader_config(self._settings.acting_as(principal), f"lethe.{principal}.at-rest")
            reader = self._readers[principal] = Consumer(config)
        starts: dict[tuple[str, int], int] = {}
        for lag in lags:
            where = (lag.topic, lag.partition)
            starts[where] = min(starts.get(where, lag.committed), lag.committed)
        last: dict[tuple[str, int], int] = {}
        meet(reader, {lag.topic for lag in lags}, self._met.setdefault(principal, set()))
        reader.assign([TopicPartition(t, p, at) for (t, p), at in starts.items()])
        left = set(starts)
        try:
            while left:
                for message in reader.consume(1_000, 0.05):
                    error, where = message.error(), (message.topic(), message.partition())
                    if error is None:
                        last[where] = message.offset()
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard(where)
                    elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                        raise KafkaException(error)
        finally:
            reader.unassign()
        return [lag for lag in lags if last.get((lag.topic, lag.partition), -1) >= lag.committed]
