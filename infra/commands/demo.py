"""`lethe demo`: the main job, from files to research records, and a comparison with the oracle. `lethe demo
destruction`: asked about, erased, expired, and gone, with the proof."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from infra.errors import EXIT_ERROR, end_tidily_on_sigterm, fail
from infra.settings import Settings

demo_app = typer.Typer()


@demo_app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    families: Annotated[int, typer.Option(min=1, help="Families in the simulated cohort.")] = 2_000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run a simulated cohort and FEBRL4 through a stack of its own, compare the outcome with the oracle, and write the
    researchers' report.

    Nothing outside <home>/demo is touched. Exits 1 if the outcome differs from the oracle's.

    Example: lethe demo --families 500
    """
    if context.invoked_subcommand is not None:
        return
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


@demo_app.command()
def destruction(
    families: Annotated[int, typer.Option(min=1, help="Families in the simulated cohort.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was seen as JSON.")] = False,
) -> None:
    """Show how the promise is kept: an enquiry, an erasure, years of expiry, the hard stop, the proof, the certificate.

    On a stack of its own, with a clock of its own. Nothing outside <home>/demo is touched. Exits 1 if anything is left.

    Example: lethe demo destruction
    """
    from infra.demo import DemoFailedError
    from infra.demo_destruction import as_json as told_as_json
    from infra.demo_destruction import demo_destruction

    end_tidily_on_sigterm()
    try:
        told = demo_destruction(Settings(), families, seed, Console(stderr=as_json))
    except DemoFailedError as e:
        fail(str(e), EXIT_ERROR)
    if as_json:
        typer.echo(told_as_json(told))
