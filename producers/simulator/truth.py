"""The ground truth: who is who, what was planted, and where it is hard."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from producers.simulator.config import COUNCILS, FIRST_YEAR, LAST_YEAR, Config, days_of_months
from producers.simulator.names import ORIGINS
from producers.simulator.outcomes import EFFECTS
from producers.simulator.population import CHILD, CRITERIA, OUTSIDE, SELECTION, STATUS, Families, Persons
from producers.simulator.suppliers import Files, as_dates


def subjects(of: Families, people: Persons, files: Files) -> pl.DataFrame:
    """Every subject of a supplier with its true person number."""
    at = files.person
    return pl.DataFrame(
        {
            "supplier": pl.Series([files.supplier] * len(at), dtype=pl.String),
            "subject_id": files.subject_id,
            "person_id": people.number[at],
            "in_cohort": of.status[people.family[at]] != OUTSIDE,
        }
    ).sort("subject_id")


def persons(config: Config, of: Families, people: Persons) -> pl.DataFrame:
    """Every true person."""
    family = people.family
    status = of.status[family]
    cohort = pl.Series(status != OUTSIDE)
    councils = (*COUNCILS, None)
    numbers = config.stream("family numbers").permutation(len(of)) + 1

    def of_cohort(column: pl.Series) -> pl.Series:
        return pl.select(pl.when(cohort).then(column)).to_series()

    def council(number: Any) -> pl.Series:
        return pl.Series(councils, dtype=pl.String).gather(np.where(number < 0, len(councils) - 1, number))

    never = np.where(status == OUTSIDE, 0, of.start_month[family])
    frame = pl.DataFrame(
        {
            "person_id": people.number,
            "family_id": numbers[family],
            "in_cohort": cohort,
            "status": of_cohort(pl.Series(STATUS, dtype=pl.String).gather(status)),
            "start_month": of_cohort(as_dates(days_of_months(never))),
            "start_date": of_cohort(as_dates(np.where(status == OUTSIDE, 0, of.start_day[family]))),
            "council": council(of.council[family]),
            "second_council": council(of.second_council[family]),
            "role": pl.Series(["parent", "partner", "child"]).gather(people.role),
            "sex": pl.Series(["F", "M"]).gather(people.male.astype(np.int64)),
            "date_of_birth": as_dates(people.born),
            "forename": pl.Series(people.forename.tolist(), dtype=pl.String),
            "surname": pl.Series(people.surname.tolist(), dtype=pl.String),
            "origin": pl.Series(ORIGINS, dtype=pl.String).gather(of.origin[family]),
            "children": np.bincount(family[people.role == CHILD], minlength=len(of))[family],
            "risk": np.round(of.risk[family], 3),
        }
    )
    criteria = {f"criterion_{name}": pl.Series(of.criteria[family, i]) for i, name in enumerate(CRITERIA)}
    return frame.with_columns(of_cohort(c).alias(name) for name, c in criteria.items()).sort("person_id")


def decoys(people: Persons, files: list[Files]) -> pl.DataFrame:
    """Every difficulty: about a person (and who it is taken for), or about one subject of one supplier."""
    parts = [
        pl.DataFrame(
            {
                "kind": pl.Series([d.kind] * len(d.person), dtype=pl.String),
                "person_id": people.number[d.person],
                "other_person_id": pl.Series(np.where(d.other < 0, 0, people.number[d.other])).replace(0, None),
                "supplier": pl.Series([None] * len(d.person), dtype=pl.String),
                "subject_id": pl.Series([None] * len(d.person), dtype=pl.String),
            }
        )
        for d in people.decoys
    ]
    for f in files:
        for kind, rows in f.mistakes:
            n = len(rows)
            parts.append(
                pl.DataFrame(
                    {
                        "kind": pl.Series([kind] * n, dtype=pl.String),
                        "person_id": people.number[f.person[rows]],
                        "other_person_id": pl.Series([None] * n, dtype=pl.Int64),
                        "supplier": pl.Series([f.supplier] * n, dtype=pl.String),
                        "subject_id": f.subject_id.gather(rows),
                    }
                )
            )
    return pl.concat(parts).sort("kind", "supplier", "person_id", "subject_id", "other_person_id", nulls_last=True)


def effect(config: Config) -> dict[str, Any]:
    """What was planted, for `effect.json`."""
    return {
        "families": config.families,
        "seed": config.seed,
        "years": [FIRST_YEAR, LAST_YEAR],
        "selection": {
            "meaning": "participants' risk is higher by this many standard deviations, before and after",
            "risk": SELECTION,
        },
        "post": "from the first day of start_month on, for participants; comparison families never",
        "estimator": (
            "(participants after / before) / (comparison after / before) of events per person-month at risk; "
            "absence: sessions missed per session possible, leaving out the school year that start_month is in"
        ),
        "outcomes": [
            {
                "supplier": e.supplier,
                "dataset": e.dataset,
                "outcome": e.outcome,
                "planted": e.planted,
                "ratio": e.ratio,
                "trend_per_year": e.trend,
                "base": e.base,
                "unit": e.unit,
            }
            for e in EFFECTS.values()
        ],
    }
