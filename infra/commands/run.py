"""`lethe run PROCESSOR...`: one processor in this process, or several in a process each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from infra.errors import EXIT_ERROR, fail
from infra.logs import configure
from infra.settings import Settings


def run(
    processors: Annotated[
        list[str],
        typer.Argument(
            help="pseudonymise, route, link, join, publish, retention (both of its halves), control, or all."
        ),
    ],
    instance: Annotated[int | None, typer.Option(help="Instance number; by default the lowest free one.")] = None,
) -> None:
    """Run processors until SIGTERM or Ctrl-C: the batch in hand is committed, then they stop.

    More instances of one processor share its partitions. Several processors run in a process each; if one of them
    fails,
    the others are drained and the command ends with its exit code.

    Example: lethe run all
    """
    from infra.worker import CONTROL, supervise, work
    from stream_processors.topology import NAMES, TopologyError, validate

    configure()
    known = [*NAMES, CONTROL]
    names = known if processors == ["all"] else _halved(processors)
    unknown = [n for n in names if n not in known]
    if unknown:
        fail(f"no such processor: {', '.join(unknown)}; there are {', '.join(known)}", 2)
    try:
        validate()
    except TopologyError as e:
        fail(str(e), EXIT_ERROR)
    if len(names) == 1:
        work(names[0], Settings(), instance)
    else:
        raise typer.Exit(supervise(names))


def _halved(processors: Sequence[str]) -> list[str]:
    """`retention` stands for both of its halves."""
    halves = ["retention.identity", "retention.activity"]
    return [name for p in processors for name in (halves if p == "retention" else [p])]
