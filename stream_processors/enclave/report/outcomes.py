"""What is measured: each outcome, of whom, and where in the enclave's tables it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["events", "months", "sessions", "school years"]
"""events: things that happen in a month. months: spells, and the share of months in one. sessions: school sessions
missed of those possible, by period. school years: counts by school year."""


@dataclass(frozen=True)
class Outcome:
    """One outcome.

    table, month: where it stands; for spells `start_month` and `end_month` count. value: SQL of what one row adds.
    where: SQL of the rows that count. ages: from and up to, in whole years. measure: what a rate is, after scaling by
    `per`. better: whether fewer or more is what the programme hopes for. asks: the question, in words.
    part_of: the outcome of which this one's things are some.
    """

    name: str
    title: str
    table: str
    kind: Kind
    measure: str
    per: float
    better: Literal["fewer", "more", "neither"]
    of_whom: str
    ages: tuple[int, int]
    month: str = "month"
    value: str = "1"
    where: str = "true"
    asks: str = ""
    part_of: str = ""


A_YEAR = 12_000.0
"""From a rate per person and month to one per 1,000 persons and year."""
_SCHOOL = (5, 16)
_GROWN = (18, 66)

OUTCOMES: tuple[Outcome, ...] = (
    Outcome(
        "unauthorised_absence", "Absence from school without leave", "absence", "sessions",
        "% of school sessions missed without leave", 100.0, "fewer", "children at school", _SCHOOL,
        value="unauthorised_absence", asks="Did children miss less school without leave?",
    ),
    Outcome(
        "authorised_absence", "Absence from school with leave", "absence", "sessions",
        "% of school sessions missed with leave", 100.0, "neither", "children at school", _SCHOOL,
        value="authorised_absence", asks="Did absence that schools allow, such as illness, change?",
    ),
    Outcome(
        "fixed_exclusions", "Exclusion from school", "exclusion", "school years",
        "fixed-period exclusions per 1,000 children a school year", 1000.0, "fewer", "children of school age", _SCHOOL,
        value="fixed_exclusions", asks="Were children excluded from school less often?",
    ),
    Outcome(
        "offences", "Offending", "offence", "events",
        "offences per 1,000 people aged 10 or over a year", A_YEAR, "fewer", "people aged 10 or over", (10, 120),
        month="offence_month", asks="Did people offend less?",
    ),
    Outcome(
        "custody", "Custody", "offence", "events",
        "offences that led to custody per 1,000 people aged 10 or over a year", A_YEAR, "fewer",
        "people aged 10 or over", (10, 120), month="offence_month", where="disposal_rank = 1",
        asks="Did fewer offences end in custody?", part_of="offences",
    ),
    Outcome(
        "benefits", "Out-of-work benefits", "benefit", "months",
        "% of months on a benefit", 100.0, "fewer", "adults aged 18 to 65", _GROWN,
        asks="Did adults spend less time on benefits?",
    ),
    Outcome(
        "employment", "Employment", "employment", "months",
        "% of months in work", 100.0, "more", "adults aged 18 to 65", _GROWN,
        asks="Did adults spend more time in work?",
    ),
    Outcome(
        "safeguarding", "Children's social care", "safeguarding", "events",
        "episodes of need, protection or care started per 1,000 children a year", A_YEAR, "fewer", "children under 18",
        (0, 18), month="start_month", asks="Did fewer children come to need social care?",
    ),
    Outcome(
        "looked_after", "Children looked after", "safeguarding", "events",
        "episodes of care started per 1,000 children a year", A_YEAR, "fewer", "children under 18",
        (0, 18), month="start_month", where="episode = 'LAC'", asks="Were fewer children taken into care?",
        part_of="safeguarding",
    ),
    Outcome(
        "contacts", "Health services", "contact", "events",
        "contacts per 1,000 people a year", A_YEAR, "neither", "everyone", (0, 120),
        asks="Did people use health services differently?",
    ),
)  # fmt: skip
