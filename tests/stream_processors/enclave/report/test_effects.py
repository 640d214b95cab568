from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_processors.enclave.report.effects import ratio_of_ratios
from stream_processors.enclave.report.panel import Panel


def panel(seed: int, families: int = 300, effect: float = 0.7) -> Panel:
    """Families with a rate of their own, both periods; participants' is higher, and falls by the effect."""
    rng = np.random.default_rng(seed)
    family = np.tile(np.arange(families), 2)
    participant = family % 2 == 0
    after = np.arange(2 * families) >= families
    own = np.tile(rng.gamma(1.0, 1.0, families), 2) * np.where(participant, 1.5, 1.0)
    exposure = rng.integers(10, 60, 2 * families).astype(float)
    rate = 0.1 * own * np.where(after, 1.1, 1.0) * np.where(after & participant, effect, 1.0)
    return Panel(family, participant, after, rng.poisson(rate * exposure).astype(float), exposure)


def by_hand(p: Panel, weights: np.ndarray | None = None) -> tuple[float, float]:
    """The ratio of four rates, and the error of its log from what each family adds to them (delta method)."""
    w = np.ones(len(p.events)) if weights is None else weights
    cell = 2 * p.participant + p.after
    sign = np.array([1.0, -1.0, -1.0, 1.0])
    log, residual = 0.0, np.zeros(len(p.events))
    for c in range(4):
        at = cell == c
        events, exposure = (w * p.events)[at].sum(), (w * p.exposure)[at].sum()
        log += sign[c] * math.log(events / exposure)
        residual[at] = sign[c] * w[at] * (p.events[at] - p.exposure[at] * events / exposure) / events
    summed = np.bincount(p.family, residual)
    n, k = len(np.unique(p.family[w > 0])), 4
    rows = int((w > 0).sum())
    return math.exp(log), math.sqrt((summed**2).sum() * n / (n - 1) * (rows - 1) / (rows - k))


@pytest.mark.parametrize("seed", range(3))
def test_the_regression_gives_the_ratio_of_four_rates_with_clustered_errors(seed: int) -> None:
    found = ratio_of_ratios(panel(seed))
    assert found is not None
    ratio, error = by_hand(panel(seed))
    assert found.ratio == pytest.approx(ratio)
    assert found.log_error == pytest.approx(error, rel=0.01)
    assert found.low == pytest.approx(found.ratio * math.exp(-1.96 * found.log_error), rel=1e-4)
    assert found.families == 300


def test_weights_weigh_and_families_without_are_left_out() -> None:
    p = panel(5)
    weights = np.random.default_rng(9).integers(0, 4, 300).astype(float)[p.family]
    found = ratio_of_ratios(p, weights)
    assert found is not None
    ratio, error = by_hand(p, weights)
    assert found.ratio == pytest.approx(ratio)
    assert found.log_error == pytest.approx(error, rel=0.01)
    assert found.families == len(np.unique(p.family[weights > 0]))


def test_no_events_no_estimate() -> None:
    p = panel(1)
    none = Panel(p.family, p.participant, p.after, np.where(p.participant & p.after, 0, p.events), p.exposure)
    assert ratio_of_ratios(none) is None


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5.0), st.floats(0.2, 5.0), st.integers(0, 50))
def test_what_both_groups_share_or_always_had_is_no_effect(trend: float, level: float, seed: int) -> None:
    """Another trend for everyone, or another level of participants, changes nothing but by rounding of counts."""
    p = panel(seed)
    scaled = p.events * np.where(p.after, trend, 1.0) * np.where(p.participant, level, 1.0)
    one, other = ratio_of_ratios(p), ratio_of_ratios(Panel(p.family, p.participant, p.after, scaled, p.exposure))
    assert one is not None
    assert other is not None
    assert other.ratio == pytest.approx(one.ratio, rel=1e-6)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    covered = sum(r.covers(0.7) for s in range(200) if (r := ratio_of_ratios(panel(s, families=150))) is not None)
    assert 180 <= covered <= 199
