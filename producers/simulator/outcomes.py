"""What happens to the people: absence, exclusions, attainment, offences, social care, benefits, work, health.

Events come at a rate per month: a base, the age, the family's risk and criteria, the person's own frailty and a trend
that everyone shares. For participants the rate of a planted outcome is multiplied by its `ratio` from the month of the
programme's start on (`EFFECTS`); every other outcome goes on as it would have. Frailty and trends are the same for both
groups, so before against after, participants against comparison, gives the ratio back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from producers.simulator.config import (
    FIRST_DAY,
    FIRST_YEAR,
    LAST_DAY,
    LAST_YEAR,
    NO_DATE,
    Bools,
    Config,
    Floats,
    Ints,
    day,
    days_of_months,
    month_index,
    parts_of_days,
)
from producers.simulator.population import CHILD, CRITERIA, OUTSIDE, PARTICIPANT, Families, Persons


@dataclass(frozen=True)
class Effect:
    """One outcome and what was planted in it."""

    supplier: str
    dataset: str
    outcome: str
    ratio: float
    """Rate of participants after the start over what it would have been; 1 for a planted null."""
    trend: float
    """Rate of a year over that of the year before, for everyone."""
    base: float
    unit: str

    @property
    def planted(self) -> str:
        """`effect` or `null`."""
        return "null" if self.ratio == 1.0 else "effect"


EFFECTS: Mapping[str, Effect] = {
    e.outcome: e
    for e in (
        Effect("dfe", "absence", "unauthorised_absence", 0.70, 1.03, 0.030, "sessions missed per session possible"),
        Effect("dfe", "absence", "authorised_absence", 1.0, 0.98, 0.055, "sessions missed per session possible"),
        Effect("dfe", "exclusion", "fixed_exclusions", 1.0, 1.02, 0.006, "exclusions per month at school"),
        Effect("dfe", "attainment", "ks4_points", 1.0, 1.0, 330.0, "GCSE points, mean"),
        Effect("dfe", "attainment", "ks2_levels", 1.0, 1.0, 4.0, "level, mean"),
        Effect("moj", "offence", "offences", 0.65, 0.96, 0.0032, "offences per month from the age of 10"),
        Effect("council", "safeguarding", "episodes", 0.75, 1.02, 0.0030, "episodes started per month under 18"),
        Effect("dwp", "benefit", "benefit_spells", 1.0, 1.0, 0.55, "share of spells that are on a benefit"),
        Effect("dwp", "employment", "employment_spells", 1.0, 1.0, 0.45, "share of spells that are in work"),
        Effect("health", "contact", "contacts", 1.0, 1.01, 0.0055, "contacts per month"),
    )
}
OUTSIDE_KEPT = 0.06
"""Share of the events of people outside the cohort that the files hold: they cover fewer of their years."""
_YEARS = np.arange(FIRST_YEAR, LAST_YEAR + 1)
_SCHOOL_YEARS = np.arange(2011, 2017)
"""By the year in which they begin."""


def outcomes(config: Config, of: Families, people: Persons) -> dict[str, pl.DataFrame]:
    """Everything that happens, by `<kind>.<dataset>`: `person` (row of `people`) and the contract's columns.

    Ids of records are left to the suppliers.
    """
    world = _World(of, people)
    made = {
        "council.safeguarding": _safeguarding(config.stream("safeguarding"), world),
        "dfe.absence": _absence(config.stream("absence"), world),
        "dfe.exclusion": _exclusion(config.stream("exclusion"), world),
        "dfe.attainment": _attainment(config.stream("attainment"), world),
        "moj.offence": _offence(config.stream("offence"), world),
        "health.contact": _contact(config.stream("contact"), world),
    }
    made["dwp.benefit"], made["dwp.employment"] = _spells(config.stream("spells"), world)
    thin = config.stream("thin")
    known = {name.partition(".")[0]: np.zeros(len(people), bool) for name in made}
    return {name: _thinned(thin, made[name], world, known[name.partition(".")[0]]) for name in sorted(made)}


class _World:
    """What rates depend on, one row per person."""

    def __init__(self, of: Families, people: Persons) -> None:
        self.people = people
        family = people.family
        self.risk = of.risk[family]
        self.start = of.start_month[family]
        self.status = of.status[family]
        self.criteria = {name: of.criteria[family, i] for i, name in enumerate(CRITERIA)}
        year, month, _ = parts_of_days(people.born)
        self.born_year = year
        self.school_cohort = year + (month >= 9)
        """Year of entry into year 1 less five."""

    def ratio(self, outcome: str) -> Floats:
        """Of each person after the start."""
        return np.where(self.status == PARTICIPANT, EFFECTS[outcome].ratio, 1.0)

    def by_criterion(self, name: str, times: float) -> Floats:
        return np.where(self.criteria[name], times, 1.0)


def _thinned(rng: np.random.Generator, events: pl.DataFrame, world: _World, known: Bools) -> pl.DataFrame:
    """Fewer events of outsiders, though one at least of whoever has any; `known` marks those, by supplier."""
    who = events.get_column("person").to_numpy()
    first = np.zeros(len(who), bool)
    first[np.unique(who, return_index=True)[1]] = True
    keep = (world.status[who] != OUTSIDE) | (rng.random(len(who)) < OUTSIDE_KEPT) | (first & ~known[who])
    known[who[keep]] = True
    return events.filter(pl.Series(keep, dtype=pl.Boolean))


def _trend(outcome: str, years: Ints) -> Floats:
    return np.asarray(EFFECTS[outcome].trend ** (years - FIRST_YEAR), np.float64)


def _events(rng: np.random.Generator, at: Ints, rate: Floats, start: Ints, ratio: Floats) -> tuple[Ints, Ints]:
    """A Poisson process: persons and days, in order of person.

    Args:
        rng: random numbers.
        at: the person of each row.
        rate: per month, a row per person and a column per year.
        start, ratio: first month in which the ratio applies, and the ratio, by row.
    """
    january = month_index(FIRST_YEAR, 1) + 12 * np.arange(rate.shape[1])
    before = np.clip(start[:, None] - january, 0, 12)
    counts = rng.poisson(np.stack([rate * before, rate * (12 - before) * ratio[:, None]], axis=2))
    row, year, after = np.nonzero(counts)
    times = counts[row, year, after]
    row, year, after = (np.repeat(a, times) for a in (row, year, after))
    split = days_of_months(january[year] + before[row, year])
    first = np.where(after == 1, split, days_of_months(january[year]))
    end = np.where(after == 1, days_of_months(january[year] + 12), split)
    days = first + np.floor(rng.random(len(row)) * (end - first)).astype(np.int64)
    return at[row], days


def _dates(days: Ints) -> pl.Series:
    """Days as dates, missing where `NO_DATE`."""
    return pl.Series(np.where(days == NO_DATE, -(2**31), days).astype(np.int32)).replace(-(2**31), None).cast(pl.Date)


def _lost(rng: np.random.Generator, days: Ints, rate: float, value: int = NO_DATE) -> Ints:
    """Dates of which a share is missing, or is a default date."""
    return np.where(rng.random(len(days)) < rate, value, days)


def _choice(rng: np.random.Generator, names: tuple[str, ...], shares: tuple[float, ...], n: int) -> pl.Series:
    at = np.searchsorted(np.cumsum(shares) / sum(shares), rng.random(n), side="right")
    return pl.Series(names, dtype=pl.String).gather(np.minimum(at, len(names) - 1))


def _blanked(rng: np.random.Generator, column: pl.Series, rate: float) -> pl.Series:
    keep = pl.Series(rng.random(len(column)) >= rate)
    return pl.select(pl.when(keep).then(column)).to_series()


def _ages(world: _World, at: Ints) -> Floats:
    """Age in the middle of each year."""
    return np.asarray(_YEARS[None, :] - world.born_year[at, None], np.float64)


def _offence(rng: np.random.Generator, world: _World) -> pl.DataFrame:
    people = world.people
    at = np.flatnonzero(people.born <= day(LAST_YEAR - 10))
    frailty = rng.gamma(0.22, 1 / 0.22, len(at))
    own = (
        np.exp(0.35 * world.risk[at])
        * world.by_criterion("crime", 1.9)[at]
        * np.where(people.male[at], 1.6, 0.45)
        * frailty
    )
    ages, factors = [9, 10, 13, 17, 20, 26, 36, 50, 65], [0, 0.1, 0.9, 2.0, 1.7, 1.1, 0.7, 0.3, 0.1]
    by_age = np.interp(_ages(world, at), ages, factors)
    rate = EFFECTS["offences"].base * own[:, None] * by_age * _trend("offences", _YEARS)
    who, when = _events(rng, at, np.minimum(rate, 1.5), world.start[at], world.ratio("offences")[at])
    of_age = when >= people.born[who] + 3653
    who, when = who[of_age], when[of_age]
    n = len(who)
    disposal = when + 20 + rng.exponential(110.0, n).astype(np.int64)
    verdict = _choice(rng, ("G", "J", "N", "W"), (0.82, 0.03, 0.08, 0.07), n)
    rank = np.clip(np.round(rng.normal(11.0, 4.0, n)), 2, 20).astype(np.int64)
    rank[rng.random(n) < 0.06] = 1
    guilty = verdict.is_in(["G", "J"])
    missing = _lost(rng, _lost(rng, when, 0.015, day(1900)), 0.03)
    same_case = np.r_[False, (who[1:] == who[:-1])] & (rng.random(n) < 0.25)
    groups = (
        "violence", "sexual", "robbery", "theft", "criminal_damage", "drugs", "weapons", "public_order", "fraud",
        "motoring", "breach", "other",
    )  # fmt: skip
    return pl.DataFrame(
        {
            "person": who,
            "case": np.cumsum(~same_case),
            "offencestartdate": _dates(missing),
            "disposal_date": _dates(_lost(rng, disposal, 0.005)),
            "offence_group": _choice(rng, groups, (17, 1, 2, 24, 8, 10, 3, 10, 3, 12, 7, 3), n),
            "adjudicationcode": _blanked(rng, verdict, 0.01),
            "disposalrank": pl.select(pl.when(guilty).then(pl.Series(rank))).to_series(),
        }
    )


def _safeguarding(rng: np.random.Generator, world: _World) -> pl.DataFrame:
    people = world.people
    at = np.flatnonzero((people.role == CHILD) & (world.status != OUTSIDE))
    own = (
        np.exp(0.35 * world.risk[at])
        * world.by_criterion("children", 2.4)[at]
        * world.by_criterion("abuse", 1.3)[at]
        * rng.gamma(0.8, 1 / 0.8, len(at))
    )
    age = _ages(world, at)
    factor = np.interp(age, [0, 1, 5, 12, 16, 18], [1.7, 1.3, 0.9, 0.9, 1.1, 0.7])
    by_age = np.where((age >= 0) & (age <= 18), factor, 0.0)
    rate = EFFECTS["episodes"].base * own[:, None] * by_age * _trend("episodes", _YEARS)
    who, when = _events(rng, at, np.minimum(rate, 0.5), world.start[at], world.ratio("episodes")[at])
    ok = (when >= people.born[who]) & (when < people.born[who] + 18 * 365)
    who, when = who[ok], when[ok]
    n = len(who)
    kind = rng.choice(3, n, p=[0.70, 0.20, 0.10])
    length = (rng.gamma(1.5, 1.0, n) * np.array([130.0, 200.0, 420.0])[kind]).astype(np.int64) + 7
    end = np.minimum(when + length, people.born[who] + 18 * 365 + 4)
    closed = end <= LAST_DAY
    end = np.where(closed, end, NO_DATE)
    reason = _choice(
        rng, ("no_longer_needed", "returned_home", "transferred", "adopted", "aged_out", "other", "died"),
        (60, 15, 9, 2, 4, 9.9, 0.1), n,
    )  # fmt: skip
    needs = (
        "abuse_or_neglect", "disability", "parental_illness", "acute_stress", "dysfunction", "behaviour", "low_income",
        "absent_parenting", "other",
    )  # fmt: skip
    return pl.DataFrame(
        {
            "person": who,
            "episode": pl.Series(["CIN", "CPP", "LAC"]).gather(kind),
            "day": when,
            "start_date": _dates(_lost(rng, when, 0.01)),
            "end_date": _dates(_lost(rng, end, 0.03)),
            "primary_need": _blanked(rng, _choice(rng, needs, (47, 5, 4, 9, 18, 6, 1, 4, 6), n), 0.04),
            "close_reason": pl.select(pl.when(pl.Series(closed)).then(reason)).to_series(),
        }
    )


def _school(world: _World) -> tuple[Ints, Ints]:
    """Persons by school years in which they are 5 to 15 when it begins: person and index of the year."""
    at = np.flatnonzero(world.people.role == CHILD)
    grade = _SCHOOL_YEARS[None, :] - world.school_cohort[at, None] - 4
    row, year = np.nonzero((grade >= 1) & (grade <= 11))
    return at[row], year


def _after(world: _World, who: Ints, year: Ints, terms: Ints) -> Floats:
    """Share of the months that one, two or three terms cover, from September, that are from the start month on."""
    months = np.array([0, 4, 7, 11])[terms]
    september = month_index(int(_SCHOOL_YEARS[0]), 9) + 12 * year
    return np.asarray(np.clip((september + months - world.start[who]) / months, 0.0, 1.0), np.float64)


def _grade(world: _World, who: Ints, year: Ints) -> Ints:
    return _SCHOOL_YEARS[year] - world.school_cohort[who] - 4


def _period_end(year: Ints, terms: Ints) -> Ints:
    """Last day of the autumn, spring or summer term."""
    december = month_index(int(_SCHOOL_YEARS[0]), 12) + 12 * year
    first = days_of_months(december + np.array([0, 0, 3, 7])[terms])
    return np.asarray(first + np.array([0, 18, 27, 20])[terms], np.int64)


def _absence(rng: np.random.Generator, world: _World) -> pl.DataFrame:
    who, year = _school(world)
    there = rng.random(len(who)) < 0.72
    who, year = who[there], year[there]
    n, everyone = len(who), len(world.people)
    grade = _grade(world, who, year)
    terms = np.where(rng.random(n) < 0.05, rng.integers(1, 3, n), 3)
    terms = np.where(grade == 11, np.minimum(terms, 2), terms)
    possible = np.clip(np.round(rng.normal(127.0, 3.0, n)), 110, 140).astype(np.int64) * terms
    frailty = rng.gamma(1.3, 1 / 1.3, everyone)[who] * rng.gamma(4.0, 0.25, n)
    after = _after(world, who, year, terms)
    rate = (
        EFFECTS["unauthorised_absence"].base
        * np.exp(0.25 * world.risk[who])
        * world.by_criterion("education", 1.8)[who]
        * np.interp(grade, [1, 6, 7, 11], [0.6, 0.6, 0.9, 1.7])
        * frailty
        * _trend("unauthorised_absence", _SCHOOL_YEARS)[year]
    )
    rate = np.minimum(rate, 0.6) * (1 - after + after * world.ratio("unauthorised_absence")[who])
    leave = (
        EFFECTS["authorised_absence"].base
        * world.by_criterion("health", 1.2)[who]
        * rng.gamma(3.0, 1 / 3.0, everyone)[who]
        * _trend("authorised_absence", _SCHOOL_YEARS)[year]
    )
    unauthorised = np.minimum(rng.poisson(possible * rate), possible)
    authorised = np.minimum(rng.poisson(possible * np.minimum(leave, 0.4)), possible - unauthorised)
    return pl.DataFrame(
        {
            "person": who,
            "PeriodEnd": _dates(_period_end(year, terms)),
            "SessionsPossible_3Term": possible,
            "AuthorisedAbsence_3Term": _blanked(rng, pl.Series(authorised), 0.008),
            "UnauthorisedAbsence_3Term": _blanked(rng, pl.Series(unauthorised), 0.005),
        }
    )


def _exclusion(rng: np.random.Generator, world: _World) -> pl.DataFrame:
    who, year = _school(world)
    n = len(who)
    rate = (
        11 * EFFECTS["fixed_exclusions"].base
        * np.exp(0.3 * world.risk[who])
        * world.by_criterion("education", 1.6)[who]
        * np.where(world.people.male[who], 1.4, 0.6)
        * np.interp(_grade(world, who, year), [1, 6, 7, 9, 11], [0.1, 0.3, 1.0, 2.0, 1.6])
        * rng.gamma(0.4, 1 / 0.4, len(world.people))[who]
        * _trend("fixed_exclusions", _SCHOOL_YEARS)[year]
    )  # fmt: skip
    fixed = rng.poisson(np.minimum(rate, 20.0))
    permanent = (rng.random(n) < np.minimum(0.02 * fixed, 0.1)).astype(np.int64)
    any_ = fixed > 0
    three = np.full(n, 3)
    return pl.DataFrame(
        {
            "person": who,
            "PeriodEnd": _dates(_period_end(year, three)),
            "EXC_TotalFixedExclusions": fixed,
            "PermanentExclusionCount": permanent,
        }
    ).filter(pl.Series(any_))


def _attainment(rng: np.random.Generator, world: _World) -> pl.DataFrame:
    people = world.people
    everyone = len(people)
    sen = rng.random(everyone)
    has_sen = np.where(sen < 0.05, 2, np.where(sen < 0.30, 1, 0))
    ability = rng.normal(0.0, 1.0, everyone) - 0.3 * world.risk - 0.6 * has_sen
    meals = rng.random(everyone) < np.clip(0.40 + 0.12 * world.risk, 0.05, 0.95)
    children = people.role == CHILD
    parts = []
    for stage, age, month, of_month in (("KS2", 11, 5, 14), ("KS4", 16, 6, 24)):
        year = world.school_cohort + age
        at = np.flatnonzero(children & (year >= FIRST_YEAR) & (year <= LAST_YEAR) & (rng.random(everyone) < 0.9))
        n = len(at)
        exam = days_of_months((year[at] - 1970) * 12 + month - 1) + of_month - 1
        levels = [
            np.clip(np.round(EFFECTS["ks2_levels"].base + 0.75 * ability[at] + rng.normal(0, 0.5, n)), 1, 6)
            for _ in range(2)
        ]
        points = np.clip(EFFECTS["ks4_points"].base + 85.0 * ability[at] + rng.normal(0, 30.0, n), 0, 620)
        good = ability[at] + rng.normal(0, 0.4, n) > 0.35
        ks2 = stage == "KS2"
        blank = pl.Series([None] * n)
        english, mathematics = (_blanked(rng, pl.Series(level.astype(np.int64)), 0.02) for level in levels)
        parts.append(
            pl.DataFrame(
                {
                    "person": at,
                    "ExamDate": _dates(exam),
                    "stage": pl.Series([stage] * n, dtype=pl.String),
                    "KS2_ENGLEV": english if ks2 else blank.cast(pl.Int64),
                    "KS2_MATLEV": mathematics if ks2 else blank.cast(pl.Int64),
                    "KS4_LEVEL2_EM": blank.cast(pl.Boolean) if ks2 else pl.Series(good),
                    "KS4_GPTSPE": blank.cast(pl.Float64) if ks2 else pl.Series(np.round(points, 1)),
                    "CEN_FSMEligible": _blanked(rng, pl.Series(meals[at]), 0.01),
                    "SENProvision": pl.Series(["none", "support", "statement_or_plan"]).gather(has_sen[at]),
                }
            )
        )
    return pl.concat(parts)


def _contact(rng: np.random.Generator, world: _World) -> pl.DataFrame:
    people = world.people
    at = np.flatnonzero(people.born <= LAST_DAY)
    own = np.exp(0.15 * world.risk[at]) * world.by_criterion("health", 1.7)[at] * rng.gamma(0.6, 1 / 0.6, len(at))
    age = _ages(world, at)
    by_age = np.where(age >= 0, np.interp(age, [0, 2, 10, 30, 60], [1.6, 1.1, 0.8, 1.0, 1.6]), 0.0)
    rate = EFFECTS["contacts"].base * own[:, None] * by_age * _trend("contacts", _YEARS)
    who, when = _events(rng, at, np.minimum(rate, 2.0), world.start[at], np.ones(len(at)))
    ok = when >= people.born[who]
    who, when = who[ok], when[ok]
    n = len(who)
    kinds = ("emergency", "inpatient", "outpatient", "primary_care", "mental_health", "substance_misuse")
    adult = when - people.born[who] > 14 * 365
    kind = _choice(rng, kinds, (22, 10, 25, 27, 11, 5), n)
    young = _choice(rng, kinds[:5], (30, 12, 25, 28, 5), n)
    return pl.DataFrame(
        {
            "person": who,
            "contact_date": _dates(_lost(rng, when, 0.004)),
            "contact_type": pl.select(pl.when(pl.Series(adult)).then(kind).otherwise(young)).to_series(),
        }
    )


def _spells(rng: np.random.Generator, world: _World) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Spells on a benefit, in work and in neither follow one another from 18 on."""
    people = world.people
    at = np.flatnonzero(people.born + 18 * 365.25 < LAST_DAY - 90)
    n = len(at)
    adult = (people.born[at] + np.int64(18 * 365)) + 6
    now = np.maximum(adult, FIRST_DAY - rng.integers(0, 900, n)) + rng.integers(0, 120, n)
    leaning = 1.0 / (1.0 + np.exp(-(0.2 + 0.35 * world.risk[at] + 0.5 * world.criteria["work"][at] - 0.25)))
    spells: dict[str, list[tuple[Ints, Ints, Ints]]] = {"benefit": [], "employment": []}
    for _ in range(7):
        draw = rng.random(n)
        benefit, work = draw < 0.75 * leaning, draw > 0.25 + 0.75 * leaning
        days = np.where(benefit, 1100.0, np.where(work, 1300.0, 300.0))
        length = (rng.gamma(1.2, 1.0, n) * days).astype(np.int64) + 14
        end = now + length
        for name, chosen in (("benefit", benefit), ("employment", work)):
            mine = chosen & (now <= LAST_DAY) & (end >= FIRST_DAY)
            spells[name].append((at[mine], now[mine], end[mine]))
        now = end + rng.integers(1, 90, n)

    def frame(name: str) -> tuple[Ints, Ints, Ints, Ints]:
        who, start, end = (np.concatenate(c) for c in zip(*spells[name], strict=True))
        order = np.lexsort((start, who))
        who, start, end = who[order], start[order], end[order]
        return who, start, np.where(end <= LAST_DAY, end, NO_DATE), end

    who, start, shown, _ = frame("benefit")
    year = parts_of_days(start)[0]
    kind = _choice(rng, ("JSA", "ESA", "IS"), (50, 30, 20), len(who))
    universal = pl.Series((year >= 2015) & (rng.random(len(who)) < (year - 2014) / 5.0))
    benefit = pl.DataFrame(
        {
            "person": who,
            "benefit_type": pl.select(pl.when(universal).then(pl.lit("UC")).otherwise(kind)).to_series(),
            "start_date": _dates(start),
            "end_date": _dates(_lost(rng, shown, 0.04)),
        }
    )
    who, start, shown, _ = frame("employment")
    open_ended = (shown == NO_DATE) & (rng.random(len(who)) < 0.10)
    employment = pl.DataFrame(
        {
            "person": who,
            "start_date": _dates(_lost(rng, start, 0.01, day(1900))),
            "end_date": _dates(np.where(open_ended, day(9999, 12, 31), _lost(rng, shown, 0.05))),
        }
    )
    return benefit, employment
