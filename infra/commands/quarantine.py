"""`lethe quarantine ls|show|requeue|drop`: what failed, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.commands.listing import print_rows
from infra.commands.options import (
    EXIT_INTERRUPTED,
    AsJson,
    By,
    Execute,
    Reason,
    asking,
    bar,
    moment_ms,
    stop_on_signal,
    up,
)
from infra.errors import EXIT_ERROR, EXIT_USAGE, fail
from infra.settings import Settings

if TYPE_CHECKING:
    from stream_processors.edition import Edition

quarantine_app = typer.Typer(help="Records that failed: look at them, put them back, drop them.", no_args_is_help=True)

Suppliers = Annotated[
    list[str] | None, typer.Option("--supplier", help="Of this supplier; may be given again.", show_default=False)
]
Datasets = Annotated[
    list[str] | None, typer.Option("--dataset", help="Of this dataset; may be given again.", show_default=False)
]
Errors = Annotated[
    list[str] | None,
    typer.Option("--error", help="Of this class, such as Undecodable; may be given again.", show_default=False),
]
Since = Annotated[
    str | None,
    typer.Option(help="Quarantined at that moment or later: 2026-03-01T12:00 (UTC), or 2h ago.", show_default=False),
]
Until = Annotated[str | None, typer.Option(help="Quarantined before that moment.", show_default=False)]
Editions = Annotated[
    list[str] | None,
    typer.Option(
        "--edition", help="As this edition has it, or plain; may be given again. By default all.", show_default=False
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(metavar="ID", help="Go on with an operation that was interrupted or killed.", show_default=False),
]

_WHY = {
    "superseded": "a newer record of the key has come, or the key was deleted",
    "wrong_partition": "they would fail again: the supplier has to publish them with Kafka's murmur2 partitioner",
    "no_place": "they do not say where they failed",
    "contended": "somebody wrote the key meanwhile; look again",
    "not_superseded": "they could still be put back",
}


_LATER = (
    "they are worked out anew from what stands behind them, so `requeue` and `drop` leave them. What they are: "
    "docs/operations.md, Quarantine"
)


def _settings() -> Settings:
    from stream_processors.access import QUARANTINE

    return up(Settings()).acting_as(QUARANTINE)


@quarantine_app.command("ls")
def list_(
    supplier: Suppliers = None,
    dataset: Datasets = None,
    error: Errors = None,
    since: Since = None,
    until: Until = None,
    edition: Editions = None,
    as_json: AsJson = False,
) -> None:
    """Count what is in quarantine, by supplier, dataset, class of error and field. No value, no key.

    And what failed further down the flow, by topic, such as a contribution that the guard refused.

    Example: lethe quarantine ls --supplier dfe --error OutOfDomain --since 7d
    """
    import polars as pl

    from infra.quarantine.entries import counts
    from infra.quarantine.reader import Reader
    from infra.quarantine.refused import refused
    from infra.quarantine.work import quarantines, scan
    from schemas.registry import Registry

    meant = _filter(supplier, dataset, error, since, until, edition)
    found: list[pl.DataFrame] = []
    settings = _settings()
    with _asking(), bar() as on_progress, Reader(settings) as reader:
        for q in quarantines(reader.topics(), meant):
            for p in range(q.partitions):
                low, high = reader.ends(q.topic, p)
                rows = scan(reader, q.topic, p, low, high, _summed(on_progress, f"{q.name} {p}", high - low))
                mine = counts(meant.of(rows.latest()))
                found.append(mine.with_columns(supplier=pl.lit(q.supplier), edition=pl.lit(q.edition.named())))
        later = refused(settings, Registry(settings.registry, deadline_seconds=10), meant)
    if later:
        further = pl.DataFrame(later).rename({"bytes": "size"})
        found.append(counts(further, ("supplier", "edition", "dataset", "error", "field")).select(found[0].columns))
    by = ["supplier", "edition", "dataset", "error", "field"]
    rows_: list[dict[str, Any]] = []
    if found:
        rows_ = (
            pl.concat(found)
            .group_by(by)
            .agg(
                pl.col("records", "bytes").sum(),
                pl.col("attempts", "last_ms").max(),
                pl.col("first_ms").min(),
            )
            .sort(by)
            .to_dicts()
        )
    if as_json:
        typer.echo(json.dumps(rows_, indent=1))
        return
    if not rows_:
        typer.echo("nothing is in quarantine that fits")
        return
    columns = (*by, "records", "bytes", "attempts", "first_ms", "last_ms")
    several = len({r["edition"] for r in rows_}) > 1
    print_rows(rows_, [c for c in columns if c != "edition" or several])
    found_ = sum(r["records"] for r in rows_)
    typer.echo(f"{found_:,} record{'' if found_ == 1 else 's'}")
    if later:
        typer.echo(f"{len(later):,} of them are no supplier's: {_LATER}")


@quarantine_app.command()
def show(
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="[PLACE]", help="One entry, as <supplier>/<partition>/<offset>; of an edition <supplier>@v2/..."
        ),
    ] = None,
    supplier: Suppliers = None,
    dataset: Datasets = None,
    error: Errors = None,
    since: Since = None,
    until: Until = None,
    edition: Editions = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many, the latest.")] = 20,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show key and value of one entry; this is audited.")] = False,
    reason: Annotated[str | None, typer.Option(help="With --reveal: why.", show_default=False)] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Show single entries: where each lies, where its record lies, what failed. Its key and value only with --reveal.

    Example: lethe quarantine show --supplier dfe --error Undecodable --limit 5

    Example: lethe quarantine show dfe/0/17 --reveal --reason "the supplier asks" --by "A. Officer"
    """
    from infra.quarantine.refused import refused
    from infra.quarantine.show import entries, revealed
    from schemas.registry import Registry

    if reveal and (place is None or not (reason or "").strip()):
        fail("--reveal needs one PLACE, as <supplier>/<partition>/<offset>, and a --reason", EXIT_USAGE)
    at = _place(place) if place else None
    if at:
        supplier, edition = [at[0]], [at[1].named()]
    meant = _filter(supplier, dataset, error, since, until, edition)
    settings = _settings()
    with _asking():
        rows = entries(settings, meant, at, limit)
        if not at:
            rows += refused(settings, Registry(settings.registry, deadline_seconds=10), meant)
            rows = sorted(rows, key=lambda r: r["at_ms"])[-limit:]
        if at and not rows:
            fail(f"{place}: no entry lies there (any more)", EXIT_ERROR)
        if reveal and at:
            rows[0].update(revealed(settings, at, str(reason), by))  # audited before it is read
    if as_json:
        typer.echo(json.dumps(rows, indent=1, default=str))
        return
    if not rows:
        typer.echo("nothing is in quarantine that fits")
    elif reveal:
        for name, value in rows[0].items():
            typer.echo(f"{name:<14} {json.dumps(value, default=str) if isinstance(value, dict) else value}")
    else:
        print_rows(rows, ("place", "dataset", "error", "field", "record", "bytes", "attempts", "at_ms"))


