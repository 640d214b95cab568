"""`lethe simulate`: supplier files of people who do not exist, with the truth about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infra.errors import EXIT_ERROR, EXIT_USAGE, fail
from infra.tables import listing


def simulate(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Empty folder, or one of an earlier simulation.")],
    families: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Families in the cohort; as many outside it come on top.")
    ] = 2_000,
    seed: Annotated[int, typer.Option(min=0, help="The same families and seed give the same files.")] = 1,
    canaries: Annotated[
        bool,
        typer.Option(
            "--canaries", help="Plant a canary in every identifying field, listed in <out>/truth/canaries.json."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the control totals as JSON.")] = False,
) -> None:
    """Write the files of two councils and four departments, <out>/<supplier>/<dataset>.csv, and the truth.

    <out>/truth has who is who (subjects.csv, persons.csv), the planted effects and nulls (effect.json) and what was
    made hard (decoys.csv). An earlier simulation in the folder is replaced; a folder with anything else is left alone.

    Example: lethe simulate --families 500 --seed 1 --out /tmp/files
    """
    from producers.simulator import NotOursError, simulate_to

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("families")
            totals = simulate_to(
                out,
                families,
                seed,
                lambda what, done, steps: progress.update(task, description=what, completed=done, total=steps),
                canaries,
            )
    except NotOursError as e:
        fail(str(e), EXIT_USAGE)
    except OSError as e:
        fail(f"{e.filename or out} cannot be written: {e.strerror}", EXIT_ERROR)
    if as_json:
        typer.echo(json.dumps(totals.as_json(), indent=1))
        return
    table = listing("file", "rows", title=f"{totals.families:,} families, seed {totals.seed}", numbers_from=1)
    for file in totals.files:
        table.add_row(file.path, f"{file.rows:,}")
    shown = Console()
    shown.print(table)
    shown.print(
        f"{totals.records:,} records about {totals.subjects:,} subjects; {totals.persons:,} people, of whom "
        f"{totals.cohort_persons:,} in the cohort; {totals.seconds:.1f} s",
        highlight=False,
    )
