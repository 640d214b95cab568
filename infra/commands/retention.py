"""`lethe clock tick`, `lethe retention due`, `lethe ledger verify`."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Annotated

import typer
from confluent_kafka import KafkaException

from infra.commands.options import AsJson, away, up_with_edition
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, EXIT_USAGE, fail
from infra.settings import Settings

clock_app = typer.Typer(help="The day that records expire by.", no_args_is_help=True)
retention_app = typer.Typer(help="What is to be destroyed, and when.", no_args_is_help=True)
ledger_app = typer.Typer(help="What was destroyed.", no_args_is_help=True)


@clock_app.callback()
@retention_app.callback()
@ledger_app.callback()
def _group() -> None:
    """Keep the one command of each a command of its own."""


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail("--as-of must be a day such as 2022-12-31", EXIT_USAGE)


@clock_app.command()
def tick(
    as_of: Annotated[str, typer.Option(help="The day, such as 2022-12-31.")],
    execute: Annotated[bool, typer.Option("--execute", help="Tell it; without this, say what would follow.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell every partition what day it is: what expires on it or before is destroyed.

    The very first tick, and one more than a day ahead, take effect when a later day is told. What was destroyed does
    not come back by a tick of an earlier day.

    Example: lethe clock tick --as-of 2022-12-31 --execute
    """
    from infra.clock import tick as tell
    from schemas.registry import Registry, RegistryDownError, SchemaNotRegisteredError

    day, settings = _day(as_of), up_with_edition(Settings())
    if not execute:
        _say_due(settings, day, as_json)
        typer.echo("nothing was told: repeat with --execute", err=True)
        return
    try:
        partitions = tell(settings, Registry(settings.registry), day)
    except KafkaException as e:
        away(e)
    except RegistryDownError as e:
        fail(str(e), EXIT_NOT_UP)
    except SchemaNotRegisteredError as e:
        fail(str(e), EXIT_ERROR)
    if as_json:
        typer.echo(json.dumps({"as_of": day.isoformat(), "partitions": partitions}))
    else:
        typer.echo(f"{day}: told to {partitions} partitions")


@retention_app.command()
def due(
    as_of: Annotated[str | None, typer.Option(help="The day, such as 2022-12-31; by default today.")] = None,
    as_json: AsJson = False,
) -> None:
    """How many records a tick of that day would destroy, by supplier and dataset. Changes nothing.

    Those whose subject matches nobody, and has waited for the linkage window, go by the tick after it.

    Example: lethe retention due --as-of 2022-12-31
    """
    _say_due(up_with_edition(Settings()), _day(as_of), as_json)


def _say_due(settings: Settings, day: date, as_json: bool) -> None:
    from infra.held import due as count
    from infra.held import unmatched
    from infra.policy import PolicyFileError, configured_policy

    try:
        policy = configured_policy(settings)
        found, waiting = count(settings, day, policy.hard_stop), unmatched(settings, day, policy)
    except PolicyFileError as e:
        fail(str(e), EXIT_ERROR)
    except KafkaException as e:
        away(e)
    rows, alone = (
        [{"supplier": s, "dataset": d, "records": n} for (s, d), n in sorted(counts.items())]
        for counts in (found, waiting)
    )
    if as_json:
        typer.echo(json.dumps({"as_of": day.isoformat(), "due": rows, "unmatched": alone}, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['supplier']}.{row['dataset']}: {row['records']}")
    for row in alone:
        typer.echo(f"{row['supplier']}.{row['dataset']}: {row['records']} of subjects that match nobody")
    typer.echo(f"{day}: {sum(found.values()) + sum(waiting.values())} records are due")


@ledger_app.command()
def verify(as_json: AsJson = False) -> None:
    """Check the chains of the ledger, and that each ends where its writer says. Exits 1 if a line is not as written.

    While records are being destroyed the ledger may be ahead of what this has read of its writer: ask again at rest.

    Example: lethe ledger verify
    """
    from infra.held import ledger_heads, ledger_lines
    from schemas.registry import RegistryDownError
    from stream_processors.ledger import verify as check

    settings = up_with_edition(Settings())
    try:
        lines = ledger_lines(settings)
        faults = check(lines, ledger_heads(settings))
    except KafkaException as e:
        away(e)
    except RegistryDownError as e:
        fail(str(e), EXIT_NOT_UP)
    if as_json:
        typer.echo(json.dumps({"lines": len(lines), "faults": faults}, indent=1))
    else:
        for fault in faults:
            typer.echo(fault)
        typer.echo(f"{len(lines)} lines, {len(faults)} faults")
    if faults:
        raise typer.Exit(EXIT_ERROR)
