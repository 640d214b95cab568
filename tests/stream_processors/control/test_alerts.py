"""Alerts: said when something begins, changes or goes on, taken back when it is over."""

from __future__ import annotations

from stream_processors.control.alerts import (
    SAY_AGAIN_MS,
    Alert,
    Observed,
    Stable,
    changes,
    hanging,
    overdue,
    quarantined,
)

HIGH = Observed("quarantine_ratio", "dfe.absence", "warning", 20)
ID = "quarantine_ratio|dfe.absence"
SAID = Alert("quarantine_ratio", "warning", "dfe.absence", 20, 100, 100)


def test_an_alert_begins_goes_on_and_ends() -> None:
    assert changes({}, [HIGH], ["quarantine_ratio"], 100) == {ID: SAID}
    assert changes({ID: SAID}, [HIGH], ["quarantine_ratio"], 200) == {}, "nothing new"
    again = changes({ID: SAID}, [HIGH], ["quarantine_ratio"], 100 + SAY_AGAIN_MS)
    assert again == {ID: Alert("quarantine_ratio", "warning", "dfe.absence", 20, 100, 100 + SAY_AGAIN_MS)}
    assert changes({ID: SAID}, [], ["quarantine_ratio"], 200) == {ID: None}


def test_a_change_is_said_at_once() -> None:
    worse = Observed("quarantine_ratio", "dfe.absence", "critical", 200)
    assert changes({ID: SAID}, [worse], ["quarantine_ratio"], 150) == {
        ID: Alert("quarantine_ratio", "critical", "dfe.absence", 200, 100, 150)
    }


def test_alerts_of_others_are_left_alone() -> None:
    """`token_frequency` is written by link."""
    other = Alert("token_frequency", "warning", "k02", 3, 1, 1)
    assert changes({"token_frequency|k02": other}, [], ["quarantine_ratio"], 200) == {}


def test_a_partition_that_stands_still_below_its_end_hangs() -> None:
    state, found = hanging({}, {"linkage.link-0": (5, 9), "linkage.link-1": (9, 9)}, 1_000, bound_ms=60_000)
    assert found == []
    state, found = hanging(state, {"linkage.link-0": (5, 12), "linkage.link-1": (9, 9)}, 62_000, bound_ms=60_000)
    assert found == [Observed("hanging_transaction", "linkage.link-0", "critical", 7)]
    state, found = hanging(state, {"linkage.link-0": (12, 12), "linkage.link-1": (9, 9)}, 63_000, bound_ms=60_000)
    assert found == []


def test_a_busy_partition_does_not_hang() -> None:
    state: dict[str, Stable] = {}
    for i in range(10):
        state, found = hanging(state, {"t-0": (i, i + 5)}, i * 60_000, bound_ms=90_000)
        assert found == []


def test_a_quiet_partition_that_begins_a_transaction_is_given_its_time() -> None:
    state, _ = hanging({}, {"t-0": (5, 5)}, 0, bound_ms=60_000)
    state, found = hanging(state, {"t-0": (5, 6)}, 1_000_000, bound_ms=60_000)
    assert found == []
    _, found = hanging(state, {"t-0": (5, 6)}, 1_060_001, bound_ms=60_000)
    assert len(found) == 1


def test_a_tick_that_lies_too_long_is_overdue_destruction() -> None:
    waiting = {"governance.clock-0": (3, 1_000), "governance.clock-1": (0, 0), "governance.clock-2": (1, 599_000)}
    assert overdue(waiting, 601_001, 600_000) == [Observed("overdue_destruction", "governance.clock-0", "critical", 3)]


def test_quarantine_is_judged_by_its_share() -> None:
    published = {"dfe.absence": 1_000, "dfe.person": 1_000, "moj.person": 50}
    failed = {"dfe.absence": 20, "dfe.person": 10, "moj.person": 9, "dwp.person": 11}
    assert quarantined(published, failed) == [
        Observed("quarantine_ratio", "dfe.absence", "warning", 20),
        Observed("quarantine_ratio", "dwp.person", "critical", 11),
    ]
