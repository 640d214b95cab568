"""`lethe replay`: read again what was read, and say again what follows from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from confluent_kafka import KafkaException
from rich.console import Console

from infra.commands.options import AsJson, By, Execute, Reason, away, moment_ms, shown_seconds, up_with_edition
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, EXIT_USAGE, fail
from infra.settings import Settings
from infra.tables import listing

if TYPE_CHECKING:
    from infra.replay.groups import Groups
    from infra.replay.plan import At, Span


def replay(
    target: Annotated[str, typer.Argument(metavar="PROCESSOR|TOPIC", help="A topic: every processor that reads it.")],
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="All of it.")] = False,
    to_datetime: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="What came since: 2026-03-01T12:00 (UTC).", show_default=False)
    ] = None,
    by_duration: Annotated[
        str | None, typer.Option(metavar="DURATION", help="What came since so long ago: 2h, 7d.", show_default=False)
    ] = None,
    to_offset: Annotated[int | None, typer.Option(min=0, help="From that offset on.", show_default=False)] = None,
    from_file: Annotated[
        Path | None, typer.Option(metavar="CSV", help="From the offsets that --export wrote.", show_default=False)
    ] = None,
    partitions: Annotated[
        str | None, typer.Option(metavar="LIST", help="Only these, such as 0,2; by default all.", show_default=False)
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Write the offsets to a file; change nothing.", show_default=False),
    ] = None,
    reason: Reason = None,
    by: By = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Have a processor read its inputs again and say again all that follows, whether it was said before or not.

    Stop the processor first, start it afterwards: it takes up the replay, and goes on with it if it is killed. What
    comes out at rest is what was there, and what had been lost; who was deleted stays deleted. Previews without
    --execute.

    Example: lethe replay join --from-beginning

    Example: lethe replay pseudonymise --by-duration 2h --reason "a postcode directory was wrong" --execute
    """
    from infra.operation import Operation, OperationLog, now_ms, whoever
    from infra.replay.groups import Groups
    from infra.replay.plan import ReplayError, chosen, planned, to_csv
    from schemas.registry import Registry, RegistryDownError, SchemaNotRegisteredError

    ways = [
        from_beginning,
        to_datetime is not None,
        by_duration is not None,
        to_offset is not None,
        from_file is not None,
    ]
    if sum(ways) != 1:
        fail(
            "say from where: one of --from-beginning, --to-datetime, --by-duration, --to-offset, --from-file",
            EXIT_USAGE,
        )
    if execute and not (reason or "").strip():
        fail("replay --execute needs a --reason", EXIT_USAGE)
    numbers = _numbers(partitions)
    moment = moment_ms("--to-datetime", to_datetime) if to_datetime else moment_ms("--by-duration", by_duration)
    settings = up_with_edition(Settings()).acting_as("admin")  # offsets of another principal's group
    groups = None
    try:
        groups = Groups(settings)
        topics = groups.topics()
        found = chosen(target, topics)
        spans = [
            s for d, _ in found for s in groups.spans(d, [t for t in topics if _reads(d.reads, t)], settings.partitions)
        ]
        if not spans:
            fail(f"{target}: nothing has been read yet, so there is nothing to read again", EXIT_ERROR)
        start = _start(groups, spans, moment, to_offset, from_file)
        plan = planned(spans, {d.name: about for d, about in found}, numbers, start)
        if export is None and not any(s.again for s in plan):
            where = "from there on" if to_offset is None else f"beyond {to_offset}"
            raise ReplayError(f"nothing was committed {where}, so there is nothing to read again")
        rows = [_row(settings, d.name, [s for s in plan if s.at.processor == d.name]) for d, _ in found]
        if export is not None:
            export.write_text(to_csv(plan))
        live = {d.name: n for d, _ in found if (n := groups.members(d.name))}
        operation = None
        if execute:
            if live:
                fail(_alive(live, settings), EXIT_ERROR)
            log = OperationLog(settings, Registry(settings.registry, deadline_seconds=10))
            what = {"target": target, "from": {"|".join(map(str, s.at)): s.since for s in plan if s.named}}
            operation = Operation("replay", by or whoever(), reason, what, now_ms())
            log.write(operation)
            for d, _ in found:
                mine = [s for s in plan if s.at.processor == d.name]
                if mine:
                    groups.reset(d.name, mine)
            log.write(operation.now(now_ms(), state="done", done=sum(s.again for s in plan)))
    except ReplayError as e:
        fail(str(e), e.code)
    except KafkaException as e:
        away(e)
    except RegistryDownError as e:
        fail(f"{e}: `lethe up` brings it up", EXIT_NOT_UP)
    except SchemaNotRegisteredError as e:
        fail(f"{e}: `lethe provision`", EXIT_ERROR)
    finally:
        if groups is not None:
            groups.close()
    if as_json:
        id_ = operation.operation_id if operation else None
        typer.echo(json.dumps({"executed": execute, "operation": id_, "live": live, "processors": rows}, indent=1))
        return
    _print(rows)
    if execute:
        typer.echo(f"start again what is to read: lethe run {' '.join(d.name for d, _ in found)}")
        return
    if live:
        typer.echo(f"before --execute: {_alive(live, settings)}", err=True)
    typer.echo("nothing was changed: repeat with --execute and --reason", err=True)


