"""`lethe compare`, `lethe rollout ls|switch|retire`: another edition beside the one in use, and in its place."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from infra.commands.options import AsJson, By, Execute, Reason, asking, up
from infra.errors import EXIT_ERROR, EXIT_USAGE, fail
from infra.settings import Settings
from infra.tables import listing

if TYPE_CHECKING:
    from infra.rollout.compare import Count
    from stream_processors.edition import Edition

rollout_app = typer.Typer(help="Editions: the flow beside itself, under another name.", no_args_is_help=True)

_PLAIN = "plain"


def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="An edition: its name, or plain.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another.")],
    as_json: AsJson = False,
) -> None:
    """Compare two editions in counts: who would change, records by dataset, match rates by group, links by match key.

    Both should be at rest. Exits 0 whether they differ or not.

    Example: lethe compare plain v2
    """
    from infra.rollout import compare as module
    from schemas.registry import Registry

    settings = up(Settings()).acting_as("admin")  # nobody else reads both zones
    editions = [_edition(old), _edition(new)]
    with asking():
        behind = _behind(settings, editions)
        registry = Registry(settings.registry, deadline_seconds=10)
        try:
            persons = [module.persons_of(settings, e, registry) for e in editions]
            links = [module.links_of(settings, e, registry) for e in editions]
        except module.CompareError as e:
            fail(str(e), EXIT_ERROR)
    found = module.compare(*persons, *links)
    if as_json:
        document: dict[str, Any] = {
            "old": old,
            "new": new,
            "alike": found.alike,
            "behind": behind,
            "persons": found.persons,
            **{n: [vars(c) for c in getattr(found, n)] for n in ("records", "match_rate", "links")},
            "moves": found.moves,
        }
        typer.echo(json.dumps(document, indent=1))
        return
    if behind:
        typer.echo(f"not at rest: {', '.join(behind)} are behind, so the counts will still change", err=True)
    typer.echo("persons: " + ", ".join(f"{n} {what}" for what, n in found.persons.items()))
    typer.echo("departments' subjects: " + (", ".join(f"{n} {what}" for what, n in found.moves.items()) or "none"))
    _print("records", found.records, old, new)
    _print("links", found.links, old, new)
    _print("persons with", found.match_rate, old, new)


@rollout_app.command("ls")
def list_(as_json: AsJson = False) -> None:
    """List the editions that have topics, and which was switched to.

    Example: lethe rollout ls
    """
    from infra.editions import topics as all_topics
    from stream_processors.edition import editions_of

    settings = up(Settings()).acting_as("admin")
    with asking():
        topics = list(all_topics(settings))
        used = _in_use(settings)
        rows = [
            {"edition": e.named(), "in_use": e == used, "topics": sum(e.holds(t) for t in topics)}
            for e in editions_of(topics)
        ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['edition']}: {row['topics']} topics" + (", in use" if row["in_use"] else ""))


@rollout_app.command()
def switch(
    name: Annotated[str, typer.Argument(metavar="EDITION", help="The edition to use from now on, or plain.")],
    reason: Reason = None,
    by: By = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Say which edition is in use from now on: enclaves follow it with their next sync. Refused while it is behind.

    The sync builds its file anew: the topic is another. Start the control plane with LETHE_EDITION set. It is audited.

    Example: lethe rollout switch v2 --reason "catalogue 7" --execute
    """
    from infra.editions import topics as all_topics
    from infra.editions import use
    from infra.operation import Operation, OperationLog, now_ms, whoever
    from schemas.registry import Registry

    settings, edition = up(Settings()).acting_as("admin"), _edition(name)
    _need_reason(execute, reason)
    with asking():
        if not any(edition.holds(t) for t in all_topics(settings)):
            fail(f"{name} has no topics; `LETHE_EDITION={name} lethe provision` makes them", EXIT_ERROR)
        if behind := _behind(settings, [edition]):
            fail(f"{name} is not at rest: {', '.join(behind)} are behind; let them catch up", EXIT_ERROR)
        was = _in_use(settings)
        if execute:
            what = {"edition": edition.name, "was": was.name}
            registry = Registry(settings.registry, deadline_seconds=10)
            log, now = OperationLog(settings, registry), now_ms()
            operation = Operation("rollout_switch", by or whoever(), reason, what, now)
            log.write(operation)
            use(settings, edition, registry, now)
            log.write(operation.now(now_ms(), state="done"))
    if as_json:
        typer.echo(json.dumps({"executed": execute, "was": was.named(), "now": edition.named()}))
    else:
        typer.echo(f"{was.named()} -> {edition.named()}")
        typer.echo(f"enclaves follow with their next sync; then: LETHE_EDITION={edition.name} lethe run control")
    _say_preview(execute)


