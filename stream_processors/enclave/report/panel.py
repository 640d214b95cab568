"""Counting, in DuckDB: per family before and after the start, and per month from it.

Everything that counts is a stretch of months relative to the start, of one person, with a number per month: an event is
a stretch of one month, a spell on a benefit as long as it lasts. `things` are the stretches of the outcome, `stays`
those in which somebody is at risk of it. At risk is who is inside the design's window, the months that the supplier's
data cover and the ages that the outcome is about (from the middle of the year of birth, all that is known of it);
things outside that do not count. School data come by school year: a year counts if it lies wholly before or after.
"""

# ruff: noqa: S608  (names in the SQL are this package's, and never of a record)

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from stream_processors.enclave.report.design import Design
from stream_processors.enclave.report.outcomes import Outcome
from stream_processors.enclave.report.source import Source

_COVERED = 0.005
"""Share of dated rows at each end that is not taken as a sign of what months a supplier's data cover."""
SCHOOL_GRAIN = 12
"""Months: school data come by year."""


EARLIER = -12
"""Month from the start that parts the time before it in two."""


@dataclass(frozen=True)
class Panel:
    """One row per family, group and period, of families at risk in it; events and exposure (months, sessions, years).

    family: as in the table `cohort`.
    """

    family: npt.NDArray[np.int64]
    participant: npt.NDArray[np.bool_]
    after: npt.NDArray[np.bool_]
    events: npt.NDArray[np.float64]
    exposure: npt.NDArray[np.float64]

    @property
    def families(self) -> int:
        """How many there are."""
        seen = np.zeros(self.family.max(initial=0) + 1, bool)
        seen[self.family] = True
        return int(seen.sum())

    def of(self, keep: npt.NDArray[np.bool_]) -> Panel:
        """Some of the rows."""
        return Panel(
            self.family[keep], self.participant[keep], self.after[keep], self.events[keep], self.exposure[keep]
        )


@dataclass(frozen=True)
class Families:
    """One row per family and group; events and exposure have a column for each of three stretches of months.

    The stretches are those before `EARLIER`, from it to the start, and from the start.
    """

    family: npt.NDArray[np.int64]
    participant: npt.NDArray[np.bool_]
    events: npt.NDArray[np.float64]
    exposure: npt.NDArray[np.float64]

    def panel(self, before: slice, after: slice) -> Panel:
        """Two periods made of some of the stretches."""
        # Rows of a family lie together: finding the clusters is then several times as fast.
        events, exposure = (
            np.column_stack([of[:, period].sum(axis=1) for period in (before, after)]).ravel()
            for of in (self.events, self.exposure)
        )
        is_after = np.tile([False, True], len(self.family))
        every = Panel(np.repeat(self.family, 2), np.repeat(self.participant, 2), is_after, events, exposure)
        return every.of(exposure > 0)


@dataclass(frozen=True)
class Counted:
    """One outcome, ready to be counted: the temporary tables `things` and `stays` hold it, until the next one.

    window: first month from the start, and the one after the last. sql: what made the tables, as common expressions.
    """

    outcome: Outcome
    window: tuple[int, int]
    sql: str


def counted(source: Source, outcome: Outcome, design: Design) -> Counted:
    """Find out what the data cover, and make `things` and `stays`."""
    first, last = _covered(source, outcome)
    if outcome.kind in ("sessions", "school years"):
        window = (-(design.before + SCHOOL_GRAIN), design.after)
        make = _sessions if outcome.kind == "sessions" else _school_years
        sql = make(outcome, window, first, last)
    else:
        window = (-design.before, design.after)
        make_things = _spells if outcome.kind == "months" else _events
        sql = _at_risk(outcome, window, first, last) + make_things(outcome, last)
    for table in ("things", "stays"):
        rows = f"{sql} SELECT person, family, participant, since, till, n FROM {table}"
        source.connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {rows}")
    return Counted(outcome, window, sql)


def _run(source: Source, counted: Counted, more: str) -> tuple[pl.DataFrame, str]:
    """The rows that common expressions and a query over `things` and `stays` give, and the whole query."""
    return source.frame(f"WITH {more}"), f"{counted.sql},\n{more}"