def _reads(patterns: tuple[str, ...], topic: str) -> bool:
    from stream_processors.runtime.kafka import matches

    return matches(patterns, topic)


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [p.strip() for p in text.split(",")]
    if not all(p.isdecimal() for p in parts):
        fail("--partitions must be numbers with commas between, such as 0,2", EXIT_USAGE)
    return [int(p) for p in parts]


def _start(
    groups: Groups, spans: Sequence[Span], moment: int | None, offset: int | None, file: Path | None
) -> Callable[[Span], int]:
    from infra.replay.plan import ReplayError, from_csv

    if moment is not None:
        times: dict[At, int] = groups.at_time(spans, moment)
        return lambda s: times[s.at]
    if offset is not None:
        return lambda s: min(offset, s.committed)  # of a shorter log, nothing is read again
    if file is None:
        return lambda _: 0
    try:
        wanted = from_csv(file.read_text())
    except (OSError, UnicodeDecodeError) as e:
        fail(f"{file}: cannot be read ({type(e).__name__})", EXIT_ERROR)
    except ReplayError as e:
        fail(f"{file}: {e}", EXIT_ERROR)
    return lambda s: wanted.get(s.at, s.committed)


def _alive(live: dict[str, int], settings: Settings) -> str:
    names = ", ".join(f"{name} ({n} of it)" for name, n in live.items())
    seconds = settings.session_timeout_ms // 1000
    return f"stop first what is running: {names}; one that was killed counts as running for {seconds} s"


def _row(settings: Settings, name: str, spans: Sequence[Span]) -> dict[str, Any]:
    """What a replay of one processor would do, and how long that would take."""
    from stream_processors.topology import declaration

    again = sum(s.again for s in spans)
    keeps = not declaration(name).stateless
    read = sum(s.committed - s.low for s in spans) if keeps and again else again
    rate = _rate(settings, name, spans) if again else None
    return {
        "processor": name,
        "again": again,
        "read": read,
        "per_second": round(rate) if rate else None,
        "seconds": round(read / rate, 1) if rate else None,
        "from": [
            {"topic": s.at.topic, "partition": s.at.partition, "since": s.since, "until": s.committed}
            for s in spans
            if s.named
        ],
    }


def _rate(settings: Settings, name: str, spans: Sequence[Span]) -> float | None:
    """Measured; None where this user may not read the key that the processor works with."""
    from infra.catalogue import configured_catalogue
    from infra.keys import KeyFileError, read_key, research_key, token_key
    from infra.policy import configured_policy
    from infra.replay.estimate import records_per_second
    from schemas.registry import Registry
    from stream_processors.edition import Edition, EditionSchemas
    from stream_processors.topology import Context, build

    context = Context.default(
        lambda: read_key(token_key(settings)),
        lambda: read_key(research_key(settings)),
        EditionSchemas(Registry(settings.registry, deadline_seconds=10), Edition(settings.edition)),
        settings.partitions,
        settings.postcodes,
        settings.k_anonymity,
        configured_catalogue(settings),
        configured_policy(settings),
    )
    try:
        return records_per_second(settings, build(name, context), spans)
    except KeyFileError:
        return None


def _print(rows: Sequence[dict[str, Any]]) -> None:
    table = listing("processor", "topic", "partition", "from", "to", "offsets", numbers_from=2)
    for row in rows:
        for s in row["from"]:
            if s["until"] > s["since"]:
                where = (
                    s["topic"],
                    str(s["partition"]),
                    str(s["since"]),
                    str(s["until"]),
                    str(s["until"] - s["since"]),
                )
                table.add_row(row["processor"], *where)
    Console().print(table)
    for row in rows:
        takes = "time unknown: its key cannot be read here"
        if row["seconds"] is not None:
            takes = f"{shown_seconds(row['seconds'])} at {row['per_second']} a second measured, and the writing besides"
        elif not row["again"]:
            takes = "no time"
        rebuild = f", {row['read']} read to rebuild its state" if row["read"] > row["again"] else ""
        typer.echo(f"{row['processor']}: {row['again']} offsets again{rebuild}; {takes}")
