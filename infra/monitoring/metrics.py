"""A worker's observer that keeps Prometheus metrics and its health. A batch costs a few calls, never one a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from infra.monitoring.names import METRICS
from stream_processors.edition import edition_of
from stream_processors.runtime.observer import Batch, Ending, Place
from stream_processors.runtime.records import Emit, Inputs

LIVE_S = 60.0
"""A loop that has not turned for this long is stuck: no batch, and no call of a client, is meant to take as long."""
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_RECORDS = (1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000)


class WorkerMetrics:
    """What one worker exports. `near`: records behind up to which it counts as caught up.

    `now` is a monotonic clock in seconds, `wall_ms` the machine's in ms since 1970; both for age only.
    """

    def __init__(
        self,
        processor: str,
        state: Path,
        near: int,
        *,
        now: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self.registry = CollectorRegistry()
        self._processor, self._near, self._now, self._wall_ms = processor, near, now, wall_ms
        self._turned_at = now()
        self._assigned: tuple[int, ...] | None = None
        self._places: dict[tuple[str, int], Place] = {}
        self._taken_ms: dict[tuple[str, int], int] = {}
        self._records = _counter("lethe_records_total", self.registry)
        self._bytes = _counter("lethe_bytes_total", self.registry)
        self._tombstones = _counter("lethe_tombstones_total", self.registry)
        self._outcomes = _counter("lethe_outcomes_total", self.registry)
        self._transactions = _counter("lethe_transactions_total", self.registry)
        self._seconds = _histogram("lethe_batch_seconds", self.registry, _SECONDS)
        self._sizes = _histogram("lethe_batch_records", self.registry, _RECORDS)
        self._restoring = _gauge("lethe_restore_ratio", self.registry)
        for ending in ("committed", "aborted", "session_lost"):
            self._transactions.labels(processor, ending)
        self.registry.register(_Places(self, state))

    # What a worker tells: see `Observer`.

    def turned(self) -> None:
        """The loop lives."""
        self._turned_at = self._now()

    def assigned(self, partitions: Sequence[int]) -> None:
        """These partition numbers are served."""
        self._assigned = tuple(partitions)
        self._restoring.clear()

    def revoked(self) -> None:
        """None is."""
        self._assigned = None
        self._places.clear()

    def restoring(self, partition: int, topic: str, done: int, end: int) -> None:  # noqa: ARG002
        """How far a restore is."""
        self._restoring.labels(self._processor, str(partition)).set(min(1.0, done / end) if end else 1.0)

    def batch(self, batch: Batch) -> None:
        """Count a committed batch."""
        for taken in batch.inputs:
            self._count("in", taken)
            if taken.times:
                self._taken_ms[taken.topic, taken.partition] = taken.times[-1]
        for said in batch.outputs:
            self._count("out", said)
        for name, n in batch.counts.items():
            self._outcomes.labels(self._processor, name).inc(n)
        for part, seconds in batch.seconds.items():
            self._seconds.labels(self._processor, part).observe(seconds)
        self._sizes.labels(self._processor).observe(sum(len(taken.keys) for taken in batch.inputs))

    def ended(self, how: Ending) -> None:
        """Count how transactions end."""
        self._transactions.labels(self._processor, how).inc()

    def places(self, places: Sequence[Place]) -> None:
        """Where it is, replaced as a whole: a scrape reads from another thread."""
        self._places = {(p.topic, p.partition): p for p in places}

    # Health.

    @property
    def live(self) -> bool:
        """Whether the loop has turned lately."""
        return self._now() - self._turned_at < LIVE_S

    @property
    def ready(self) -> bool:
        """Whether it is assigned, restored, and caught up but for a batch. One of more instances than there are
        partitions has none, stands by, and is ready."""
        return (
            self.live and self._assigned is not None and all(self._lag(p) <= self._near for p in self._places.values())
        )

    @property
    def processor(self) -> str:
        """Whose."""
        return self._processor

    @property
    def served(self) -> int:
        """How many partition numbers are served."""
        return len(self._assigned or ())

    def lags(self) -> list[tuple[Place, int, float]]:
        """Each place with its lag in offsets, and in seconds."""
        now = self._wall_ms()
        out = []
        for (topic, partition), place in self._places.items():
            lag = self._lag(place)
            taken = self._taken_ms.get((topic, partition))
            seconds = max(0, now - taken) / 1000 if lag and taken is not None else 0.0
            out.append((place, lag, seconds))
        return out

    def _lag(self, place: Place) -> int:
        return max(0, place.end - place.next)

    def _count(self, direction: str, records: Inputs | Emit) -> None:
        labels = (self._processor, direction, records.topic)
        gone, size = _counted(records.values)
        size += _counted(records.keys)[1]
        self._records.labels(*labels).inc(len(records.keys))
        self._bytes.labels(*labels).inc(size)
        self._tombstones.labels(*labels).inc(gone)


def _counted(texts: Sequence[bytes | None]) -> tuple[int, int]:
    """How many are null, and the bytes of the others: two passes in C, 35 ns a record."""
    gone = texts.count(None)
    return gone, sum(map(len, filter(None, texts) if gone else texts))  # type: ignore[arg-type]


class _Places(Collector):
    """What is worked out when somebody asks."""

    def __init__(self, metrics: WorkerMetrics, state: Path) -> None:
        self._metrics, self._state = metrics, state

    def collect(self) -> Iterator[Family]:
        mine = self._metrics
        name = mine.processor
        lag, seconds = _family("kafka_consumergroup_lag"), _family("kafka_consumergroup_lag_seconds")
        for place, behind, age in mine.lags():
            processor, edition = edition_of(name)
            labels = (name, edition.group(processor), place.topic, str(place.partition))
            lag.add_metric(labels, behind)
            seconds.add_metric(labels, age)
        yield lag
        yield seconds
        yield from gauges(
            {
                "lethe_partitions": [((name,), mine.served)],
                "lethe_state_bytes": [((name,), folder_bytes(self._state))],
                "lethe_live": [((name,), mine.live)],
                "lethe_ready": [((name,), mine.ready)],
            }
        )


def gauges(values: Mapping[str, Iterable[tuple[Sequence[str], float]]]) -> Iterator[Family]:
    """Gauges by name, each with its labels and values."""
    for name, rows in values.items():
        family = _family(name)
        for labels, value in rows:
            family.add_metric(labels, value)
        yield family


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder; files that go meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _family(name: str) -> GaugeMetricFamily:
    metric = METRICS[name]
    return GaugeMetricFamily(name, metric.help, labels=metric.labels)


def _counter(name: str, registry: CollectorRegistry) -> Counter:
    metric = METRICS[name]
    return Counter(name, metric.help, metric.labels, registry=registry)


def _gauge(name: str, registry: CollectorRegistry) -> Gauge:
    metric = METRICS[name]
    return Gauge(name, metric.help, metric.labels, registry=registry)


def _histogram(name: str, registry: CollectorRegistry, buckets: Sequence[float]) -> Histogram:
    metric = METRICS[name]
    return Histogram(name, metric.help, metric.labels, registry=registry, buckets=buckets)
