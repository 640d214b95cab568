"""Comparison families like the participants': propensity, matching, and how alike the groups then are.

The propensity to take part comes from what a family was like at the start and cannot change by taking part: criteria,
people, area, month of start. Outcomes before the start are not matched on: families that match on a bad year would
look better the year after, whatever was done for them (Daw and Hatfield 2018, doi:10.1111/1475-6773.12993). They are
shown in the balance table instead.
"""

# ruff: noqa: S608  (names in the SQL are this package's, and never of a record)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from stream_processors.enclave.report.design import Design
from stream_processors.enclave.report.source import CRITERIA, Source

Floats = npt.NDArray[np.float64]
_AREAS = 12
_FEWEST_IN_AREA = 100
_TRAITS = {
    **{c: f"bool_or({c})" for c in CRITERIA},
    "one_adult": "count(*) FILTER (age >= 18) = 1",
    "three_or_more_children": "count(*) FILTER (age < 18) >= 3",
    "child_under_five": "bool_or(age < 5)",
    "teenager": "bool_or(age BETWEEN 13 AND 17)",
}
"""What is true or not of a family, at its start."""
NAMES = {
    "crime": "Crime or anti-social behaviour",
    "education": "Irregular school attendance",
    "children": "Children who need help",
    "work": "Worklessness or financial exclusion",
    "abuse": "Domestic abuse",
    "health": "Health",
    "one_adult": "One adult",
    "three_or_more_children": "Three children or more",
    "child_under_five": "A child under five",
    "teenager": "A child of 13 to 17",
}
FAMILIES = f"""
SELECT family, bool_or(participant) AS participant, min(start) AS start, min(area) AS area,
       count(*)::INTEGER AS persons, {", ".join(f"coalesce({sql}, false) AS {name}" for name, sql in _TRAITS.items())}
FROM (SELECT *, start // 12 - born AS age FROM cohort)
GROUP BY family ORDER BY family"""


@dataclass(frozen=True)
class Matched:
    """families: a row per family, as `FAMILIES` gives it, and area_group. weight: 1 of a matched participant; of a
    comparison family how many participants it stands for; 0 of those unmatched."""

    families: pl.DataFrame
    weight: Floats

    def weights_of(self, family: npt.NDArray[np.int64]) -> Floats:
        """The weight of each of some families."""
        at = np.searchsorted(self.families["family"].to_numpy(), family)
        return np.asarray(self.weight[at], np.float64)


def match(source: Source, design: Design) -> Matched:
    """Match each participant family to up to `neighbours` comparison families within the caliper, with replacement."""
    families = source.frame(FAMILIES).with_columns(_area_group(source))
    took_part = families["participant"].to_numpy()
    traits = _standardised(families)
    model = LogisticRegression(max_iter=1000).fit(traits, took_part)
    logit = model.decision_function(traits)
    caliper = design.caliper * float(np.std(logit))
    treated, others = np.flatnonzero(took_part), np.flatnonzero(~took_part)
    index = NearestNeighbors(n_neighbors=min(design.neighbours, len(others))).fit(logit[others, None])
    distance, found = index.kneighbors(logit[treated, None])
    near = distance <= caliper
    matched = near.any(axis=1)
    weight = np.zeros(families.height)
    weight[treated[matched]] = 1.0
    share = np.where(near, 1.0, 0.0) / np.maximum(near.sum(axis=1, keepdims=True), 1)
    np.add.at(weight, others[found], share)
    return Matched(families, weight)


def _area_group(source: Source) -> pl.Expr:
    """The areas that most families live in, by name, and the rest together."""
    common = source.frame(
        f"SELECT area FROM (SELECT area, count(DISTINCT family) AS n FROM cohort WHERE area IS NOT NULL GROUP BY area) "
        f"WHERE n >= {_FEWEST_IN_AREA} ORDER BY n DESC, area LIMIT {_AREAS}"
    )["area"]
    known = pl.col("area").is_in(common.implode())
    return pl.when(known).then(pl.col("area")).otherwise(pl.lit("another area")).alias("area_group")


def _standardised(families: pl.DataFrame) -> Floats:
    """Columns of mean 0 and deviation 1: traits, people, areas, month of start and its square."""
    start = pl.col("start") - pl.col("start").mean()
    frame = families.select(
        *(pl.col(name).cast(pl.Float64) for name in _TRAITS),
        pl.col("persons").cast(pl.Float64),
        start.alias("start"),
        (start**2).alias("start_squared"),
        "area_group",
    ).to_dummies("area_group")
    values = frame.to_numpy().astype(np.float64)
    spread = values.std(axis=0)
    return np.asarray((values[:, spread > 0] - values[:, spread > 0].mean(axis=0)) / spread[spread > 0], np.float64)


def balance(matched: Matched) -> pl.DataFrame:
    """How alike the groups are, a row per trait.

    Columns: trait; participants, comparison (families that have it), participants_without, comparison_without;
    difference, matched_difference: standardised differences of the shares, in deviations (Austin 2009,
    doi:10.1002/sim.3697; below 0.1 counts as alike).
    """
    f = matched.families
    traits = {NAMES[name]: f[name].to_numpy() for name in _TRAITS}
    areas = f["area_group"].to_numpy()
    if len(set(areas)) > 1:
        traits |= {f"Lives in {area}": areas == area for area in sorted(set(areas))}
    took_part = f["participant"].to_numpy()
    rows = []
    for name, has in traits.items():
        mine, theirs = has[took_part], has[~took_part]
        spread = np.sqrt((mine.var() + theirs.var()) / 2)
        weighted = [float(np.average(has[g], weights=matched.weight[g])) for g in (took_part, ~took_part)]
        rows.append(
            {
                "trait": name,
                "participants": int(mine.sum()),
                "comparison": int(theirs.sum()),
                "participants_without": int((~mine).sum()),
                "comparison_without": int((~theirs).sum()),
                "difference": float((mine.mean() - theirs.mean()) / spread) if spread else 0.0,
                "matched_difference": float((weighted[0] - weighted[1]) / spread) if spread else 0.0,
            }
        )
    return pl.DataFrame(rows)
