"""What `lethe evaluate` prints: tables for people, one object for machines."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from infra.errors import fail
from infra.evaluation.linking import Run
from infra.tables import listing
from stream_processors.matching.evaluation import Found, Hard, Score

_WIDTH = 120


def show_run(run: Run, started: float, as_json: bool, plot: Path | None) -> None:
    """Print what an evaluation found, and draw it if `plot` is given. `started`: of the monotonic clock, in s."""
    seconds = time.monotonic() - started
    if plot is not None:
        try:
            from infra.commands.evaluate_plot import draw
        except ImportError:
            fail("--plot needs matplotlib; `make setup` installs it")
        draw(run.scores, plot)
    if as_json:
        out: dict[str, Any] = {
            "cohort_subjects": run.cohort,
            "department_subjects": run.department,
            "near_matches": run.near,
            **run.figures.as_json(),
        }
        if run.decoys is not None:
            out["decoys"] = {kind: h.as_json() for kind, h in run.decoys.items()}
        out["seconds"] = round(seconds, 3)
        out["link_seconds"] = round(run.link_seconds, 3)
        typer.echo(json.dumps(out))
        return
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width
        console = Console(width=_WIDTH)
    f = run.figures
    title = f"{run.department:,} department subjects against {run.cohort:,} of the cohort"
    console.print(_scores(title, "", {"all": f.overall}))
    outcomes = listing("outcome", "subjects", title="What became of them", numbers_from=1)
    for outcome, n in {**f.outcomes, "not judged": f.unjudged}.items():
        outcomes.add_row(outcome, f"{n:,}")
    console.print(outcomes)
    console.print(_found("Links by pass", "pass", {str(number): found for number, found in f.by_pass.items()}))
    console.print(_found("Links by match key", "match key", f.by_match_key))
    for name, group in (
        ("supplier", f.by_supplier),
        ("sex", f.by_sex),
        ("born in", f.by_birth_decade),
        ("fields missing", f.by_missing),
    ):
        if group:
            console.print(_scores(f"By {name}", name, group))
    if run.decoys is not None:
        console.print(_decoys(run.decoys))
    console.print(f"Near matches: {run.near}", highlight=False)
    console.print(f"{seconds:.1f} s, of which linking {run.link_seconds:.1f} s", highlight=False)


def _scores(title: str, name: str, scores: Mapping[str, Score]) -> Table:
    columns = ("subjects", "true", "links", "right", "wrong", "precision", "recall", "F1")
    table = listing(name, *columns, title=title, numbers_from=1)
    for label, s in scores.items():
        counts = (s.subjects, s.matches, s.links, s.right, s.wrong)
        table.add_row(label, *_counts(counts), _ratio(s.precision), _ratio(s.recall), _ratio(s.f1))
    return table


def _found(title: str, name: str, found: Mapping[str, Found]) -> Table:
    table = listing(name, "links", "right", "wrong", "precision", title=title, numbers_from=1)
    for label, f in found.items():
        table.add_row(label, *_counts((f.links, f.right, f.wrong)), _ratio(f.precision))
    return table


def _decoys(decoys: Mapping[str, Hard]) -> Table:
    columns = ("decoys", "linked wrongly", "their subjects", "linked", "to somebody else")
    table = listing("kind", *columns, title="Decoys", numbers_from=1)
    for kind, h in decoys.items():
        table.add_row(kind, *_counts((h.decoys, h.linked_wrongly, h.subjects, h.links, h.wrong)))
    return table


def _counts(numbers: Sequence[int]) -> list[str]:
    return [f"{n:,}" for n in numbers]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
