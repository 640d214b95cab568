"""What `lethe doctor` finds, as a specification: facts in, findings out."""

from __future__ import annotations

import pytest

from infra.monitoring import findings
from infra.monitoring.findings import Disk, Finding
from infra.monitoring.picture import Arrow, Seen, Stage
from infra.monitoring.ports import PROCESSES
from infra.provision import same_setting

NOW = 1_000_000_000


def brief(found: list[Finding]) -> list[tuple[str, str]]:
    return [(f.severity, f.where) for f in found]


@pytest.mark.parametrize(("free", "severity"), [(500, None), (99, "warning"), (30, "critical"), (0, "critical")])
def test_disks(free: int, severity: str | None) -> None:
    assert brief(findings.disks([Disk("/data", free, 1_000)])) == ([(severity, "/data")] if severity else [])


@pytest.mark.parametrize(("skew_ms", "severity"), [(0, None), (4_999, None), (-5_000, "warning"), (90_000, "critical")])
def test_clocks(skew_ms: int, severity: str | None) -> None:
    assert brief(findings.clocks({"broker": skew_ms})) == ([(severity, "broker")] if severity else [])


@pytest.mark.parametrize(
    ("last", "severity"), [(None, "info"), (100, None), (98, None), (97, "critical"), (101, None), (102, "critical")]
)
def test_days_told(last: int | None, severity: str | None) -> None:
    assert brief(findings.days(last, 100, False)) == ([(severity, "governance.clock")] if severity else [])
    assert findings.days(last, 100, True) == []


def test_settings_of_topics() -> None:
    wanted = {"a": {"segment.ms": "5", "min.cleanable.dirty.ratio": "0.10"}, "b": {"segment.ms": "5"}, "c": {}}
    found = {"a": {"segment.ms": "5", "min.cleanable.dirty.ratio": "0.1"}, "b": {"segment.ms": "7"}}
    got = findings.topic_settings(wanted, found, same_setting)
    assert brief(got) == [("warning", "b"), ("critical", "c")]
    assert "segment.ms" in got[0].what


def test_numbers_of_partitions() -> None:
    assert brief(findings.partition_counts({"a": 4, "b": 2}, 4)) == [("critical", "b")]


def test_transactions_that_hang() -> None:
    since = {"a-0": NOW - 10_000, "a-1": NOW - 130_000}
    assert brief(findings.open_transactions(since, NOW, 120_000)) == [("critical", "a-1")]


def test_partitions_that_nobody_appends_to_stand_by_topic() -> None:
    last = {"a-0": NOW - 9_000, "a-2": NOW - 90_000, "a-10": NOW - 90_000, "unknown-0": 0}
    assert brief(findings.idle_partitions(last, {"a": 10_000}, 1_000, NOW)) == [("warning", "a-2,10")]


def test_processes() -> None:
    stages = [Stage("join", (), (Arrow("linkage.activity", "join", 4, 7, 3.0, None),), ())]
    seen = [Seen("route", 1, 11, "stuck"), Seen("link", 1, 12, "silent"), Seen("control", 1, 13, "catching up")]
    elsewhere = {p: 1 for p in PROCESSES if p not in ("join", "publish")}
    got = findings.processes(stages, seen, elsewhere)
    assert brief(got) == [
        ("critical", "join"),  # records wait for it
        ("warning", "publish"),
        ("critical", "route 1 (pid 11)"),
        ("critical", "link 1 (pid 12)"),
    ]
    assert "7 records wait" in got[0].what


def test_records_that_wait_too_long() -> None:
    arrows = (Arrow("linkage.activity", "join", 4, 7, 700.0, None), Arrow("linkage.link", "join", 4, 7, 5.0, None))
    assert brief(findings.stalled([Stage("join", (), arrows, ())])) == [("warning", "join on linkage.activity")]


def test_alerts_and_quarantine() -> None:
    alert = {"kind": "quarantine_ratio", "severity": "critical", "where": "dfe.person", "count": 12}
    assert brief(findings.standing_alerts([alert])) == [("critical", "dfe.person")]
    got = findings.quarantine({("dfe", "person", "BadId"): 3, ("dfe", "absence", "BadId"): 1})
    assert brief(got) == [("info", "dfe.absence"), ("info", "dfe.person")]


def test_the_worst_comes_first_and_each_says_what_to_do() -> None:
    found = [Finding("b", "info", "x", "w", "do"), Finding("a", "critical", "x", "w", "do")]
    assert [f.severity for f in findings.worst(found)] == ["critical", "info"]
