"""What a worker exports, and when it is live and ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.monitoring.metrics import LIVE_S, WorkerMetrics
from stream_processors.runtime.observer import Batch, Place
from stream_processors.runtime.records import Emit, Inputs

TOPIC = "linkage.identity"


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(tmp_path: Path, clock: Clock) -> WorkerMetrics:
    return WorkerMetrics("route", tmp_path, near=10, now=clock, wall_ms=lambda: 50_000)


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"processor": "route", **labels})


def batch(*values: bytes | None) -> Batch:
    n = len(values)
    taken = Inputs(TOPIC, 2, [b"k"] * n, values, list(range(n)), [20_000] * n)
    said = Emit("linkage.candidate", 0, [b"kk"], [None])
    return Batch([taken], [said], {"moved": 3}, {"compute": 0.3, "commit": 0.1})


def test_a_batch_is_counted_by_topic_and_direction(metrics: WorkerMetrics) -> None:
    metrics.batch(batch(b"1234", None))
    metrics.batch(batch(b"12"))
    taken = {"direction": "in", "topic": TOPIC}
    assert value(metrics, "lethe_records_total", **taken) == 3
    assert value(metrics, "lethe_tombstones_total", **taken) == 1
    assert value(metrics, "lethe_bytes_total", **taken) == 3 + 4 + 2
    assert value(metrics, "lethe_records_total", direction="out", topic="linkage.candidate") == 2
    assert value(metrics, "lethe_outcomes_total", outcome="moved") == 6
    assert value(metrics, "lethe_batch_seconds_sum", part="compute") == pytest.approx(0.6)
    assert value(metrics, "lethe_batch_records_count") == 2


@pytest.mark.parametrize(
    ("next_", "end", "lag", "seconds"),
    [
        (10, 10, 0, 0),
        (10, 40, 30, 30),  # 50 s - 20 s
    ],
)
def test_lag_is_in_offsets_and_in_seconds(
    metrics: WorkerMetrics, next_: int, end: int, lag: int, seconds: float
) -> None:
    metrics.batch(batch(b"x"))
    metrics.places([Place(TOPIC, 2, next_, end)])
    labels = {"group": "lethe.route", "topic": TOPIC, "partition": "2"}
    assert value(metrics, "kafka_consumergroup_lag", **labels) == lag
    assert value(metrics, "kafka_consumergroup_lag_seconds", **labels) == seconds


def test_ready_is_assigned_and_caught_up_but_for_a_batch(metrics: WorkerMetrics) -> None:
    assert not metrics.ready
    metrics.assigned([2])
    metrics.places([Place(TOPIC, 2, 0, 100)])
    assert not metrics.ready
    metrics.places([Place(TOPIC, 2, 95, 100)])
    assert metrics.ready
    metrics.revoked()
    assert not metrics.ready


def test_an_instance_without_partitions_stands_by_and_is_ready(metrics: WorkerMetrics) -> None:
    metrics.assigned([])
    assert metrics.ready


def test_a_loop_that_does_not_turn_is_not_live(metrics: WorkerMetrics, clock: Clock) -> None:
    metrics.assigned([])
    clock.seconds += LIVE_S + 1
    assert not metrics.live
    assert not metrics.ready
    metrics.turned()
    assert metrics.live


def test_a_restore_shows_how_far_it_is_until_the_assignment(metrics: WorkerMetrics) -> None:
    metrics.restoring(2, TOPIC, 25, 100)
    assert value(metrics, "lethe_restore_ratio", partition="2") == 0.25
    metrics.assigned([2])
    assert value(metrics, "lethe_restore_ratio", partition="2") is None


def test_the_size_of_the_state_is_that_of_its_files(metrics: WorkerMetrics, tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "000001.sst").write_bytes(b"x" * 1_000)
    assert value(metrics, "lethe_state_bytes") == 1_000
