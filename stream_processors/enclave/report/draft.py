"""All that the report would say, put before disclosure control: outputs, and how their numbers add up.

What this module makes still holds counts of a few; only `disclosure.release` looks at it.
"""

# ruff: noqa: S608  (names in the SQL are this package's, and never of a record)

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from stream_processors.enclave.disclosure import Output, Policy, Relation, rules
from stream_processors.enclave.disclosure.history import BUCKETS
from stream_processors.enclave.disclosure.outputs import Place
from stream_processors.enclave.report import effects, linkage, matching, panel
from stream_processors.enclave.report.design import Design
from stream_processors.enclave.report.matching import Matched
from stream_processors.enclave.report.outcomes import OUTCOMES, Outcome
from stream_processors.enclave.report.panel import SCHOOL_GRAIN, Counted, Panel
from stream_processors.enclave.report.source import Source

GRAINS = (1, 3, 6, 12)
"""Months of a point of a series; the finest of which every point passes is taken."""
_ROUNDINGS = 10
"""A point of a series is typically this many times the base of rounding, so rounding moves it by 5% at most."""
GROUPS = ("participant", "comparison")
_MODEL = (
    "GLM Poisson, log link, events ~ participant * after, offset log(exposure), standard errors clustered by family"
)


@dataclass(frozen=True)
class Draft:
    """Outputs, which of their numbers add up to the same, and persons by group and bucket for `history`."""

    outputs: tuple[Output, ...]
    relations: tuple[Relation, ...]
    cohort: dict[str, dict[int, int]]


def draft(source: Source, design: Design, policy: Policy) -> Draft:
    """Count and estimate everything."""
    matched = matching.match(source, design)
    outputs = [_cohort(matched), _matching(matched), _balance(matched)]
    relations = [_same_families(outputs[0], outputs[1], group) for group in GROUPS]
    monthly: dict[str, pl.DataFrame] = {}
    for outcome in OUTCOMES:
        counted = panel.counted(source, outcome, design)
        effect, *checks = _estimates(source, counted, design, matched)
        series = _series(source, counted, policy, monthly)
        outputs += [effect, *checks, series]
        relations += _series_adds_up(effect, series)
    for supplier in linkage.SUPPLIERS:
        output = _linkage(source, supplier, matched)
        outputs.append(output)
        relations += _groupings_add_up(output)
    return Draft(tuple(outputs), tuple(relations), _buckets(source))


# Who is compared -----------------------------------------------------------------------------------------------------


def _group(took_part: str = "participant") -> pl.Expr:
    return pl.when(pl.col(took_part)).then(pl.lit(GROUPS[0])).otherwise(pl.lit(GROUPS[1])).alias("group")


