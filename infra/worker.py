"""Workers in processes of their own: `python -m infra.worker PROCESSOR...`, without the rest of the command."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
import typer

# Workers share the cores; polars reads this when it is imported, below.
os.environ.setdefault("POLARS_MAX_THREADS", str(max(1, (os.cpu_count() or 1) // max(1, len(sys.argv) - 1))))

from infra.catalogue import configured_catalogue
from infra.epochs import epochs, manifest_file
from infra.errors import EXIT_ERROR, fail
from infra.keys import KeyFileError, read_key, research_key, token_key
from infra.logs import configure, scrub_exceptions
from infra.monitoring.metrics import WorkerMetrics
from infra.monitoring.ports import metrics_port
from infra.monitoring.server import MonitoringServer
from infra.monitoring.traces import Several, Traces, tracer_of, wanted
from infra.policy import PolicyFileError, configured_policy
from infra.settings import Settings
from schemas import contracts
from schemas.classification import UnclassifiedFieldError
from schemas.registry import Registry, SchemaDriftError, SchemaIds, SchemaNotRegisteredError
from stream_processors.areas import DirectoryError
from stream_processors.arrow import leave_pandas_out
from stream_processors.checks import check_schemas
from stream_processors.edition import Edition, EditionSchemas
from stream_processors.runtime.account import TOPIC as ACCOUNTS
from stream_processors.runtime.faults import Faults
from stream_processors.runtime.instance import Instance, NoInstanceError
from stream_processors.runtime.observer import Observer
from stream_processors.runtime.state import StateFolderError
from stream_processors.runtime.worker import Worker
from stream_processors.topology import Context, build, declaration, validate

CONTROL = "control"  # runs as the processors do, and is none: Faust, and imported where it runs alone
_log = structlog.get_logger()
_REFUSED = (
    KeyFileError,
    PolicyFileError,
    SchemaDriftError,
    SchemaNotRegisteredError,
    UnclassifiedFieldError,
    DirectoryError,
    NoInstanceError,
)
_KEY_OF = {"pseudonymise": token_key, "publish": research_key}


def work(name: str, settings: Settings, number: int | None = None) -> None:
    """Run one processor in this process, until it is told to stop.

    Exits 1 with advice if a key file, the topology or the registered schemas forbid a start.
    """
    configure()
    validate()
    try:
        if name == CONTROL:
            from infra.control import work as control

            control(settings, number)
            return
        registry = EditionSchemas(Registry(settings.registry), Edition(settings.edition))
        if name in _KEY_OF:
            read_key(_KEY_OF[name](settings))  # before the wait for a registry: nobody waits for what is refused anyway
        policy = configured_policy(settings)
        try:
            catalogue = configured_catalogue(settings)
        except ValueError as e:
            fail(f"{name}: LETHE_MATCH_KEYS_OFF, LETHE_NEAR_WEIGHTS: {e}", EXIT_ERROR)
        check_schemas(declaration(name), registry)
        registry.check(ACCOUNTS, contracts.contract("governance/account"))
        context = Context.default(
            lambda: read_key(token_key(settings)),
            lambda: read_key(research_key(settings)),
            registry,
            settings.partitions,
            settings.postcodes,
            settings.k_anonymity,
            catalogue,
            policy,
            lambda: epochs(settings),
            ends_windows=not settings.edition if settings.ends_windows is None else settings.ends_windows,
        )
        with Instance.claim(settings.state, Edition(settings.edition).folder(name), number) as mine:
            faults = Faults.parse(os.environ.get("LETHE_KILL_AT", ""))
            metrics = WorkerMetrics(Edition(settings.edition).folder(name), mine.folder, settings.batch_records)
            observer = Several(metrics, Traces(tracer_of(name, mine.number))) if wanted() else metrics
            accounts = registry if settings.accounts else None
            with MonitoringServer(metrics, metrics_port(settings, name, mine.number), mine.folder):
                _run(name, context, settings, mine, faults, accounts, observer)
    except (*_REFUSED, StateFolderError) as e:
        fail(f"{name}: {e}", EXIT_ERROR)


def _run(
    name: str,
    context: Context,
    settings: Settings,
    mine: Instance,
    faults: Faults,
    accounts: SchemaIds | None,
    observer: Observer,
) -> None:
    """Until a signal. Who makes tokens is built anew when the key epochs change, and then reads everything again."""
    manifest = manifest_file(settings) if name == "pseudonymise" else None
    told = False
    running: list[Worker] = []
    began = _state_of(manifest)

    def stop(*_: object) -> None:
        nonlocal told
        told = True
        for worker in running:
            worker.stop()

    def look(_: int = 0) -> None:
        if _state_of(manifest) != began:
            running[0].stop()

    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, stop)
    while not told:
        began = _state_of(manifest)
        processor = build(name, context)
        running[:] = [
            Worker(
                processor,
                settings,
                mine,
                faults=faults,
                accounts=accounts,
                observer=observer,
                on_batch=look,
                on_idle=look,
            )
        ]
        if told:  # between the loop's question and now
            return
        running[0].run()
        if not told:
            _log.info("key_epochs_changed", processor=name)


def _state_of(path: Path | None) -> tuple[int, int] | None:
    """What differs when a file was replaced by another."""
    if path is None:
        return None
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """Nobody is left behind whom no command would stop: a processor may be killed at any point."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):  # Linux
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def supervise(names: Sequence[str]) -> int:
    """A process for each processor; they divide the cores. SIGTERM and SIGINT are passed on.

    If one ends by itself the others are drained. Returns the first exit code that is not 0 (1 for a process that a
    signal ended).
    """
    # Rust and C++ below share glibc's allocator: one arena for each of their threads would keep what all have freed.
    env = {"MALLOC_ARENA_MAX": "2", **os.environ}
    running = {
        subprocess.Popen([sys.executable, "-m", "infra.worker", name], env=env, preexec_fn=_end_with_parent): name
        for name in names
    }
    by_pid = {process.pid: process for process in running}
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for process in running:
            if process.returncode is None:
                os.kill(process.pid, signal.SIGTERM)

    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, stop)
    worst, first = 0, ""
    for _ in names:
        pid, status = os.wait()
        process = by_pid[pid]
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if code:
            worst = worst or (code if code > 0 else EXIT_ERROR)
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            if not stopping:
                first = f"error: {running[process]} ended by itself ({how}), so the others were stopped"
            _log.error("processor_ended", processor=running[process], exit_code=code)
        if not stopping:
            stop()
    if first:  # again at the end: what the others say as they stop has come after it
        typer.echo(f"{first}; what it said stands further up", err=True)
    return worst


if __name__ == "__main__":
    configure()
    scrub_exceptions()
    if len(sys.argv) > 2:
        sys.exit(supervise(sys.argv[1:]))
    leave_pandas_out()
    try:
        work(sys.argv[1], Settings())
    except typer.Exit as e:
        sys.exit(e.exit_code)
