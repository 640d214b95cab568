"""A clock that jumps does not tick: nothing is destroyed early because somebody set a clock."""

from __future__ import annotations

from datetime import date

import pytest

from stream_processors.control.clock import Reading, may_tick

DAY, MINUTE = 86_400_000, 60_000
START = 1_420_070_400_000  # 2015-01-01


def ticks(walls: list[int]) -> list[bool]:
    """Which readings tick, taken a minute apart by the monotonic clock."""
    readings = [Reading(START + w, i * MINUTE) for i, w in enumerate(walls)]
    return [may_tick(a, b) for a, b in zip([None, *readings], readings, strict=False)]


@pytest.mark.parametrize(
    ("walls", "ticking"),
    [
        ([0, MINUTE, 2 * MINUTE], [False, True, True]),
        ([0, MINUTE + 4_000, 2 * MINUTE], [False, True, True]),  # a clock that drifts
        ([0, MINUTE + DAY, 2 * MINUTE, 3 * MINUTE], [False, False, False, True]),  # a day forth on one reading
        ([0, MINUTE - DAY, 2 * MINUTE, 3 * MINUTE], [False, False, False, True]),  # a day back on one
        ([0, MINUTE, DAY, DAY + MINUTE], [False, True, False, True]),  # corrected for good
        ([0, DAY, 0, DAY, 0], [False] * 5),
    ],
)
def test_only_readings_that_agree_tick(walls: list[int], ticking: list[bool]) -> None:
    assert ticks(walls) == ticking


def test_the_day_is_that_of_utc() -> None:
    assert Reading(START, 0).day == date(2015, 1, 1)
    assert Reading(START - 1, 0).day == date(2014, 12, 31)
