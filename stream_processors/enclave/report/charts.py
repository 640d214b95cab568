"""Charts, as SVG that stands in the page: drawn from published numbers alone, for an SVG holds its data.

Colours are the page's variables, so that both colour schemes work; text is text, in the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stream_processors.enclave.report.narrate import Finding

_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--soft)",
    "#030303": "var(--line)",
    "#040404": "var(--participant)",
    "#050505": "var(--comparison)",
}
"""Stand-ins that matplotlib draws with, and what they become."""
_INK, _SOFT, _LINE, _PARTICIPANT, _COMPARISON = _COLOURS
_SIZE = (4.5, 2.9)
"""Inches: at a phone's width letters are then still 11 pixels high."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def series(finding: Finding) -> str | None:
    """Both groups' rates by months from the start; None if there is nothing to draw."""
    points = finding.series
    if points is None:
        return None
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"series-{finding.outcome.name}"}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        for group, colour, marker in (("participant", _PARTICIPANT, "o"), ("comparison", _COMPARISON, "s")):
            _line(axes, points.filter(pl.col("group") == group), colour, marker)
        axes.axvline(0, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
        top = points["rate"].max()
        axes.set_ylim(0, 1.15 * float(top) if isinstance(top, float) and top > 0 else 1)
        axes.annotate("start", (0, 1), (4, -1), xycoords=("data", "axes fraction"), textcoords="offset points",
                      color=_SOFT, va="top")  # fmt: skip
        first, last = points["from_month"].to_list()[0], points["to_month"].to_list()[-1]
        axes.set_xticks(range(first // 12 * 12, last + 1, 12))
        axes.set_xlabel("months from the start")
        axes.grid(axis="y", color=_LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        return _svg(figure, f"chart-{finding.outcome.name}", _series_title(finding), _series_says(finding))


def _line(axes: Axes, points: pl.DataFrame, colour: str, marker: str) -> None:
    """Rates at the middle of their months; a blank breaks the line."""
    middle = ((points["from_month"] + points["to_month"]) / 2).to_numpy()
    rate = points["rate"].fill_null(float("nan")).to_numpy()
    few = len(points) <= 24
    axes.plot(middle, rate, color=colour, linewidth=2, marker=marker if few else None, markersize=5)


def _series_title(finding: Finding) -> str:
    return f"{finding.outcome.title}: {finding.outcome.measure}, by months from the start"


def _series_says(finding: Finding) -> str:
    """The chart in words."""
    r = finding.rates
    if len(r) < 4:
        return "Two lines, participants and comparison families; the table below has the numbers."
    said = [
        f"{name} {r[group, 'before'].value:.1f} before and {r[group, 'after'].value:.1f} after"
        for group, name in (("participant", "participants"), ("comparison", "comparison families"))
    ]
    return f"Two lines. On average: {said[0]}; {said[1]}. The table below has the numbers."


def overview(findings: Sequence[Finding]) -> str | None:
    """All estimates with their intervals on one axis; no difference in the middle. None if none may be published."""
    shown = [f for f in findings if f.effect is not None]
    if not shown:
        return None
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "overview"}):
        figure = Figure(figsize=(4.5, 0.9 + 0.5 * len(shown)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=_SOFT, linewidth=1)
        for i, f in enumerate(shown):
            e = f.effect
            assert e is not None
            low, middle, high = (100 * (v - 1) for v in (e.low, e.ratio, e.high))
            colour = _PARTICIPANT if e.different else _SOFT
            axes.plot([low, high], [i, i], color=colour, linewidth=2.5, solid_capstyle="butt")
            axes.plot([middle], [i], marker="D" if e.different else "o", color=colour, markersize=6,
                      markerfacecolor=colour if e.different else "none")  # fmt: skip
            axes.annotate(f.outcome.title, (0, i), (2, 9), xycoords=("axes fraction", "data"),
                          textcoords="offset points", va="bottom", fontsize=11,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        axes.set_ylim(len(shown) - 0.6, -0.85)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:+.0f}%".replace("-", "−") if v else "0")
        axes.set_xlabel("difference from what would have been")
        axes.grid(axis="x", color=_LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        says = "; ".join(f"{f.outcome.title}: {f.sentence}" for f in shown)
        return _svg(figure, "chart-overview", "The differences with their 95% intervals", says)


def _svg(figure: Figure, id_: str, title: str, says: str) -> str:
    """The figure as an element for the page: no size of its own, named and described, the same bytes every time."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<style[^>]*>.*?</style>\s*", "", svg, flags=re.DOTALL)
    for stand_in, colour in _COLOURS.items():
        svg = svg.replace(stand_in, colour)
    svg = re.sub(r"font: (\d+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r'id="([^"]+)"', rf'id="{id_}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{id_}-", svg)
    head = f'<svg role="img" aria-labelledby="{id_}-title {id_}-desc"'
    svg = re.sub(r'^<svg[^>]*?(viewBox="[^"]*")[^>]*>', rf"{head} \1>", svg, count=1, flags=re.DOTALL)
    named = f'<title id="{id_}-title">{escape(title)}</title><desc id="{id_}-desc">{escape(says)}</desc>'
    return svg.replace(">", f">{named}", 1)