@quarantine_app.command()
def requeue(
    supplier: Suppliers = None,
    dataset: Datasets = None,
    error: Errors = None,
    since: Since = None,
    until: Until = None,
    edition: Editions = None,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="At most so many records a second.", show_default=False)
    ] = None,
    reason: Reason = None,
    by: By = None,
    resume: Resume = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Put records back into the topics that they failed in, once what made them fail is put right.

    A record goes back only while it is the last word on its key. It is in quarantine or back, never both, whenever
    this is killed. Previews unless told to --execute; with --rate it takes its time.

    Example: lethe quarantine requeue --supplier dfe --dataset absence --error OutOfDomain --rate 500 --execute
    """
    meant = _filter(supplier, dataset, error, since, until, edition)
    _act("requeue", meant, reason, by, resume, execute, as_json, rate=rate)


@quarantine_app.command()
def drop(
    supplier: Suppliers = None,
    dataset: Datasets = None,
    error: Errors = None,
    since: Since = None,
    until: Until = None,
    edition: Editions = None,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Only those that a newer record, or a deletion, has overtaken.")
    ] = False,
    reason: Reason = None,
    by: By = None,
    resume: Resume = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Destroy records in quarantine, and the records that failed in their source topics. Previews without --execute.

    Example: lethe quarantine drop --supplier moj --error RecordTooLarge --reason "sent by mistake" --execute
    """
    if execute and not resume and not (reason or "").strip():
        fail("drop --execute needs a --reason", EXIT_USAGE)
    meant = _filter(supplier, dataset, error, since, until, edition)
    _act("drop", meant, reason, by, resume, execute, as_json, superseded=superseded)


