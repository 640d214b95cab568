"""What is put before disclosure control: outputs, the policy that they are held to, and how their numbers add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

ALLOWED = frozenset({"count", "rate", "share", "mean", "ratio"})
"""Statistics that may leave. Any other (a minimum, a maximum, a median, a list of persons) is refused."""
Key = tuple[str, ...]
Place = tuple[str, Key, str]
"""A number: id of its output, key of its row, column."""


@dataclass(frozen=True)
class Policy:
    """Limits, by default those of ACRO (`acro/default.yaml`).

    threshold: persons or families behind every number, at least. base: published counts are multiples of it.
    dominance_n, dominance_k: the n largest contributors make up this share of a sum at most. degrees_of_freedom: of a
    regression, at least. decimals: of an estimate.
    """

    threshold: int = 10
    base: int = 5
    dominance_n: int = 2
    dominance_k: float = 0.90
    degrees_of_freedom: int = 10
    decimals: int = 2

    def __post_init__(self) -> None:
        """Hold the limits to what the audit can reckon with.

        Raises:
            ValueError: a limit that protects nobody, or an even base (its halves have no nearest multiple).
        """
        if self.threshold < 2 or self.base < 1 or self.base % 2 == 0 or not 0 < self.dominance_k <= 1:
            raise ValueError("threshold must be 2 or more, base odd, dominance_k above 0 and at most 1")


@dataclass(frozen=True)
class Output:
    """One table of numbers that somebody wants to take out.

    cells: a row per cell, with a column per key (text), count and contributor. keys: what names a row, together unique.
    counts: whole numbers that would be published, rounded. contributors: whole numbers that must reach the threshold,
    published only if they are among the counts: persons in the cell, and persons not in it. largest: by count, the
    column with the sum of its `dominance_n` largest contributions. estimates: numbers that are not counts; with the
    keys of `cells` they fall row by row, without them with the first row that does. degrees_of_freedom: of the
    regression that the estimates are from, if they are. span: the two keys that are an interval of months, from and
    up to: rows of other reports may lie inside it.
    """

    id: str
    title: str
    statistic: str
    query: str
    cells: pl.DataFrame
    keys: tuple[str, ...]
    counts: tuple[str, ...]
    contributors: tuple[str, ...]
    largest: Mapping[str, str] = field(default_factory=dict)
    estimates: pl.DataFrame | None = None
    degrees_of_freedom: int | None = None
    span: tuple[str, str] | None = None

    @property
    def estimates_by_row(self) -> bool:
        """Whether each row of `cells` has estimates of its own."""
        return self.estimates is not None and set(self.keys) <= set(self.estimates.columns)

    def row_keys(self) -> list[Key]:
        """The key of each row, in order."""
        return [tuple(map(str, row)) for row in self.cells.select(self.keys).iter_rows()]


@dataclass(frozen=True)
class Relation:
    """The numbers at `left` add up to the same as those at `right`."""

    left: tuple[Place, ...]
    right: tuple[Place, ...]
