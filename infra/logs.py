"""Structured logs: one JSON line per event on standard error, and only fields that are known to hold no personal
value."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

ALLOWED_FIELDS = frozenset(
    {
        "event", "level", "timestamp", "processor", "instance", "partition", "partitions", "topic", "offset", "records",
        "error", "retry_in_s", "lagged", "what", "supplier", "dataset", "file", "point", "seconds", "pid",
        "exit_code", "advice", "rule", "where", "port",
    }
)  # fmt: skip


def _only_allowed(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {k: (v if k in ALLOWED_FIELDS else "(withheld)") for k, v in event.items()}


def configure(*, readable: bool | None = None) -> None:
    """Set up structlog for this process; readable lines instead of JSON on a terminal."""
    if readable is None:
        readable = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            _only_allowed,
            structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Asked for at each line: whoever replaces standard error for a time (a progress bar, a test) may close its own.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def scrub_exceptions() -> None:
    """Log what ends this process, or a thread of it, by its type and the lines of code that it passed.

    Its message stays out: that of a library may repeat a value (a number that does not parse, a key that is missing).
    """

    def log(kind: type[BaseException], trace: TracebackType | None) -> None:
        frames = traceback.extract_tb(trace)
        where = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
        structlog.get_logger().error("crashed", error=kind.__name__, where=where)

    def process(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, value, trace)
        else:
            log(kind, trace)

    sys.excepthook = process
    threading.excepthook = lambda args: log(args.exc_type, args.exc_traceback)
