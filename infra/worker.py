"""One worker in one process: `python -m infra.worker PROCESSOR [INSTANCE]`, or `lethe run PROCESSOR`."""

from __future__ import annotations

import os
import signal
import sys

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # workers share the cores; before polars is first imported

from infra.errors import EXIT_ERROR, fail
from infra.keys import KeyFileError, read_key, research_key, token_key
from infra.logs import configure
from infra.settings import Settings
from schemas.classification import UnclassifiedFieldError
from schemas.registry import Registry, SchemaDriftError, SchemaNotRegisteredError
from stream_processors.checks import check_schemas
from stream_processors.runtime.faults import Faults
from stream_processors.runtime.instance import Instance, NoInstanceError
from stream_processors.runtime.worker import Worker
from stream_processors.topology import Context, build, declaration, validate


def work(name: str, settings: Settings, number: int | None = None) -> None:
    """Run one processor in this process, until it is told to stop.

    Exits 1 with advice if a key file, the topology or the registered schemas forbid a start.
    """
    configure()
    validate()
    registry = Registry(settings.registry)
    try:
        check_schemas(declaration(name), registry)
        context = Context.default(
            lambda: read_key(token_key(settings)),
            lambda: read_key(research_key(settings)),
            registry,
            settings.partitions,
        )
        processor = build(name, context)
        with Instance.claim(settings.state, name, number) as mine:
            faults = Faults.parse(os.environ.get("LETHE_KILL_AT", ""))
            worker = Worker(processor, settings, mine, faults=faults)
            for sign in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sign, lambda *_: worker.stop())
            worker.run()
    except (KeyFileError, SchemaDriftError, SchemaNotRegisteredError, UnclassifiedFieldError, NoInstanceError) as e:
        fail(f"{name}: {e}", EXIT_ERROR)


if __name__ == "__main__":
    try:
        work(sys.argv[1], Settings(), int(sys.argv[2]) if len(sys.argv) > 2 else None)
    except SystemExit:
        raise
    except Exception as e:
        # typer's exit carries a code; anything else ends as itself
        code = getattr(e, "exit_code", None)
        if code is None:
            raise
        sys.exit(code)
