"""A large quarantine, a tenth of it put back by filter, the command killed half-way and gone on with: how long it
takes, how much memory it needs, and whether each record that was meant is back once.

    python -m infra.bench.quarantine [RECORDS]     a stack of its own; 1,000,000 by default
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

import polars as pl
from confluent_kafka import Message, Producer

from infra.bench.load import Loader, absences, send
from infra.broker.cluster import Stack, isolated
from infra.keys import init_keys
from infra.operation import OperationLog
from infra.provision import provision
from infra.settings import Settings
from infra.topic_table import messages
from schemas.registry import Registry
from stream_processors.access import ADMIN
from stream_processors.runtime.account import ATTEMPTS
from stream_processors.runtime.kafka import producer_config

_SOURCE, _QUARANTINE = "identified.dfe.absence", "identified.dfe.quarantine"
_MEANT = "OutOfDomain"
_SLICE = 50_000


def fill(settings: Settings, records: int) -> int:
    """Absences, and their entries as `pseudonymise` would have made them: each tenth of the class that is meant.
    Returns how many those are."""
    loader, producer = Loader(settings), Producer(producer_config(settings, "bench.quarantine"))
    places: dict[bytes, tuple[int, int]] = {}

    def told(_: object, m: Message) -> None:
        places[m.key() or b""] = (int(m.partition() or 0), int(m.offset() or 0))

    number = meant = 0
    for part in range(0, records, _SLICE):
        rows = absences(min(_SLICE, records - part), 5_000, seed=part)
        rows = rows.with_columns(record_id=pl.format("{}-{}", pl.lit(str(part)), "record_id"))
        places.clear()
        values: dict[bytes, bytes] = {}
        for topic, value, key, partition in loader.messages("dfe", "absence", rows):
            values[key.encode()] = value
            send(producer, topic, value, key.encode(), partition, on_delivery=told)
        producer.flush()
        for raw, value in values.items():
            error = _MEANT if number % 10 == 0 else "Undecodable"
            meant += error == _MEANT
            number += 1
            partition, offset = places[raw]
            said = {
                "__connect.errors.topic": _SOURCE,
                "__connect.errors.partition": str(partition),
                "__connect.errors.offset": str(offset),
                "__connect.errors.exception.class.name": error,
                "lethe.errors.field": "",
            }
            send(producer, _QUARANTINE, value, b"absence|" + raw, partition, headers=list(said.items()))
        producer.flush()
    return meant


def requeue(settings: Settings, *arguments: str, kill_after: int | None = None) -> tuple[float, float, int]:
    """The command in a process of its own: seconds, peak memory in MB, and its exit code. `kill_after`: SIGKILL once so
    many records are back."""
    command = [sys.executable, "-m", "infra.cli", "quarantine", "requeue", *arguments, "--execute", "--json"]
    began = time.monotonic()
    log = OperationLog(settings, Registry(settings.registry))
    running = subprocess.Popen(command, env={**os.environ, **settings.environment()}, stdout=subprocess.DEVNULL)
    peak = 0.0
    while running.poll() is None:
        try:
            status = Path(f"/proc/{running.pid}/status").read_text()
            found = re.search(r"VmHWM:\s+(\d+)", status)
            peak = max(peak, int(found[1]) / 1000 if found else 0.0)
        except OSError:
            pass
        if kill_after is not None and any(o.done >= kill_after for o in log.all()):
            running.send_signal(signal.SIGKILL)
            running.wait()
            break
        time.sleep(0.5)
    return time.monotonic() - began, peak, running.wait()


def main(records: int) -> None:
    """Fill, put back half, be killed, go on; prints the figures as JSON."""
    home = Path(mkdtemp(prefix="lethe-quarantine-"))
    settings = isolated(home).acting_as(ADMIN)
    try:
        with Stack(settings):
            provision(settings, suppliers=["dfe"])
            init_keys(settings)
            meant = fill(settings, records)
            which = ["--supplier", "dfe", "--error", _MEANT]
            killed = requeue(settings, *which, "--reason", "the bench", kill_after=meant // 2)
            last = OperationLog(settings, Registry(settings.registry)).all()[-1]
            resumed = requeue(settings, "--resume", last.operation_id)
            back = Counter(m.key() for m in messages(settings, _SOURCE) if ATTEMPTS in dict(m.headers() or ()))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(
        json.dumps(
            {
                "quarantined": records,
                "meant": meant,
                "back_when_killed": last.done,
                "killed": dict(zip(("seconds", "peak_mb", "exit_code"), killed, strict=True)),
                "resumed": dict(zip(("seconds", "peak_mb", "exit_code"), resumed, strict=True)),
                "back": len(back),
                "more_than_once": sum(n > 1 for n in back.values()),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(int((sys.argv[1:2] or ["1000000"])[0]))