def families(source: Source, counted: Counted) -> tuple[Families, str]:
    """Events and exposure per family and group, and the query."""
    cuts = (counted.window[0], EARLIER, 0, counted.window[1])
    stretches = list(enumerate(pairwise(cuts)))

    def sums(name: str) -> str:
        return ", ".join(
            f"sum(n * greatest(0, least(till, {high}) - greatest(since, {low})))::DOUBLE AS {name}{i}"
            for i, (low, high) in stretches
        )

    found, query = _run(
        source,
        counted,
        f"""at_risk AS (SELECT family, participant, {sums("exposure")} FROM stays GROUP BY ALL),
happened AS (SELECT family, participant, {sums("events")} FROM things GROUP BY ALL)
SELECT family, participant, {", ".join(f"coalesce(events{i}, 0) AS events{i}" for i, _ in stretches)},
       {", ".join(f"exposure{i}" for i, _ in stretches)}
FROM at_risk LEFT JOIN happened USING (family, participant) ORDER BY family, participant""",
    )

    def columns(name: str) -> npt.NDArray[np.float64]:
        return found.select(f"{name}{i}" for i, _ in stretches).to_numpy()

    family = found["family"].cast(pl.Int64).to_numpy()
    return Families(family, found["participant"].to_numpy(), columns("events"), columns("exposure")), query


def series(source: Source, counted: Counted, grain: int, largest: int) -> tuple[pl.DataFrame, str]:
    """Events and exposure by group and stretch of `grain` months from the start, and the query.

    Columns: group, from_month, to_month (text), events, exposure, persons (with an event), persons_at_risk,
    persons_without, largest (events of the `largest` persons with most of them).
    """
    low, high = counted.window
    return _run(
        source,
        counted,
        f"""bins AS (SELECT range AS low, range + {grain} AS high FROM range({low}, {high}, {grain})),
each_person AS (
    SELECT participant, low, person, sum(n * (least(till, high) - greatest(since, low))) AS n
    FROM things JOIN bins ON since < high AND till > low GROUP BY ALL HAVING n > 0
),
seen AS (
    SELECT participant, low, sum(n) AS events, count(*) AS persons, list_sum(max(n, {largest})) AS largest
    FROM each_person GROUP BY ALL
),
together AS (SELECT participant, since, till, sum(n) AS n, count(DISTINCT person) AS persons FROM stays GROUP BY ALL),
risk AS (
    SELECT participant, low, high, sum(n * (least(till, high) - greatest(since, low))) AS exposure,
           sum(persons) AS persons_at_risk
    FROM together JOIN bins ON since < high AND till > low GROUP BY ALL
)
SELECT if(participant, 'participant', 'comparison') AS "group", low::VARCHAR AS from_month, high::VARCHAR AS to_month,
       coalesce(events, 0)::BIGINT AS events, exposure::BIGINT AS exposure, coalesce(persons, 0)::BIGINT AS persons,
       persons_at_risk::BIGINT AS persons_at_risk,
       (persons_at_risk - coalesce(persons, 0))::BIGINT AS persons_without, coalesce(largest, 0)::BIGINT AS largest
FROM risk LEFT JOIN seen USING (participant, low) ORDER BY 1 DESC, low""",
    )


def _month(column: str) -> str:
    """SQL: the number of the month that a date lies in."""
    return f"(year({column}) * 12 + month({column}) - 1)"


def _covered(source: Source, outcome: Outcome) -> tuple[int, int]:
    """First and last month that the data cover, as the dates show, but for half a percent of rows at each end.

    Spells are covered from where spells end: those that ended earlier are not in the data.
    """
    first, last = ("end_month", "start_month") if outcome.kind == "months" else (outcome.month, outcome.month)
    query = f"""SELECT quantile_disc({_month(first)}, {_COVERED}) AS first,
       quantile_disc({_month(last)}, {1 - _COVERED}) AS last FROM "{outcome.table}" """
    found = source.frame(query).row(0)
    return (0, -1) if None in found else (int(found[0]), int(found[1]))


def _at_risk(outcome: Outcome, window: tuple[int, int], first: int, last: int) -> str:
    """SQL: `stays`, one stretch per person, relative to the start."""
    youngest, oldest = outcome.ages
    return f"""WITH stays AS (
    SELECT * FROM (
        SELECT person_id, person, family, participant, start, 1 AS n,
               greatest({first} - start, {window[0]}, (born + {youngest}) * 12 + 6 - start) AS since,
               least({last + 1} - start, {window[1]}, (born + {oldest}) * 12 + 6 - start) AS till
        FROM cohort WHERE born IS NOT NULL
    ) WHERE till > since
)"""


