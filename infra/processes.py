"""Processors in processes of their own, for a command that brings its own: a demo, an evaluation, the destruction."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.settings import Settings


@contextmanager
def processors(
    settings: Settings, names: Sequence[str], log: Path, grace_s: float = 60
) -> Iterator[subprocess.Popen[bytes]]:
    """What watches them, as `lethe run` does, for as long as the block lasts; what they print is added to `log`.

    At the end they commit the batch in hand. What has not ended after `grace_s` seconds is killed.
    """
    env = {**os.environ, **settings.environment(), "POLARS_MAX_THREADS": "1"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        workers = subprocess.Popen([sys.executable, "-m", "infra.worker", *names], env=env, stdout=out, stderr=out)
    try:
        yield workers
    finally:
        workers.terminate()
        try:
            workers.wait(grace_s)
        except subprocess.TimeoutExpired:
            workers.kill()
            workers.wait()
