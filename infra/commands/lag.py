"""`lethe lag`: how far each processor is behind, in records and in time."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column

from infra.commands.options import AsJson
from infra.settings import Settings
from infra.tables import listing


def lag(
    partitions: Annotated[bool, typer.Option("--partitions", help="A line for each partition that is behind.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how far each processor is behind on each input: records, and the age of the oldest that waits.

    Exits 0 whether any is behind or not, and 3 if the stack is not up.

    Example: lethe lag --json
    """
    from confluent_kafka import KafkaException

    from infra.commands.options import away, shown_seconds, up
    from infra.monitoring.picture import Sampler, picture

    sampler = Sampler(up(Settings()))
    try:
        sample = sampler.sample()
    except KafkaException as e:
        away(e)
    finally:
        sampler.close()
    stages = picture(None, sample)
    if as_json:
        rows = [
            {
                "processor": a.processor,
                "topic": a.topic,
                "partitions": a.partitions,
                "records_behind": a.behind,
                "oldest_s": a.age_s,
                "health": stage.health,
            }
            for stage in stages
            for a in stage.arrows
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    if partitions:
        if not sample.waits:
            typer.echo("nothing waits")
            return
        shown = listing("processor", "topic", "partition", "committed", "end", "oldest waits", numbers_from=2)
        for found, (_, age_s) in sorted(sample.waits.items(), key=lambda kv: -kv[1][1]):
            age = shown_seconds(age_s)
            shown.add_row(found.processor, found.topic, str(found.partition), str(found.committed), str(found.end), age)
    else:
        shown = listing("processor", "reads", Column("behind", justify="right"), "oldest waits", "here")
        for stage in stages:
            for a in stage.arrows:
                age = shown_seconds(a.age_s) if a.behind else ""
                shown.add_row(stage.processor, a.topic, f"{a.behind:,}", age, stage.health)
    Console().print(shown)
