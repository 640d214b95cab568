"""Real worker processes for the tests: started, killed, suspended, and watched until the flow is at rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.keys import export_enquiry_key, init_keys, read_key, research_key, token_key
from infra.rest import Flow
from infra.settings import Settings
from stream_processors.topology import NAMES
from tests.integration.forked import Forked


class Workers:
    """Processes by name; `join` and `join#2` are two instances of one processor."""

    def __init__(self, settings: Settings, logs: Path, code: Path | None = None) -> None:
        """`code`: a checkout of another version to run; by default this one."""
        self.settings, self._code = settings, code
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes] | Forked] = {}
        self.starts = 0
        init_keys(settings)
        logs.mkdir(parents=True, exist_ok=True)

    @property
    def keys(self) -> tuple[bytes, bytes]:
        """Token key and research key."""
        return read_key(token_key(self.settings)), read_key(research_key(self.settings))

    def start(self, name: str, kill_at: str = "") -> None:
        """Start a worker; `kill_at` names a point around the commit at which it kills itself."""
        env = {
            **os.environ,
            **self.settings.environment(),
            "POLARS_MAX_THREADS": "1",
            "LETHE_KILL_AT": kill_at,
        }
        processor, log = name.partition("#")[0], self._logs / f"{name}.log"
        if self._code is None:
            self._running[name] = Forked(processor, env, log)
        else:
            command = [sys.executable, "-m", "infra.worker", processor]
            env["PYTHONPATH"] = str(self._code)
            with log.open("ab") as out:
                self._running[name] = subprocess.Popen(command, env=env, stdout=out, stderr=out, cwd=self._code)
        self.starts += 1

    def enable_control(self) -> None:
        """Make what the control plane needs to start."""
        export_enquiry_key(self.settings)

    def start_all(self) -> None:
        """One worker of each processor."""
        for name in NAMES:
            self.start(name)

    def signal(self, name: str, sign: int) -> None:
        """Send a signal."""
        self._running[name].send_signal(sign)

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        self._running[name].kill()
        self._running.pop(name).wait()

    def stop(self, name: str, seconds: float = 60) -> int:
        """SIGTERM; returns the exit code."""
        process = self._running.pop(name)
        process.terminate()
        return process.wait(seconds)

    def wait_exit(self, name: str, seconds: float) -> int:
        """Wait until a worker ends by itself; returns the exit code."""
        return self._running.pop(name).wait(seconds)

    def pid(self, name: str) -> int:
        """Process id."""
        return self._running[name].pid

    def alive(self, name: str) -> bool:
        """Whether it runs."""
        return name in self._running and self._running[name].poll() is None

    def running(self) -> list[str]:
        """Names of those that were started and not ended by the test."""
        return list(self._running)

    def log(self, name: str) -> str:
        """What it has logged."""
        return (self._logs / f"{name}.log").read_text()

    def at_rest(self, seconds: float = 300, only: Iterable[str] | None = None) -> None:
        """Wait until every processor has taken in everything; starts those anew that have died."""

        def revive(_: set[str]) -> None:
            for name, process in list(self._running.items()):
                if only is None and process.poll() is not None:
                    self.start(name)

        flow = Flow(self.settings)
        try:
            flow.wait(seconds, revive)
        finally:
            flow.close()

    def wait_for_log(self, name: str, text: str, seconds: float = 180) -> None:
        """Wait until a worker logs something."""
        deadline = time.monotonic() + seconds
        while text not in self.log(name):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} did not log {text}")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