def _events(outcome: Outcome, _last: int) -> str:
    return f""",
happened AS (
    SELECT s.person, s.family, s.participant, s.since AS a, s.till AS b,
           {_month("t." + outcome.month)} - s.start AS rel, {outcome.value} AS n
    FROM "{outcome.table}" t JOIN stays s USING (person_id) WHERE {outcome.where}
),
things AS (
    SELECT person, family, participant, rel AS since, rel + 1 AS till, n FROM happened WHERE rel >= a AND rel < b
)"""


def _spells(outcome: Outcome, last: int) -> str:
    """Months that somebody is in any spell.

    A spell without an end goes on until the person's next one starts, or else to the end of the data: ends are missing
    of spells that go on, and of some that do not. Where spells overlap, a month counts once.
    """
    return f""",
spells AS (
    SELECT person_id, {_month("start_month")} AS s,
           coalesce({_month("end_month")}, lead(s) OVER later - 1, {last}) AS e
    FROM "{outcome.table}" WHERE start_month IS NOT NULL
    WINDOW later AS (PARTITION BY person_id ORDER BY start_month, end_month NULLS LAST)
),
apart AS (
    SELECT person_id, greatest(s, 1 + coalesce(max(e) OVER (
               PARTITION BY person_id ORDER BY s, e ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), s - 1)) AS s, e
    FROM spells
),
things AS (
    SELECT * FROM (
        SELECT s.person, s.family, s.participant, greatest(a.s - s.start, s.since) AS since,
               least(a.e + 1 - s.start, s.till) AS till, 1 AS n
        FROM apart a JOIN stays s USING (person_id)
    ) WHERE till > since
)"""


def _side(begin: str, end: str) -> str:
    """SQL: where a period of school stands; missing if the start lies inside it."""
    return f"CASE WHEN {end} < start THEN {end} - start WHEN {begin} >= start THEN {begin} - start END"


def _sessions(outcome: Outcome, window: tuple[int, int], _first: int, _last: int) -> str:
    """A record is of a period from September to its month."""
    return f"""WITH periods AS (
    SELECT c.person, c.family, c.participant, c.start, {_month("t.month")} AS ends,
           ends - (ends + 4) % 12 AS begins, {outcome.value} AS missed, sessions_possible AS possible
    FROM "{outcome.table}" t JOIN cohort c USING (person_id)
    WHERE t.month IS NOT NULL AND possible > 0 AND missed IS NOT NULL AND {outcome.where}
),
placed AS (SELECT *, {_side("begins", "ends")} AS since FROM periods),
inside AS (SELECT *, since + 1 AS till FROM placed WHERE since >= {window[0]} AND since < {window[1]}),
stays AS (SELECT person, family, participant, since, till, possible AS n FROM inside),
things AS (SELECT person, family, participant, since, till, missed AS n FROM inside WHERE missed > 0)"""


def _school_years(outcome: Outcome, window: tuple[int, int], first: int, last: int) -> str:
    """Children in school years, whether or not they have a record; those five to fifteen in the year it begins."""
    youngest, oldest = outcome.ages
    years = range((first - 8) // 12, (last - 8) // 12 + 1)
    return f"""WITH school AS (SELECT range AS y FROM range({years.start}, {years.stop})),
placed AS (
    SELECT c.person_id, c.person, c.family, c.participant, y, {_side("(y * 12 + 8)", "(y * 12 + 18)")} AS since
    FROM cohort c JOIN school ON y - born >= {youngest} AND y - born < {oldest}
),
stays AS (
    SELECT *, since + 1 AS till, 1 AS n FROM placed WHERE since >= {window[0]} AND since < {window[1]}
),
things AS (
    SELECT s.person, s.family, s.participant, s.since, s.till, {outcome.value} AS n
    FROM "{outcome.table}" t JOIN stays s ON t.person_id = s.person_id AND ({_month("t.month")} - 8) // 12 = s.y
    WHERE {outcome.where} AND {outcome.value} > 0
)"""
