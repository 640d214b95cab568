"""The name of every metric, once: processes export them, dashboards, rules and docs use them, and a test compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """One metric, named as Prometheus advises: base units, `_total` for counters. No label names a person or an id."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    by: Literal["processor", "control"] = "processor"


_ALL = (
    Metric("lethe_records_total", "counter", ("processor", "direction", "topic"), "records taken in or said, by topic"),
    Metric("lethe_bytes_total", "counter", ("processor", "direction", "topic"), "bytes of their keys and values"),
    Metric("lethe_tombstones_total", "counter", ("processor", "direction", "topic"), "those that are tombstones"),
    Metric("lethe_outcomes_total", "counter", ("processor", "outcome"), "what became of records, as processors count"),
    Metric("lethe_batch_seconds", "histogram", ("processor", "part"), "a batch: to compute, to commit, to apply"),
    Metric("lethe_batch_records", "histogram", ("processor",), "records in a batch"),
    Metric("lethe_transactions_total", "counter", ("processor", "ending"), "committed, aborted, or session_lost"),
    Metric(
        "kafka_consumergroup_lag",
        "gauge",
        ("processor", "group", "topic", "partition"),
        "offsets between the next to read and the end of the log",
    ),
    Metric(
        "kafka_consumergroup_lag_seconds",
        "gauge",
        ("processor", "group", "topic", "partition"),
        "age of the last record taken in while more lies behind it; 0 at the end",
    ),
    Metric("lethe_partitions", "gauge", ("processor",), "partition numbers that are served"),
    Metric("lethe_state_bytes", "gauge", ("processor",), "size of the state on disk"),
    Metric("lethe_restore_ratio", "gauge", ("processor", "partition"), "restore under way: share read of the topic"),
    Metric("lethe_live", "gauge", ("processor",), "1 while the loop turns"),
    Metric("lethe_ready", "gauge", ("processor",), "1 while assigned and caught up"),
    Metric("lethe_quarantine_records", "gauge", ("supplier", "dataset"), "records in quarantine", "control"),
    Metric(
        "lethe_alert_records", "gauge", ("kind", "severity", "where"), "open alerts, and what they count", "control"
    ),
    Metric("lethe_batches", "gauge", ("supplier", "state"), "suppliers' batches by reconciliation", "control"),
    Metric("lethe_clock_day", "gauge", (), "the last day that was told, in days since 1970", "control"),
)
METRICS: Mapping[str, Metric] = MappingProxyType({m.name: m for m in _ALL})
