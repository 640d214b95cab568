"""`lethe up`, `lethe down`, `lethe status`: the local stack."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from infra.commands.options import AsJson, tell
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, fail
from infra.settings import Settings
from infra.tables import listing


@dataclass(frozen=True)
class DataFolder:
    """A directory below `settings.home` that holds data, and what it takes on disk."""

    name: str
    holds: str
    path: Path
    bytes: int


def data_folders(settings: Settings) -> list[DataFolder]:
    """Every directory of this installation that holds data, whether it exists yet or not.

    What a person could be found in is in these and in no other place, apart from files that suppliers delivered.
    """
    named = [
        ("broker log", "every topic", settings.broker_data),
        ("registry store", "schemas", settings.registry_data),
        ("state", "what processors remember", settings.state),
        ("rejects", "line and reason of rejected rows", settings.rejects),
        ("keys", "key files", settings.keys),
        ("taken", "digests of files taken in by --follow", settings.base / "taken"),
        ("destruction", "certificate and journal of `lethe destroy`", settings.base / "destruction"),
        ("demo", "synthetic, removed by the next demo", settings.base / "demo"),
    ]
    return [DataFolder(name, holds, path, _size(path)) for name, holds, path in named]


_STATES = {"foreign": "up, not started here", "elsewhere": "runs, but not where the settings say"}


def up(as_json: AsJson = False) -> None:
    """Start broker and registry on loopback, wait until they answer, create topics and register schemas.

    Safe to repeat. They run on after the command: stop them with `lethe down`.

    Example: lethe up
    """
    from infra.broker.cluster import Stack
    from infra.broker.fetch import StackError
    from infra.provision import provision

    settings = Settings()
    try:
        stack = Stack(settings)
        started = stack.up()
    except StackError as e:
        fail(str(e), EXIT_ERROR)
    running = stack.status()
    if not as_json:  # at once: what follows takes longer
        for process in running:
            state = "up" if started else "was up already"
            typer.echo(f"{process.name} {state}: port {process.port}, pid {process.pid}")
    try:
        done = provision(settings, on_wait=lambda message: typer.echo(message, err=True))
    except ConnectionError as e:
        fail(str(e), EXIT_NOT_UP)
    except RuntimeError as e:
        fail(str(e), EXIT_ERROR)
    tell(
        {
            "started": started,
            "processes": [{"name": p.name, "port": p.port, "pid": p.pid} for p in running],
            "security": settings.security,
            **done.as_json(),
        },
        [
            f"topics: {len(done.topics)}, {len(done.created)} of them new, {len(done.corrected)} corrected",
            f"schemas: {len(done.schema_ids)}",
            f"security: {settings.security}; {done.granted} grants made, {len(done.taken_back)} taken back",
        ],
        as_json,
    )


def down(as_json: AsJson = False) -> None:
    """Stop the broker and the registry that `lethe up` started, and nothing else. Data stays where it is.

    Example: lethe down
    """
    from infra.broker.cluster import Stack
    from infra.broker.fetch import StackError

    try:
        stopped = Stack(Settings()).down()
    except StackError as e:
        fail(str(e), EXIT_ERROR)
    tell({"stopped": bool(stopped)}, ["stopped" if stopped else "nothing was running"], as_json)


def status(
    as_json: AsJson = False,
) -> None:
    """Show every process of the stack and of the processors on this machine, and every directory that holds data.

    And of each topic the oldest deletion whose bytes may still be on the broker's disk, with the time that it has; null
    in --json where the broker was not started here, so that its disk is not looked at.

    Exits 3 if the stack is not up.

    Example: lethe status --json
    """
    from infra.broker.cluster import Stack
    from infra.broker.fetch import StackError
    from infra.monitoring.server import port_of
    from stream_processors.runtime.instance import folder_of, running

    settings = Settings()
    try:
        processes = Stack(settings).status()
    except StackError as e:
        fail(str(e), EXIT_ERROR)
    processors = running(settings.state)
    answers_at = {r: port_of(folder_of(settings.state, r.processor, r.number)) for r in processors}
    folders = data_folders(settings)
    is_up = all(p.answers for p in processes)
    # A broker that was not started here keeps its log where this command cannot look.
    looked_at = processes[0].state != "foreign"
    rows, unread = _deletions(settings, is_up) if looked_at else (None, None)
    if as_json:
        found: dict[str, Any] = {
            "up": is_up,
            "processes": [
                {"name": p.name, "pid": p.pid, "port": p.port, "state": p.state, "log": str(p.log)} for p in processes
            ],
            "processors": [
                {"name": r.processor, "instance": r.number, "pid": r.pid, "metrics_port": answers_at[r]}
                for r in processors
            ],
            "control_port": settings.control_port,
            "key_epochs": _key_epochs(settings),
            "deletions_on_disk": rows,
            "partitions_not_looked_at": unread,
            "directories": [{"name": f.name, "holds": f.holds, "path": str(f.path), "bytes": f.bytes} for f in folders],
        }
        typer.echo(json.dumps(found, indent=1))
    else:
        console = Console()
        table = listing("process", "state", "pid", "port", "log")
        for p in processes:
            state = _STATES.get(p.state, p.state)
            table.add_row(p.name, state, str(p.pid or "-"), str(p.port), str(p.log))
        for r in processors:
            port = str(answers_at[r] or "-")
            if r.processor == "control":
                port = f"{settings.control_port}, {port}"
            table.add_row(f"{r.processor} {r.number}", "running", str(r.pid), port, "its standard error")
        console.print(table)
        table = listing("directory", "holds", "on disk", "path")
        for f in folders:
            table.add_row(f.name, f.holds, _readable(f.bytes), str(f.path))
        console.print(table)
        table = listing("topic", "oldest deletion whose bytes may be on disk", "has to be gone within")
        for row in rows or ():
            bound = "-" if row["bound_s"] is None else f"{row['bound_s']:,} s"
            late = row["bound_s"] is not None and row["age_s"] > row["bound_s"]
            table.add_row(row["topic"], f"{row['age_s']:,} s ago", bound, style="bold red" if late else None)
        if rows:
            console.print(table)
        elif rows is not None:
            console.print("no deletion waits for the broker's cleaner")
        else:
            console.print("deletions whose bytes may be on disk: not looked at, the broker was not started here")
        if unread:
            console.print(f"{unread} partitions were not looked at")
    if not as_json and (epochs := _key_epochs(settings)) is not None:
        typer.echo(f"key epoch {epochs['leads']} leads ({epochs['stage']}; `lethe keys status` counts what is live)")
    if any(p.state == "elsewhere" for p in processes):
        said = ", ".join(f"the {p.name} on port {p.port}" for p in processes if p.state == "elsewhere")
        fail(
            f"the stack of this folder runs elsewhere ({said}) than LETHE_BOOTSTRAP and LETHE_REGISTRY say: "
            "set them as they were when it was started, or stop it with `lethe down`",
            EXIT_NOT_UP,
        )
    if not is_up:
        fail("the stack is not up: lethe up", EXIT_NOT_UP)


def _key_epochs(settings: Settings) -> dict[str, Any] | None:
    """Which key epoch leads, and how far a rotation is; None where there are no keys."""
    from infra.epochs import load
    from infra.keys import KeyFileError

    try:
        manifest = load(settings)
    except KeyFileError:
        return None
    return {"leads": manifest.leads, "stage": manifest.stage, "in_force": sorted(manifest.checks)}


def _deletions(settings: Settings, is_up: bool) -> tuple[list[dict[str, Any]], int]:
    """Deletions that wait for the local broker's cleaner, by topic, and how many partitions could not be looked at."""
    from confluent_kafka import KafkaException

    from infra.destruction.bounds import bounds
    from infra.destruction.waiting import deletions

    found = deletions(settings.broker_data)
    try:
        allowed = bounds(settings, [w.topic for w in found.waiting]) if is_up and found.waiting else {}
    except KafkaException:
        allowed = {}
    now = time.time_ns() // 1_000_000
    rows = [
        {
            "topic": w.topic,
            "partitions": w.partitions,
            "age_s": max(0, now - w.oldest_ms) // 1000,
            "bound_s": allowed[w.topic].value_ms // 1000 if w.topic in allowed else None,
        }
        for w in found.waiting
    ]
    return rows, found.unread


def _size(folder: Path) -> int:
    """Bytes on disk, in blocks: Kafka's indexes are sparse files."""
    return sum(_blocks(folder))


def _blocks(folder: Path) -> Iterator[int]:
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                yield Path(where, name).lstat().st_blocks * 512
            except FileNotFoundError:  # a segment that was deleted meanwhile
                continue


def _readable(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
