"""How a command ends when it cannot do what it was asked: one clear line on standard error, a stable exit code."""

from __future__ import annotations

import importlib.util
import signal
import sys
from typing import NoReturn

import typer

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_NOT_UP = 3
EXIT_REJECTED = 4
EXIT_PENDING = 5


def fail(message: str, code: int = EXIT_ERROR) -> NoReturn:
    """Print the message and end with the code."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


def need_enclave() -> None:
    """End the command if the libraries of the extra `enclave` are not installed; no processor needs them."""
    if importlib.util.find_spec("duckdb") is None:
        fail(
            "this needs the enclave's libraries, which are not installed; `pip install 'lethe[enclave]'` installs them"
        )


def end_tidily_on_sigterm() -> None:
    """Let SIGTERM end this process as an exception does, so that what it started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
