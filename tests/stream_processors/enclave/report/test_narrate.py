"""What a published ratio is said to mean."""

from __future__ import annotations

import dataclasses

import pytest

from stream_processors.enclave.report.narrate import Estimate, Finding, Rate
from stream_processors.enclave.report.outcomes import OUTCOMES

BY_NAME = {o.name: o for o in OUTCOMES}
RATES = {(g, p): Rate(100, 1000, 50, 30.0) for g in ("participant", "comparison") for p in ("before", "after")}


def finding(outcome: str, effect: Estimate | None, refused: str | None = None) -> Finding:
    return Finding(BY_NAME[outcome], refused, effect, None, None, RATES, None, None)


@pytest.mark.parametrize(
    ("outcome", "estimate", "verdict"),
    [
        ("offences", (0.7, 0.6, 0.8), "better"),
        ("offences", (1.3, 1.1, 1.5), "worse"),
        ("offences", (0.8, 0.6, 1.1), "no difference seen"),
        ("offences", (0.9, 0.8, 1.0), "no difference seen"),
        ("employment", (1.3, 1.1, 1.5), "better"),
        ("employment", (0.7, 0.6, 0.8), "worse"),
        ("contacts", (0.7, 0.6, 0.8), "changed"),
        ("offences", None, "not published"),
    ],
)
def test_an_interval_that_leaves_out_one_is_a_difference(
    outcome: str, estimate: tuple[float, float, float] | None, verdict: str
) -> None:
    assert finding(outcome, Estimate(*estimate) if estimate else None).verdict == verdict


def test_a_difference_is_said_with_its_interval() -> None:
    said = finding("offences", Estimate(0.7, 0.6, 0.8)).sentence
    assert "30% lower than it would have been" in said
    assert "−40% to −20%" in said
    assert "chance" in finding("offences", Estimate(0.9, 0.7, 1.2)).sentence
    assert "too few" in finding("offences", None, "too few").sentence


def test_what_would_have_been_is_the_rate_over_the_ratio() -> None:
    assert finding("offences", Estimate(0.75, 0.6, 0.8)).expected == pytest.approx((40.0, 37.5, 50.0))
    none = dataclasses.replace(finding("offences", None), rates={})
    assert none.expected is None