@rollout_app.command()
def retire(
    name: Annotated[str, typer.Argument(metavar="EDITION", help="The edition that is no longer in use, or plain.")],
    reason: Reason = None,
    by: By = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Remove an edition's topics, groups and state on this machine. Its ledger stays: it says what was destroyed.

    Refused while it is in use, or while a processor of it runs. Previews without --execute.

    Example: lethe rollout retire plain --reason "v2 is in use" --execute
    """
    from infra.operation import Operation, OperationLog, now_ms, whoever
    from infra.provision import without
    from infra.rollout.retire import Retirement
    from schemas.registry import Registry

    settings, edition = up(Settings()).acting_as("admin"), _edition(name)
    _need_reason(execute, reason)
    with asking():
        retirement = Retirement(settings, edition)
        found = retirement.remains()
        if not found.topics and not found.groups:
            fail(f"{name}: no such edition; `lethe rollout ls` lists them", EXIT_ERROR)
        if _in_use(settings) == edition:
            fail(f"{name} is in use; first `lethe rollout switch` to another", EXIT_ERROR)
        if found.live:
            fail(f"stop first what is running of it: {', '.join(found.live)}", EXIT_ERROR)
        if execute:
            log = OperationLog(settings, Registry(settings.registry, deadline_seconds=10))
            operation = Operation(
                "rollout_retire", by or whoever(), reason, {"edition": edition.name, "topics": found.topics}, now_ms()
            )
            log.write(operation)
            retirement.remove(found)
            without(settings, edition)
            log.write(operation.now(now_ms(), state="done", done=len(found.topics)))
    if as_json:
        state = [str(path) for path in found.state]
        document = {"executed": execute, "topics": found.topics, "groups": found.groups, "state": state}
        typer.echo(json.dumps(document, indent=1))
    else:
        verb = "removed" if execute else "would be removed"
        for topic in found.topics:
            typer.echo(topic)
        typer.echo(f"{len(found.topics)} topics, {len(found.groups)} groups{', state' if found.state else ''} {verb}")
    _say_preview(execute)


def _edition(name: str) -> Edition:
    from stream_processors.edition import NAME, Edition

    if name == _PLAIN:
        return Edition()
    if re.fullmatch(NAME, name) is None:
        fail(f"{name} cannot be an edition: at most 12 small letters and digits, or plain", EXIT_USAGE)
    return Edition(name)


def _in_use(settings: Settings) -> Edition:
    from infra.editions import in_use
    from schemas.registry import Registry

    return in_use(settings, Registry(settings.registry, deadline_seconds=10))


def _behind(settings: Settings, editions: Sequence[Edition]) -> list[str]:
    from infra.rest import Flow

    out = []
    for edition in editions:
        flow = Flow(settings.model_copy(update={"edition": edition.name}))
        try:
            out += [f"{name} ({edition.named()})" for name in sorted(flow.behind())]
        finally:
            flow.close()
    return out


def _need_reason(execute: bool, reason: str | None) -> None:
    if execute and not (reason or "").strip():
        fail("--execute needs a --reason", EXIT_USAGE)


def _say_preview(execute: bool) -> None:
    if not execute:
        typer.echo("nothing was changed: repeat with --execute and --reason", err=True)


def _print(title: str, counts: Sequence[Count], old: str, new: str) -> None:
    if not counts:
        return
    table = listing(title, old, new, "difference", numbers_from=1)
    for c in counts:
        whole = float(c.old).is_integer() and float(c.new).is_integer()
        cells = [f"{n:.0f}" if whole else f"{n:.4f}" for n in (c.old, c.new, c.new - c.old)]
        table.add_row(c.what, *cells)
    Console().print(table)
