"""Whether the report's estimator finds what the simulator planted, over many seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binom

from producers.simulator.outcomes import EFFECTS
from stream_processors.enclave.report import effects, matching, panel, source
from stream_processors.enclave.report.design import DESIGN
from stream_processors.enclave.report.effects import Ratio
from stream_processors.enclave.report.outcomes import OUTCOMES

TRUTH: Mapping[str, float] = {
    outcome: EFFECTS[planted].ratio
    for outcome, planted in {
        "unauthorised_absence": "unauthorised_absence",
        "authorised_absence": "authorised_absence",
        "fixed_exclusions": "fixed_exclusions",
        "offences": "offences",
        "custody": "offences",
        "benefits": "benefit_spells",
        "employment": "employment_spells",
        "safeguarding": "episodes",
        "looked_after": "episodes",
        "contacts": "contacts",
    }.items()
}
"""The planted ratio of each outcome of the report. Custody follows offences, being looked after all episodes."""
_TOO_RARE = 0.01
CONTRASTS = ("difference in differences", "matched")


@dataclass(frozen=True)
class Recovered:
    """How often the interval of one outcome covered the truth. pooled: over seeds, weighted by precision; its error is
    of the log. An estimate that could not be made (a group without events) does not count."""

    truth: float
    covered: int
    seeds: int
    pooled: float
    pooled_error: float

    @property
    def plausible(self) -> bool:
        """Whether intervals that cover in 95 of 100 seeds would cover so few in more than one of 100 tries."""
        return not self.seeds or float(binom.cdf(self.covered, self.seeds, DESIGN.confidence)) > _TOO_RARE

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "truth": self.truth,
            "covered": self.covered,
            "seeds": self.seeds,
            "pooled_ratio": round(self.pooled, 4),
            "pooled_log_error": round(self.pooled_error, 4),
            "plausible": self.plausible,
        }


def ratios(folder: Path) -> dict[str, tuple[Ratio | None, Ratio | None]]:
    """The report's two estimates of each outcome, before disclosure control, from `folder`/enclave.duckdb."""
    with source.opened(folder) as opened:
        matched = matching.match(opened, DESIGN)
        out = {}
        for outcome in OUTCOMES:
            found, _ = panel.families(opened, panel.counted(opened, outcome, DESIGN))
            whole = found.panel(slice(0, 2), slice(2, 3))
            out[outcome.name] = (
                effects.ratio_of_ratios(whole, confidence=DESIGN.confidence),
                effects.ratio_of_ratios(whole, matched.weights_of(whole.family), DESIGN.confidence),
            )
    return out


def recovered(found: Iterable[Mapping[str, tuple[Ratio | None, Ratio | None]]]) -> dict[str, dict[str, Recovered]]:
    """By contrast and outcome, from the ratios of each seed."""
    found = list(found)
    return {
        contrast: {
            name: _recovered(truth, [r for seed in found if (r := seed[name][i]) is not None])
            for name, truth in TRUTH.items()
        }
        for i, contrast in enumerate(CONTRASTS)
    }


def _recovered(truth: float, found: Sequence[Ratio]) -> Recovered:
    weights = [r.log_error**-2 for r in found]
    total = sum(weights)
    log = sum(w * math.log(r.ratio) for w, r in zip(weights, found, strict=True)) / total if total else math.nan
    covered = sum(r.covers(truth) for r in found)
    return Recovered(truth, covered, len(found), math.exp(log), total**-0.5 if total else math.nan)
