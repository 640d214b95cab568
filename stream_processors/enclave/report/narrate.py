"""What the published numbers say, in words and in a form that page, tables and command share. Nothing else is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from stream_processors.enclave.disclosure import LogEntry, Published, Release
from stream_processors.enclave.report.outcomes import OUTCOMES, Outcome

Verdict = Literal["better", "worse", "changed", "no difference seen", "not published"]
WHY = {
    "threshold": "fewer than ten families or people stand behind one of its numbers",
    "dominance": "two families make up most of one of its numbers",
    "degrees of freedom": "too few families for an estimate",
    "secondary suppression": "a withheld number could be worked out from it",
    "differencing": "it differs from an earlier report by the records of a few people",
    "statistic": "this kind of figure may not leave",
}
"""Why something is refused, by the rule that refused it."""


@dataclass(frozen=True)
class Estimate:
    """A ratio of ratios as published; 1 is no difference."""

    ratio: float
    low: float
    high: float

    @property
    def different(self) -> bool:
        """Whether the interval leaves out no difference."""
        return self.low > 1 or self.high < 1


@dataclass(frozen=True)
class Rate:
    """A published rate of one group in one period. value: events over exposure, both rounded, times the scale."""

    events: int
    exposure: int
    families: int
    value: float


@dataclass(frozen=True)
class Finding:
    """What may be said of one outcome. refused: why nothing may, else None.

    rates: by group and period. expected: what participants' rate after the start would have been, at the comparison
    families' pace: the rate over the ratio, and over the interval's ends.
    """

    outcome: Outcome
    refused: str | None
    effect: Estimate | None
    matched: Estimate | None
    earlier: Estimate | None
    rates: Mapping[tuple[str, str], Rate]
    series: pl.DataFrame | None
    series_refused: str | None

    @property
    def verdict(self) -> Verdict:
        """What the interval allows to say."""
        if self.effect is None:
            return "not published"
        if not self.effect.different:
            return "no difference seen"
        if self.outcome.better == "neither":
            return "changed"
        return "better" if (self.effect.ratio < 1) == (self.outcome.better == "fewer") else "worse"

    @property
    def expected(self) -> tuple[float, float, float] | None:
        """Rate expected without the programme, and the ends of its interval."""
        rate = self.rates.get(("participant", "after"))
        if self.effect is None or rate is None or not min(self.effect.low, self.effect.ratio) > 0:
            return None
        return rate.value / self.effect.ratio, rate.value / self.effect.high, rate.value / self.effect.low

    @property
    def sentence(self) -> str:
        """One sentence."""
        e = self.effect
        if e is None:
            return f"Nothing may be said: {self.refused}."
        between = f"95% interval: {change(e.low)} to {change(e.high)}"
        if not e.different:
            return f"No difference was seen that chance could not explain ({between})."
        way = "lower" if e.ratio < 1 else "higher"
        return f"Among participants the rate was {abs(1 - e.ratio):.0%} {way} than it would have been ({between})."


def change(ratio: float) -> str:
    """A ratio as a change in percent."""
    return "0%" if round(ratio, 2) == 1 else f"{ratio - 1:+.0%}".replace("-", "−")


def findings(release: Release) -> list[Finding]:
    """One per outcome, in the order of `OUTCOMES`."""
    log = {entry.id: entry for entry in release.log}
    return [_finding(o, release.published, log) for o in OUTCOMES]


def _finding(outcome: Outcome, published: Mapping[str, Published], log: Mapping[str, LogEntry]) -> Finding:
    def estimate(kind: str) -> Estimate | None:
        found = published.get(f"{kind}.{outcome.name}")
        if found is None or found.estimates is None or not found.estimates.height:
            return None
        return Estimate(*found.estimates.select("ratio", "low", "high").row(0))

    def why(kind: str) -> str | None:
        rule = log[f"{kind}.{outcome.name}"].refused_by
        return None if rule is None else WHY[rule]

    effect, series = published.get(f"effect.{outcome.name}"), published.get(f"series.{outcome.name}")
    rates = {}
    if effect is not None:
        for group, period, events, exposure, families in effect.cells.iter_rows():
            rates[group, period] = Rate(events, exposure, families, outcome.per * events / exposure)
    points = None
    if series is not None:
        low, high = (pl.col(c).cast(pl.Int64) for c in ("from_month", "to_month"))
        points = series.cells.with_columns(low, high, rate=outcome.per * pl.col("events") / pl.col("exposure"))
    return Finding(
        outcome, why("effect"), estimate("effect"), estimate("matched"), estimate("earlier"), rates, points,
        why("series"),
    )  # fmt: skip
