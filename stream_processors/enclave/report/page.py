"""The page: one HTML file without script, font or picture from elsewhere, from published numbers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from stream_processors.enclave.report import charts, files, narrate
from stream_processors.enclave.report.build import Report
from stream_processors.enclave.report.linkage import SUPPLIERS

_HERE = Path(__file__).parent
_VERDICTS = {
    "better": "Better than it would have been",
    "worse": "Worse than it would have been",
    "changed": "Different from what it would have been",
    "no difference seen": "No difference seen",
    "not published": "Not published",
}


def render(report: Report) -> str:
    """The page of a report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "count": _count,
        "percent": _percent,
        "number": _number,
        "change": narrate.change,
        "gap": _gap,
    }
    return environment.get_template("page.html.j2").render(_model(report))


def _model(report: Report) -> dict[str, Any]:
    published = report.release.published
    found = report.findings
    verdicts = {
        title: [f for f in found if f.verdict == verdict]
        for verdict, title in _VERDICTS.items()
        if any(f.verdict == verdict for f in found)
    }
    return {
        "report": report,
        "style": Markup((_HERE / "page.css").read_text()),  # noqa: S704  (ours)
        "verdicts": verdicts,
        "findings": found,
        "overview": _svg(charts.overview(found)),
        "charts": {f.outcome.name: _svg(charts.series(f)) for f in found},
        "reasons": list(dict.fromkeys(f.refused for f in found if f.refused)),
        "withheld": {f.outcome.name: 0 if f.series is None else f.series["rate"].null_count() for f in found},
        "steps": {f.outcome.name: _step(f.series) for f in found},
        "titles": _VERDICTS,
        "totals": _totals(published["cohort"].cells) if "cohort" in published else None,
        "cohort": _rows(published, "cohort"),
        "matching": _rows(published, "matching"),
        "balance": _balance(published),
        "linkage": [(s, _linked(_rows(published, f"linkage.{s.name}"))) for s in SUPPLIERS],
        "log": report.release.log,
        "statuses": _statuses(report),
        "why": narrate.WHY,
        "file_of": files.file_of,
    }


def _svg(svg: str | None) -> Markup | None:
    return None if svg is None else Markup(svg)  # noqa: S704  (drawn by us, its text escaped there)


def _rows(published: Any, id_: str) -> list[dict[str, Any]]:
    return published[id_].cells.to_dicts() if id_ in published else []


def _totals(cohort: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Families and people of each group: sums of the published, rounded numbers."""
    summed = cohort.group_by("group").agg(pl.col("families").sum(), pl.col("persons").sum())
    return {row.pop("group"): row for row in summed.to_dicts()}


def _balance(published: Any) -> list[dict[str, Any]]:
    """Rows of the balance table with the share of families that have each trait."""
    if "balance" not in published:
        return []
    p = published["balance"]
    rows: list[dict[str, Any]] = p.cells.join(p.estimates, on="trait", how="left", maintain_order="left").to_dicts()
    return rows


def _linked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a linkage table with the share, and its interval (Wilson 1927)."""
    from statsmodels.stats.proportion import proportion_confint

    out = []
    for row in rows:
        n, k = row["persons"], row["linked"]
        low, high = proportion_confint(min(k, n), n, method="wilson") if n else (None, None)
        out.append(row | {"share": min(k / n, 1.0) if n else None, "low": low, "high": high})
    return out


def _step(series: pl.DataFrame | None) -> int | None:
    """Months of one point."""
    return None if series is None else int(series["to_month"][0] - series["from_month"][0])


def _statuses(report: Report) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in report.release.log:
        counts[entry.status] = counts.get(entry.status, 0) + 1
    return counts


def _count(value: int | None) -> Markup:
    return Markup('<span class="withheld">withheld</span>') if value is None else Markup(f"{value:,}")  # noqa: S704


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None) -> Markup:
    """A rate, to three figures or so."""
    if value is None:
        return Markup('<span class="withheld">withheld</span>')
    return Markup(f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}")  # noqa: S704


def _gap(value: float) -> str:
    """A standardised difference, with its sign."""
    return "0.00" if round(value, 2) == 0 else f"{value:+.2f}".replace("-", "−")
