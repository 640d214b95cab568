"""Difference in differences of rates: did participants' rate change otherwise than comparison families'?

What is estimated is a ratio of ratios: (participants after / before) / (comparison after / before). It rests on both
groups' rates moving by the same proportion without the programme, which is the assumption to make of rates that start
from different levels: a general trend moves the higher one by more. It is the coefficient of participant x after in a
Poisson regression with the exposure as offset, which needs no distribution beyond the mean (Wooldridge 2023,
doi:10.1093/ectj/utad016), with standard errors clustered by family.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import statsmodels.api as sm

from stream_processors.enclave.report.panel import Panel

Floats = npt.NDArray[np.float64]
COEFFICIENTS = 4
_INTERACTION = 3


@dataclass(frozen=True)
class Ratio:
    """A ratio of ratios with its interval; 1 is no difference. families: of which there is something to compare."""

    ratio: float
    low: float
    high: float
    log_error: float
    families: int

    @property
    def degrees_of_freedom(self) -> int:
        """Families less coefficients: the clusters are what is independent."""
        return self.families - COEFFICIENTS

    def covers(self, truth: float) -> bool:
        """Whether the interval holds it."""
        return self.low <= truth <= self.high


def ratio_of_ratios(panel: Panel, weights: Floats | None = None, confidence: float = 0.95) -> Ratio | None:
    """The ratio of ratios of a panel; None where a group has no event in a period.

    Args:
        panel: rows of families at risk.
        weights: of each row's family; 1 if not given. Families of weight 0 are left out. A family of weight w counts
            as one with w times its events and exposure, which gives the weighted score, and so estimate and errors.
        confidence: of the interval, from the normal distribution.
    """
    if weights is not None:
        keep = weights > 0
        panel, weights = panel.of(keep), weights[keep]
        panel = dataclasses.replace(panel, events=panel.events * weights, exposure=panel.exposure * weights)
    cell = 2 * panel.participant + panel.after
    events, exposure = (np.bincount(cell, column, 4) for column in (panel.events, panel.exposure))
    if not (events > 0).all():
        return None
    # The regression is saturated: its coefficients are logs of rates, so it starts where it ends.
    log = np.log(events / exposure)
    start = np.array([log[0], log[2] - log[0], log[1] - log[0], log[3] - log[2] - log[1] + log[0]])
    both = panel.participant & panel.after
    design = np.column_stack([np.ones(len(cell)), panel.participant, panel.after, both]).astype(np.float64)
    model = sm.GLM(panel.events, design, family=sm.families.Poisson(), offset=np.log(panel.exposure))
    # As floats: numpy finds the distinct ones of sorted floats ten times as fast as of integers, which it hashes.
    clusters = panel.family.astype(np.float64)
    fit = model.fit(start_params=start, cov_type="cluster", cov_kwds={"groups": clusters})
    found, error = float(fit.params[_INTERACTION]), float(fit.bse[_INTERACTION])
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return Ratio(math.exp(found), math.exp(found - z * error), math.exp(found + z * error), error, panel.families)
