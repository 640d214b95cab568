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


def work(name: str, settings: Settings, number: int | None = None) -> None:
    """Run one processor in this process, until it is told to stop.

    Exits 1 with advice if a key file, the topology or the registered schemas forbid a start.
    """
    configure()
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # several processors share the cores; before polars is imported
    from infra.keys import KeyFileError, read_key
    from schemas.classification import UnclassifiedFieldError
    from schemas.registry import Registry, SchemaDriftError, SchemaNotRegisteredError
    from stream_processors.checks import check_schemas
    from stream_processors.runtime.faults import Faults
    from stream_processors.runtime.instance import Instance, NoInstanceError
    from stream_processors.runtime.worker import Worker
    from stream_processors.topology import Context, build, declaration

    registry = Registry(settings.registry)
    try:
        check_schemas(declaration(name), registry)
        context = Context.default(
            lambda: read_key(settings.keys / "token.key"),
            lambda: read_key(settings.keys / "research.key"),
            registry,
            settings.partitions,
        )
        processor = build(name, context)
        with Instance.claim(settings.state, name, number) as mine:
            worker = Worker(processor, settings, mine, faults=Faults.parse(os.environ.get("LETHE_KILL_AT", "")))
            for sign in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sign, lambda *_: worker.stop())
            worker.run()
    except (
        KeyFileError,
        SchemaDriftError,
        SchemaNotRegisteredError,
        UnclassifiedFieldError,
        NoInstanceError,
    ) as e:
        fail(f"{name}: {e}", EXIT_ERROR)


def supervise(names: list[str]) -> int:
    """A process for each processor; SIGTERM and SIGINT are passed on. Returns the first exit code that is not 0."""
    children = {subprocess.Popen([sys.executable, "-m", "infra.cli", "run", name]): name for name in names}
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