def _act(
    act: str,
    meant: Any,
    reason: str | None,
    by: str | None,
    resume: str | None,
    execute: bool,
    as_json: bool,
    rate: float | None = None,
    superseded: bool = False,
) -> None:
    import os

    from infra.operation import Operation, OperationLog, now_ms, whoever
    from infra.quarantine.entries import Filter
    from infra.quarantine.work import InterruptedWorkError, Work
    from schemas.registry import Registry
    from stream_processors.runtime.faults import Faults

    settings = _settings()
    kind: Any = f"quarantine_{act}"
    log = OperationLog(settings, Registry(settings.registry, deadline_seconds=10))
    operation: Operation | None = None
    if resume:
        with asking():
            operation = log.find(resume)
        if operation is None or operation.kind != kind or operation.state == "done":
            fail(f"{resume}: no {act} of that id is to be gone on with; see `lethe operations`", EXIT_USAGE)
        what = dict(operation.what)
        rate, superseded = rate or what.pop("rate"), what.pop("superseded")
        was: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in what.items()}
        meant = Filter(**was)
    go_on = ""
    with bar() as on_progress, stop_on_signal() as stopping:
        faults = Faults.parse(os.environ.get("LETHE_KILL_AT", ""))
        more: dict[str, Any] = {"on_progress": on_progress, "stopping": stopping, "faults": faults}
        work = Work(settings, act, meant, rate=rate, superseded_only=superseded, **more)  # type: ignore[arg-type]
        try:
            if execute:
                what = {**vars(meant), "rate": rate, "superseded": superseded}
                operation = operation or Operation(kind, by or whoever(), reason, what, now_ms())
                go_on = f"; then go on with `lethe quarantine {act} --resume {operation.operation_id} --execute`"
                with _asking(go_on):
                    tally = work.execute(operation, log)
            else:
                with _asking():
                    tally = work.preview()
        except InterruptedWorkError:
            done = f"{work.tally.done} {_DONE[act]}" if execute else "nothing was changed"
            typer.echo(f"interrupted: {done}{go_on.replace('; then', '; nothing is half done:')}", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        found = {
            "executed": execute,
            act: tally.done,
            "also": tally.also,
            "left": tally.left,
            "by_dataset": tally.by_dataset,
        }
        typer.echo(
            json.dumps(found | {"operation": operation.operation_id if execute and operation else None}, indent=1)
        )
    else:
        verb = _DONE[act] if execute else f"would be {_DONE[act]}"
        by_dataset = ", ".join(f"{d}: {n}" for d, n in sorted(tally.by_dataset.items()))
        typer.echo(f"{tally.done} {verb}" + (f" ({by_dataset})" if by_dataset else ""))
        if tally.also:
            typer.echo(f"{tally.also} entries of the same records in other editions: they go with them")
        for why, n in sorted(tally.left.items()):
            typer.echo(f"{n} left as they are, {why}: {_WHY[why]}")
    if not execute:
        typer.echo("nothing was changed: repeat with --execute", err=True)


_DONE = {"requeue": "requeued", "drop": "dropped"}


def _filter(
    suppliers: Sequence[str] | None,
    datasets: Sequence[str] | None,
    errors: Sequence[str] | None,
    since: str | None,
    until: str | None,
    editions: Sequence[str] | None,
) -> Any:
    from infra.quarantine.entries import CLASSES, LATER, Filter
    from schemas.contracts import DATASETS

    there = sorted({d for of in DATASETS.values() for d in of})
    for what, asked, known in (("class", errors, (*CLASSES, *LATER)), ("dataset", datasets, there)):
        if lacking := sorted(set(asked or ()) - set(known)):
            fail(f"there is no {what} {', '.join(lacking)}; there are {', '.join(known)}", EXIT_USAGE)
    return Filter(
        tuple(suppliers or ()),
        tuple(datasets or ()),
        tuple(errors or ()),
        moment_ms("--since", since),
        moment_ms("--until", until),
        tuple(editions or ()),
    )


def _place(text: str) -> tuple[str, Edition, int, int]:
    from stream_processors.edition import edition_of

    name, *numbers = text.split("/")
    if len(numbers) != 2 or not all(n.isdecimal() for n in numbers):
        fail("PLACE must be <supplier>/<partition>/<offset>, as `lethe quarantine show` prints it", EXIT_USAGE)
    return *edition_of(name), int(numbers[0]), int(numbers[1])


@contextmanager
def _asking(go_on: str = "") -> Iterator[None]:
    """As `asking`; a supplier or an edition that has no quarantine is wrong usage."""
    from infra.quarantine.work import NothingMeantError

    try:
        with asking(go_on):
            yield
    except NothingMeantError as e:
        fail(str(e), EXIT_USAGE)


def _summed(on_progress: Callable[[str, int, int], None], what: str, of: int) -> Callable[[int], None]:
    passed = 0

    def seen(n: int) -> None:
        nonlocal passed
        passed += n
        on_progress(what, passed, of)

    return seen
