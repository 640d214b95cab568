"""The rules that look at one output by itself, and rounding."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from stream_processors.enclave.disclosure.outputs import ALLOWED, Output, Policy

MOST_SUPPRESSED = 0.5
"""A table of which more than this share would be blank is refused whole."""


@dataclass(frozen=True)
class Check:
    """One rule and what it found. `rows`: how many rows of the output broke it."""

    rule: str
    rows: int
    says: str

    @property
    def passed(self) -> bool:
        """Whether nothing broke it."""
        return self.rows == 0


def statistic(output: Output) -> Check:
    """Whether the kind of statistic may leave at all: a minimum or a maximum is one person's value."""
    ok = output.statistic in ALLOWED
    return Check("statistic", 0 if ok else max(output.cells.height, 1), f"the statistic is a {output.statistic}")


def degrees_of_freedom(output: Output, policy: Policy) -> Check:
    """Whether a regression has enough of them."""
    found = output.degrees_of_freedom
    short = found is not None and found < policy.degrees_of_freedom
    return Check("degrees of freedom", int(short), f"a regression leaves {policy.degrees_of_freedom} at least")


def below_threshold(output: Output, policy: Policy) -> pl.Series:
    """Rows in which any number, of persons or to be published, is below the threshold; zero is, and missing is."""
    columns = dict.fromkeys((*output.counts, *output.contributors))
    low = pl.any_horizontal(pl.col(c).is_null() | (pl.col(c) < policy.threshold) for c in columns)
    return output.cells.select(low.alias("low")).to_series()


def dominated(output: Output, policy: Policy) -> pl.Series:
    """Rows in which the largest contributors make up more of a sum than they may."""
    if not output.largest:
        return pl.Series("dominated", [False] * output.cells.height, dtype=pl.Boolean)
    over = pl.any_horizontal(
        pl.col(top).is_null() | ((pl.col(count) > 0) & (pl.col(top) > policy.dominance_k * pl.col(count)))
        for count, top in output.largest.items()
    )
    return output.cells.select(over.alias("dominated")).to_series()


def rounded(values: pl.Expr, base: int) -> pl.Expr:
    """Whole numbers to the nearest multiple of an odd base: nothing lies in the middle."""
    half = base // 2
    return (values.cast(pl.Int64) + half) // base * base


def bounds(value: int, policy: Policy) -> tuple[int, int]:
    """Between what a published count lies, as everybody knows who knows the rules."""
    half = policy.base // 2
    return max(policy.threshold, value - half), value + half
