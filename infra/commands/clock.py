"""`lethe clock`: what day the processors have been told, and a simulated clock for demos."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

import typer
from confluent_kafka import KafkaException

from infra.errors import EXIT_NOT_UP, fail
from infra.settings import Settings

clock_app = typer.Typer(help="The clock that records expire by.", no_args_is_help=True)


@clock_app.command()
def show(as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False) -> None:
    """Show the last day that each partition was told.

    Example: lethe clock show
    """
    from infra.ticks import last_ticks

    settings = Settings()
    try:
        told = last_ticks(settings)
    except KafkaException as e:
        fail(f"the broker does not answer ({e.args[0].name()}); `lethe up` starts one", EXIT_NOT_UP)
    if as_json:
        typer.echo(json.dumps({"clock": settings.clock, "told": {str(p): d.isoformat() for p, d in told.items()}}))
        return
    typer.echo(f"clock: {settings.clock}")
    for partition in range(settings.partitions):
        day = told.get(partition)
        typer.echo(f"partition {partition}: {day.isoformat() if day else 'never told'}")


@clock_app.command()
def tick(
    as_of: Annotated[
        list[datetime], typer.Option("--as-of", formats=["%Y-%m-%d"], help="The day; several are told in order.")
    ],
    execute: Annotated[bool, typer.Option("--execute", help="Tell it; without, only say what would be told.")] = False,
) -> None:
    """Tell every partition a day. What has expired by then is destroyed for good.

    Works with a simulated clock only (LETHE_CLOCK=simulated): a real one is told by the control plane. A day that is
    more than one after the last waits until a later one is told.

    Example: LETHE_CLOCK=simulated lethe clock tick --as-of 2022-12-31 --as-of 2023-01-01 --execute
    """
    from infra.ticks import send_ticks

    settings = Settings()
    if settings.clock != "simulated":
        fail("this installation has the wall clock; set LETHE_CLOCK=simulated for every process of a demo")
    days = [d.date() for d in as_of]
    said = ", ".join(d.isoformat() for d in days)
    if not execute:
        typer.echo(f"would tell {settings.partitions} partitions: {said}; --execute tells them")
        return
    try:
        sent = send_ticks(settings, days)
    except KafkaException as e:
        fail(f"the broker does not have all ticks ({e.args[0].name()}); tell them again", EXIT_NOT_UP)
    typer.echo(f"told {settings.partitions} partitions: {said} ({sent} ticks)")
