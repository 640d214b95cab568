"""Workers that start from one process in which everything is imported: what takes a second of processor time happens
once for all the kills and starts of a run, not at each. Each is a process of its own, to be killed as any other.

`lethe run` starts a Python of its own for each processor, since Rust and C++ libraries advise against forks; here none
of them has done anything before the fork. The tests that start `lethe run` see to the other way.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import typer

from infra import control  # noqa: F401  # imported where the control plane runs; here beforehand
from infra.logs import configure, scrub_exceptions
from infra.settings import Settings
from infra.worker import work
from stream_processors.arrow import leave_pandas_out

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload([__name__])


class Forked:
    """One worker's process, with as much of `subprocess.Popen` as tests ask for."""

    def __init__(self, name: str, env: Mapping[str, str], log: Path) -> None:
        log.touch()  # it may be read before the worker has begun
        self._process: ForkServerProcess = _server.Process(target=_run, args=(name, dict(env), str(log)))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code; below zero the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        """The exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not after that time.
        """
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(f"worker {self.pid}", seconds or 0)
        return code

    def send_signal(self, sign: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sign)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


def _run(name: str, env: dict[str, str], log: str) -> None:
    """As `python -m infra.worker NAME` does."""
    os.environ.clear()
    os.environ.update(env)
    with Path(log).open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    configure()
    scrub_exceptions()
    leave_pandas_out()
    try:
        work(name, Settings())
    except typer.Exit as e:
        sys.exit(e.exit_code)
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
