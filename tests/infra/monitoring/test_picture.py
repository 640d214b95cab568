"""The flow at a moment, made of two samples."""

from __future__ import annotations

import pytest

from infra.monitoring.picture import Health, Sample, Seen, Stage, picture
from infra.rest import Lag
from stream_processors.topology import NAMES

LATE = Lag("join", "linkage.activity", 0, 100, 130)
EVEN = Lag("join", "linkage.activity", 1, 50, 50)
MARKER = Lag("join", "linkage.link", 0, 9, 10)  # a transaction's marker: nothing waits


def sample(
    at_s: float, *lags: Lag, waits: dict[Lag, tuple[int, float]] | None = None, seen: tuple[Seen, ...] = ()
) -> Sample:
    return Sample(at_s, lags, waits or {}, seen)


def stage(stages: list[Stage], name: str) -> Stage:
    return next(s for s in stages if s.processor == name)


def test_stages_stand_in_the_order_of_the_topology() -> None:
    assert [s.processor for s in picture(None, sample(0))] == list(NAMES)


def test_behind_are_records_and_not_markers_of_transactions() -> None:
    found = stage(picture(None, sample(0, LATE, EVEN, MARKER, waits={LATE: (30, 60)})), "join")
    activity, link = found.arrows[0], found.arrows[1]
    assert (activity.topic, activity.partitions, activity.behind, activity.age_s) == ("linkage.activity", 2, 30, 60)
    assert (link.topic, link.behind, link.age_s) == ("linkage.link", 0, 0)
    assert (found.behind, found.age_s) == (30, 60)


def test_a_rate_takes_two_samples_and_a_new_topic_counts_from_when_it_was_seen() -> None:
    before = sample(10, LATE)
    now = sample(12, Lag("join", "linkage.activity", 0, 100, 190), EVEN)
    assert stage(picture(None, now), "join").arrows[0].rate is None
    assert stage(picture(before, now), "join").arrows[0].rate == 30


def test_suppliers_topics_stand_together_and_are_counted_once() -> None:
    lags = [Lag("pseudonymise", f"identified.dfe.{d}", 0, 0, 10) for d in ("person", "absence")]
    found = stage(picture(None, sample(0, *lags, waits=dict.fromkeys(lags, (10, 1.0)))), "pseudonymise")
    assert [(a.topic, a.behind) for a in found.arrows if a.behind] == [("identified.*", 20)]


@pytest.mark.parametrize(
    ("healths", "shown"),
    [
        ((), "not running"),
        (("ready", "ready"), "ready"),
        (("ready", "catching up"), "catching up"),
        (("catching up", "stuck"), "stuck"),
        (("stuck", "silent"), "silent"),
    ],
)
def test_a_stage_is_as_well_as_its_worst_instance(healths: tuple[Health, ...], shown: str) -> None:
    seen = tuple(Seen("route", i, 100 + i, h) for i, h in enumerate(healths))
    assert stage(picture(None, sample(0, seen=seen)), "route").health == shown
