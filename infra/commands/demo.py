"""`lethe demo`: the main job, from files to research records, and a comparison with the oracle."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from infra.errors import EXIT_ERROR, end_tidily_on_sigterm, fail
from infra.settings import Settings


def demo(
    families: Annotated[int, typer.Option(min=1, help="Families in the simulated cohort.")] = 2_000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run a simulated cohort and FEBRL4 through a stack of its own, compare the outcome with the oracle, and write the
    researchers' report.

    Nothing outside <home>/demo is touched. Exits 1 if the outcome differs from the oracle's.

    Example: lethe demo --families 500
    """
    from infra.demo import DemoFailedError
    from infra.demo import demo as run_demo

    end_tidily_on_sigterm()
    console = Console(stderr=as_json)
    try:
        report = run_demo(Settings(), families, seed, console)
    except DemoFailedError as e:
        fail(str(e), EXIT_ERROR)
    if as_json:
        typer.echo(json.dumps(asdict(report), default=str, indent=1))
