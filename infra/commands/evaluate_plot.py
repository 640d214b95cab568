"""The plot of `lethe evaluate --plot`: how much evidence near matches had, right and wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

import numpy as np
from matplotlib import pyplot as plt

from stream_processors.matching.scores import Scores

_LOWEST, _HIGHEST = -20.0, 40.0


def draw(scores: Mapping[int, Scores], to: Path) -> None:
    """One panel a pass, as SVG: subjects by the evidence for their best candidate; readable without colours."""
    panels = sorted(scores.items()) or [(0, Scores(np.empty(0), np.empty(0), 0.0))]
    figure, axes = plt.subplots(len(panels), 1, figsize=(8, 3 * len(panels)), squeeze=False, layout="constrained")
    edges = np.linspace(_LOWEST, _HIGHEST, 61)
    for (number, of), axis in zip(panels, axes[:, 0], strict=True):
        for values, label, style in (
            (of.right, "the true person", {"color": "#4477aa"}),
            (of.wrong, "somebody else", {"color": "white", "edgecolor": "#222222", "hatch": "////"}),
        ):
            axis.hist(
                np.clip(values, _LOWEST, _HIGHEST), edges, label=f"{label} ({len(values):,})", alpha=0.85, **style
            )
        axis.axvline(of.threshold, color="black", linestyle="--", label=f"least for a link ({of.threshold:.1f} bits)")
        axis.set_yscale("symlog")
        axis.set_title(f"Pass {number}: subjects whom no match key finds" if number else "No near matches")
        axis.set_xlabel("evidence for the best candidate (bits)")
        axis.set_ylabel("department subjects")
        axis.legend()
    with mpl.rc_context({"svg.hashsalt": "lethe", "svg.fonttype": "none"}):
        figure.savefig(to, format="svg", metadata={"Date": None})
    plt.close(figure)
