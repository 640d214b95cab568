"""`lethe top`: the flow, live, in a terminal."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.settings import Settings

if TYPE_CHECKING:
    from infra.monitoring.picture import Stage


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    every_s: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.5)] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Once, as one JSON document, for programs.")] = False,
) -> None:
    """Watch the flow: rate, lag and age on every arrow, health, restores, quarantine and alerts. q ends it.

    Exits 3 if the stack is not up.

    Example: lethe top
    """
    from infra.commands.options import asking, up
    from infra.monitoring.picture import Sampler, picture
    from infra.monitoring.top import TopApp, Watched, beside, shown, watched

    settings = up(Settings())
    sampler = Sampler(settings)
    try:
        with asking():
            first = sampler.sample()
            if not (once or as_json):

                def look() -> Watched:
                    return watched(settings, sampler)

                TopApp(look, every_s).run()
                return
            time.sleep(1.0)  # a rate is of two looks
            found = watched(settings, sampler)
    finally:
        sampler.close()
    stages = picture(first, found.sample)
    if as_json:
        failed = [
            {"supplier": supplier, "dataset": dataset, "error": error, "records": n}
            for (supplier, dataset, error), n in sorted(found.quarantine.items())
        ]
        document = {"flow": [_row(s) for s in stages], "quarantine": failed, "alerts": list(found.alerts)}
        typer.echo(json.dumps(document, indent=1))
    else:
        from rich.console import Console, Group

        Console().print(Group(shown(stages), beside(found)))


def _row(stage: Stage) -> dict[str, Any]:
    """A stage for programs; what each instance says of its partitions stays with its metrics."""
    instances = [
        {"instance": i.instance, "pid": i.pid, "health": i.health, "restores": dict(i.restores)}
        for i in stage.instances
    ]
    return {
        "processor": stage.processor,
        "health": stage.health,
        "writes": stage.writes,
        "arrows": [asdict(arrow) for arrow in stage.arrows],
        "instances": instances,
    }
