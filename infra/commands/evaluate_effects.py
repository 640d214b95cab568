"""`lethe evaluate effects`: whether the enclave's report finds what was planted, and nothing where nothing was."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.errors import EXIT_ERROR, fail
from infra.tables import listing

_WIDTH = 120


def effects(
    families: Annotated[int, typer.Option(min=50, max=200_000, help="Families in each simulated cohort.")] = 4000,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Cohorts, with seeds 1, 2, ...")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Simulate cohorts, estimate as the report does, and count how often the 95% interval covers what was planted.

    Everybody is linked rightly: this judges the estimator. Ends with 1 if an interval covers the truth so rarely that
    it cannot be one of 95%.

    Example: lethe evaluate effects --families 4000 --seeds 20
    """
    from infra.recovery import ratios, recovered
    from infra.simulated_enclave import simulated_enclave

    found = []
    with tempfile.TemporaryDirectory(prefix="lethe-effects-") as folder:
        for seed in range(1, seeds + 1):
            simulated_enclave(Path(folder), families, seed)
            found.append(ratios(Path(folder)))
            if not as_json:
                typer.echo(f"seed {seed} of {seeds}", err=True)
    figures = recovered(found)
    if as_json:
        contrasts = {contrast: {o: r.as_json() for o, r in of.items()} for contrast, of in figures.items()}
        typer.echo(json.dumps({"families": families, "seeds": seeds, "contrasts": contrasts}))
    else:
        console = Console()
        console = console if console.is_terminal else Console(width=_WIDTH)
        for contrast, of in figures.items():
            columns = ("planted ratio", "covered", "pooled ratio", "95% interval of it")
            table = listing("outcome", *columns, title=contrast, numbers_from=1)
            for outcome, r in of.items():
                ends = (r.pooled * (1 - 1.96 * r.pooled_error), r.pooled * (1 + 1.96 * r.pooled_error))
                table.add_row(
                    outcome, f"{r.truth:.2f}", f"{r.covered} of {r.seeds}", f"{r.pooled:.3f}",
                    f"{ends[0]:.3f} to {ends[1]:.3f}",
                )  # fmt: skip
            console.print(table)
    missed = [f"{o} ({c})" for c, of in figures.items() for o, r in of.items() if not r.plausible]
    if missed:
        fail(f"intervals that cover the truth too rarely: {', '.join(missed)}", EXIT_ERROR)
