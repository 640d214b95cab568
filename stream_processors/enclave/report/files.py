"""The published tables as they are written: one frame per CSV file, and which output went into which."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from stream_processors.enclave.disclosure import Published
from stream_processors.enclave.report.linkage import SUPPLIERS
from stream_processors.enclave.report.outcomes import OUTCOMES

CONTRASTS = {
    "effect": "difference in differences",
    "matched": "difference in differences, matched families",
    "earlier": "last year before the start against the time before it",
}


def file_of(id_: str) -> str:
    """The CSV file that an output's numbers are in."""
    kind, _, outcome = id_.partition(".")
    if kind == "series":
        return f"by-month-{outcome.replace('_', '-')}.csv"
    return {"effect": "outcomes.csv", "matched": "outcomes.csv", "earlier": "outcomes.csv"}.get(kind, f"{kind}.csv")


def frames(published: Mapping[str, Published]) -> dict[str, pl.DataFrame]:
    """Every file's rows, by name; a suppressed number is an empty cell."""
    made: dict[str, list[pl.DataFrame]] = {}
    per = {o.name: o for o in OUTCOMES}
    for id_, p in published.items():
        kind, _, name = id_.partition(".")
        frame = p.cells
        if kind in CONTRASTS and p.estimates is not None:
            frame = _outcome(p, kind, name)
        elif kind == "series":
            rate = (per[name].per * pl.col("events") / pl.col("exposure")).round(2)
            frame = frame.with_columns(rate=rate, measure=pl.lit(per[name].measure))
        elif kind == "linkage":
            title = next(s.title for s in SUPPLIERS if s.name == name)
            share = (100 * pl.col("linked") / pl.col("persons")).round(1)
            frame = frame.with_columns(share=share).select(pl.lit(title).alias("records"), pl.all())
        elif p.estimates is not None:
            frame = frame.join(p.estimates, on=p.cells.columns[0], how="left", maintain_order="left")
        made.setdefault(file_of(id_), []).append(frame)
    return {file: pl.concat(parts, how="diagonal") for file, parts in made.items()}


def _outcome(p: Published, kind: str, name: str) -> pl.DataFrame:
    """One row: the contrast, its estimate, and for the main contrast the numbers of its four cells."""
    assert p.estimates is not None
    row = p.estimates.select(pl.lit(name).alias("outcome"), pl.lit(CONTRASTS[kind]).alias("contrast"), pl.all())
    if kind != "effect":
        return row
    cells = {
        f"{group}_{period}_{column}": value
        for group, period, *values in p.cells.iter_rows()
        for column, value in zip(p.cells.columns[2:], values, strict=True)
    }
    return row.with_columns(pl.lit(v).alias(c) for c, v in cells.items())