def _cohort(matched: Matched) -> Output:
    cells = (
        matched.families.group_by(_group(), (pl.col("start") // 12).cast(pl.String).alias("started_in"))
        .agg(families=pl.len().cast(pl.Int64), persons=pl.col("persons").sum().cast(pl.Int64))
        .sort("group", "started_in", descending=[True, False])
    )
    return Output(
        "cohort", "Families and people compared, by the year of the start", "count",
        f"{matching.FAMILIES};\nfamilies and persons by group and start // 12", cells, ("group", "started_in"),
        ("families", "persons"), ("families", "persons"),
    )  # fmt: skip


def _matching(matched: Matched) -> Output:
    """Families that the matched contrast rests on, and those left out."""
    cells = (
        matched.families.with_columns(pl.Series("kept", matched.weight > 0))
        .group_by(_group(), pl.when("kept").then(pl.lit("matched")).otherwise(pl.lit("left out")).alias("part"))
        .agg(families=pl.len().cast(pl.Int64))
    )
    every = pl.DataFrame({"group": GROUPS}).join(pl.DataFrame({"part": ["matched", "left out"]}), how="cross")
    cells = every.join(cells, on=["group", "part"], how="left", maintain_order="left").with_columns(
        pl.col("families").fill_null(0)
    )
    return Output(
        "matching", "Families matched and left out", "count",
        f"{matching.FAMILIES};\nlogistic regression of participant, nearest comparison families within the caliper",
        cells, ("group", "part"), ("families",), ("families",),
    )  # fmt: skip


def _balance(matched: Matched) -> Output:
    found = matching.balance(matched)
    counts = ("participants", "comparison")
    return Output(
        "balance", "How alike the groups are, before and after matching", "share",
        f"{matching.FAMILIES};\nfamilies with each trait; standardised differences of shares, weighted after matching",
        found.select("trait", *counts, "participants_without", "comparison_without"), ("trait",), counts,
        (*counts, "participants_without", "comparison_without"),
        estimates=found.select("trait", "difference", "matched_difference"),
    )  # fmt: skip


def _same_families(cohort: Output, matched: Output, group: str) -> Relation:
    return Relation(_places(cohort, "families", group), _places(matched, "families", group))


def _places(output: Output, column: str, first_key: str) -> tuple[Place, ...]:
    return tuple((output.id, key, column) for key in output.row_keys() if key[0] == first_key)


# Estimates -----------------------------------------------------------------------------------------------------------


def _estimates(source: Source, counted: Counted, design: Design, matched: Matched) -> Iterable[Output]:
    """The effect, and two checks of it.

    The same among matched families; and the same where there can be no effect, the last year before the start against
    the time before it.
    """
    o = counted.outcome
    found, query = panel.families(source, counted)
    whole, earlier = found.panel(slice(0, 2), slice(2, 3)), found.panel(slice(0, 1), slice(1, 2))
    weights = matched.weights_of(whole.family)

    def ratio(of: Panel, weights: effects.Floats | None = None) -> effects.Ratio | None:
        return effects.ratio_of_ratios(of, weights, design.confidence)

    periods = ("before", "after")
    title = f"{o.title}: before and after, and the difference in differences"
    yield _estimated(f"effect.{o.name}", title, o, query, whole, ratio(whole), periods, published=True)
    title = f"{o.title}: the same among matched families"
    kept = whole.of(weights > 0)
    yield _estimated(f"matched.{o.name}", title, o, query, kept, ratio(whole, weights), periods, published=False)
    title = f"{o.title}: whether the groups already parted before the start"
    periods = ("earlier", "last year")
    yield _estimated(f"earlier.{o.name}", title, o, query, earlier, ratio(earlier), periods, published=False)


def _estimated(
    id_: str,
    title: str,
    outcome: Outcome,
    query: str,
    found: Panel,
    ratio: effects.Ratio | None,
    periods: tuple[str, str],
    published: bool,
) -> Output:
    """A ratio of ratios, with the four cells that it rests on.

    The cells of the contrasts that are not published would tell, beside those that are, of the few families by which
    they differ.
    """
    cells = _cells(found, periods)
    none = {"ratio": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    estimates = pl.DataFrame([] if ratio is None else [(ratio.ratio, ratio.low, ratio.high)], schema=none, orient="row")
    all_may_have_one = outcome.kind == "sessions"
    contributors = ("families", "families_with", *(() if all_may_have_one else ("families_without",)))
    return Output(
        id_, title, "ratio", f"{query};\n{_MODEL}", cells, ("group", "period"),
        ("events", "exposure", "families") if published else (), contributors, {"events": "largest"}, estimates,
        found.families - effects.COEFFICIENTS,
    )  # fmt: skip


def _cells(found: Panel, periods: tuple[str, str]) -> pl.DataFrame:
    """Events, exposure and families by group and period, all four of them."""
    rows = pl.DataFrame(
        {"participant": found.participant, "after": found.after, "events": found.events, "exposure": found.exposure}
    )
    every = pl.DataFrame({"participant": [True, True, False, False], "after": [False, True, False, True]})
    some = rows.group_by("participant", "after").agg(
        pl.col("events").sum().round().cast(pl.Int64),
        pl.col("exposure").sum().round().cast(pl.Int64),
        families=pl.len().cast(pl.Int64),
        families_with=(pl.col("events") > 0).sum().cast(pl.Int64),
        largest=pl.col("events").top_k(2).sum(),
    )
    numbers = pl.exclude("participant", "after").fill_null(0)
    period = pl.when("after").then(pl.lit(periods[1])).otherwise(pl.lit(periods[0])).alias("period")
    return (
        every.join(some, on=["participant", "after"], how="left", maintain_order="left")
        .with_columns(numbers)
        .with_columns(families_without=pl.col("families") - pl.col("families_with"))
        .select(_group(), period, pl.exclude("participant", "after"))
    )


# By month ------------------------------------------------------------------------------------------------------------


def _series(source: Source, counted: Counted, policy: Policy, monthly: dict[str, pl.DataFrame]) -> Output:
    """Events by months from the start, in the finest steps of which every one passes the rules.

    And of which rounding is a small part: where it is not, a line would show little but rounding.
    """
    by_school_year = counted.outcome.kind in ("sessions", "school years")
    for grain in (SCHOOL_GRAIN,) if by_school_year else GRAINS:
        found, query = panel.series(source, counted, grain, policy.dominance_n)
        if grain == 1:
            monthly[counted.outcome.name] = found
        output = _series_output(counted.outcome, found, query, monthly)
        typical = found["events"].median()
        coarse = not isinstance(typical, float) or typical < _ROUNDINGS * policy.base
        if not coarse and not (rules.below_threshold(output, policy) | rules.dominated(output, policy)).any():
            break
    return output


def _series_output(outcome: Outcome, found: pl.DataFrame, query: str, monthly: dict[str, pl.DataFrame]) -> Output:
    contributors = ["persons", "persons_at_risk"]
    if outcome.kind != "sessions":
        contributors.append("persons_without")
    if outcome.part_of:
        found = found.with_columns(rest=_rest(found, monthly[outcome.part_of]))
        contributors.append("rest")
    return Output(
        f"series.{outcome.name}", f"{outcome.title}, by months from the start", "rate", query, found,
        ("group", "from_month", "to_month"), ("events", "exposure"), tuple(contributors), {"events": "largest"},
        span=("from_month", "to_month"),
    )  # fmt: skip


def _rest(part: pl.DataFrame, whole: pl.DataFrame) -> pl.Series:
    """Events of the outcome that this one is a part of, less this one's, in each of its rows."""
    low, high, month = (pl.col(c).cast(pl.Int64) for c in ("from_month", "to_month", "month"))
    whole = whole.select("group", month=pl.col("from_month"), all="events")
    inside = part.join(whole, on="group", maintain_order="left").filter((month >= low) & (month < high))
    summed = inside.group_by("group", "from_month").agg(pl.col("all").sum())
    return part.join(summed, on=["group", "from_month"], how="left", maintain_order="left").select(
        rest=pl.col("all").fill_null(0) - pl.col("events")
    )["rest"]


def _series_adds_up(effect: Output, series: Output) -> Iterable[Relation]:
    """A group's months before the start add up to its events before, and so for after, and for the exposure."""
    for group in GROUPS:
        for period, before in (("before", True), ("after", False)):
            keys = [k for k in series.row_keys() if k[0] == group and (int(k[1]) < 0) == before]
            for column in ("events", "exposure"):
                if keys:
                    yield Relation(
                        tuple((series.id, key, column) for key in keys), ((effect.id, (group, period), column),)
                    )


# Linkage -------------------------------------------------------------------------------------------------------------


def _linkage(source: Source, supplier: linkage.Supplier, matched: Matched) -> Output:
    found, query = linkage.rates(source, supplier, matched.families)
    return Output(
        f"linkage.{supplier.name}", f"{supplier.title}: share of {supplier.of_whom} with a record, by group", "share",
        query, found, ("grouping", "group"), ("persons", "linked"), ("persons", "linked", "unlinked"),
    )  # fmt: skip


def _groupings_add_up(output: Output) -> Iterable[Relation]:
    """Every grouping is of the same people."""
    names = list(dict.fromkeys(key[0] for key in output.row_keys()))
    for name in names[1:]:
        for column in output.counts:
            yield Relation(_places(output, column, names[0]), _places(output, column, name))


def _buckets(source: Source) -> dict[str, dict[int, int]]:
    found = source.frame(
        "SELECT if(participant, 'participant', 'comparison') AS g, "
        f"(md5_number_lower(person_id) % {BUCKETS})::INTEGER AS b, count(*)::INTEGER AS n FROM cohort GROUP BY ALL"
    )
    out: dict[str, dict[int, int]] = {group: {} for group in GROUPS}
    for group, bucket, n in found.iter_rows():
        out[group][bucket] = n
    return out
