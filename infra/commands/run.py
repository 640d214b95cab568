"""`lethe run PROCESSOR...`: one processor in this process, or several in a process each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Annotated

import structlog
import typer

from infra.errors import EXIT_ERROR, fail
from infra.logs import configure
from infra.settings import Settings

_log = structlog.get_logger()


def run(
    processors: Annotated[list[str], typer.Argument(help="pseudonymise, route, link, join, publish, or all.")],
    instance: Annotated[int | None, typer.Option(help="Instance number; by default the lowest free one.")] = None,
) -> None:
    """Run processors until SIGTERM or Ctrl-C: the batch in hand is committed, then they stop.

    More instances of one processor share its partitions. Several processors run in a process each; if one of them
    fails,
    the others are drained and the command ends with its exit code.

    Example: lethe run all
    """
    from infra.worker import work
    from stream_processors.topology import NAMES, TopologyError, validate

    configure()
    names = list(NAMES) if processors == ["all"] else processors
    unknown = [n for n in names if n not in NAMES]
    if unknown:
        fail(f"no such processor: {', '.join(unknown)}; there are {', '.join(NAMES)}", 2)
    try:
        validate()
    except TopologyError as e:
        fail(str(e), EXIT_ERROR)
    if len(names) == 1:
        work(names[0], Settings(), instance)
    else:
        raise typer.Exit(supervise(names))


def supervise(names: list[str]) -> int:
    """A process for each processor; SIGTERM and SIGINT are passed on. Returns the first exit code that is not 0."""
    children = {subprocess.Popen([sys.executable, "-m", "infra.worker", name]): name for name in names}
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for child in children:
            if child.poll() is None:
                child.terminate()

    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, stop)
    worst = 0
    remaining = set(children)
    while remaining:
        pid, status = os.wait()
        child = next((c for c in remaining if c.pid == pid), None)
        if child is None:
            continue
        remaining.discard(child)
        child.returncode = code = os.waitstatus_to_exitcode(status)
        if code:
            worst = worst or (code if code > 0 else 1)
            _log.error("processor_ended", processor=children[child], exit_code=code)
        if code and not stopping:
            stop()
    return worst
