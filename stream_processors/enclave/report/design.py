"""How participants and comparison families are compared. Fixed, not options: two reports over windows that differ by
one month would tell that month's few events by their difference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Design:
    """before, after: months from the month in which the programme (or the wait) starts; school outcomes by whole years.

    confidence: of intervals. neighbours: comparison families that stand for a participant's, at most, within
    `caliper` standard deviations of the propensity's logit (Austin 2011, doi:10.1002/pst.433: 0.2).
    """

    before: int = 24
    after: int = 36
    confidence: float = 0.95
    neighbours: int = 3
    caliper: float = 0.2


DESIGN = Design()
