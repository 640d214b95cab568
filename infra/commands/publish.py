"""`lethe publish`: supplier files into the identified zone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from infra.errors import EXIT_ERROR, EXIT_NOT_UP, EXIT_REJECTED, fail
from infra.settings import Settings
from producers import readers
from producers.files import OnProgress, Sink, digest_of, publish_file
from producers.follow import Folder, Ledger
from producers.header import UnusableFileError
from producers.publisher import BrokerUnreachableError, DeliveryError, Publisher, TopicMissingError
from producers.totals import Totals
from schemas.codec import CodecError
from schemas.contracts import UnknownSupplierError, identified
from schemas.registry import (
    RegistryDownError,
    RegistryRefusedError,
    SchemaDriftError,
    SchemaNotRegisteredError,
)

_INTERRUPTED = 130  # as shells have it
_POLL_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_NOT_SET_UP = (TopicMissingError, SchemaNotRegisteredError, SchemaDriftError, RegistryRefusedError)
_AWAY = (BrokerUnreachableError, RegistryDownError, DeliveryError)


def publish(
    supplier: Annotated[str, typer.Argument(metavar="SUPPLIER", help="council-<code>, dfe, moj, dwp or health.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="person, or a kind of event.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="CSV, JSON Lines (.jsonl, .ndjson, .json) or Avro (.avro).",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Then keep taking files as they arrive in DIR, each once.", show_default=False
        ),
    ] = None,
    rejects: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where rejects files go (else LETHE_HOME/rejects).", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 4 if any row was rejected.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Control totals as JSON, a line for each file.")] = False,
    remove: Annotated[
        bool, typer.Option(help="Delete a file once the broker has all of it and nothing was rejected.")
    ] = False,
    as_of: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Dates after this day are bad (else today).", show_default=False),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="How long to wait for a stack that does not answer."),
    ] = 60,
) -> None:
    """Publish a supplier's files, row by row checked, and print the control totals.

    What is read is either published or rejected. Rejected rows are listed by line, field and reason, never by
    value, in <rejects>/<supplier>/<dataset>/<file>.<digest>.rejects.csv. A bad value in a field that may be
    missing is published as missing and counted as a warning. Publishing a file twice changes nothing.

    \b
    Examples:
      lethe publish council-northam person families.csv
      lethe publish moj offence 2024-*.csv --strict --json
      lethe publish dfe absence --follow /data/incoming/absence

    \b
    Exit codes:
      0  all files were taken
      1  a file cannot be used, or supplier, topic or schema is not there
      2  the command line is wrong
      3  the stack was not reachable, or never acknowledged all rows
      4  rows were rejected (with --strict)
    """
    console = Console(stderr=True)
    if not files and follow is None:
        raise typer.BadParameter("name a file, or a folder with --follow", param_hint="FILE")
    try:
        identified(supplier, dataset)
    except UnknownSupplierError as e:
        fail(str(e))
    settings = Settings()
    job = _Job(
        supplier,
        dataset,
        settings,
        rejects or settings.rejects,
        as_of.date() if as_of else None,
        as_json,
        remove,
        console,
        wait,
    )
    usable = job.usable(files or [])
    if follow is not None and not follow.is_dir():
        fail(f"{follow}: there is no such folder to follow")
    if usable or follow is not None:
        try:
            _run(job, usable, follow)
        except KeyboardInterrupt:
            console.print("stopped; files that were not finished can be published again", markup=False)
            raise typer.Exit(_INTERRUPTED if follow is None else 0) from None
    if job.unusable:
        raise typer.Exit(EXIT_ERROR)
    if strict and job.rejected:
        raise typer.Exit(EXIT_REJECTED)


def _run(job: _Job, usable: list[Path], follow: Path | None) -> None:
    try:
        with job.publisher() as publisher:
            for path in usable:
                job.take(path, publisher)
            if follow is not None:
                job.follow(follow, publisher)
    except _NOT_SET_UP as e:
        fail(str(e))
    except _AWAY as e:
        fail(str(e), EXIT_NOT_UP)


class _Job:
    """One run of the command."""

    def __init__(
        self,
        supplier: str,
        dataset: str,
        settings: Settings,
        rejects: Path,
        today: date | None,
        as_json: bool,
        remove: bool,
        console: Console,
        patience: float,
    ) -> None:
        self._names = (supplier, dataset)
        self._settings = settings
        self._rejects = rejects
        self._today = today
        self._as_json = as_json
        self._remove = remove
        self._patience = patience
        self.console = console
        self.unusable = 0
        self.rejected = 0

    def publisher(self) -> Publisher:
        """Connected, or an error that says why not."""
        return Publisher(*self._names, settings=self._settings, patience_seconds=self._patience, on_wait=self._say)

    def usable(self, files: list[Path]) -> list[Path]:
        """The files that can be opened; says what is wrong with the others, before connecting to anything."""
        out = []
        for path in files:
            try:
                readers.check(path)
                out.append(path)
            except UnusableFileError as e:
                self._unusable(path, e)
        return out

    def take(self, path: Path, sink: Sink) -> Totals | None:
        """Publish a file and print its totals; None if it cannot be used.

        Raises:
            DeliveryError: the broker does not have all of it.
        """
        try:
            with _progress(path, self.console) as on_progress:
                totals = publish_file(path, *self._names, sink, self._rejects, self._today or date.today(), on_progress)
        except (UnusableFileError, CodecError) as e:
            self._unusable(path, e)
            return None
        self.rejected += totals.rejected
        self._print(totals)
        if self._remove and not totals.rejected:
            path.unlink(missing_ok=True)
        return totals

    def follow(self, path: Path, sink: Sink) -> NoReturn:
        """Take files as they arrive, for ever; a broker that is away is waited for."""
        ledger = Ledger(self._settings.base / "taken" / f"{'.'.join(self._names)}.jsonl")
        folder = Folder(path)
        self._say(f"waiting for files in {path}")
        while True:
            try:
                arrived = folder.arrived(time.monotonic())
            except OSError as e:
                self._say(f"waiting for {path} to be readable ({e.strerror})")
                arrived = []
            for file in arrived:
                try:
                    self._take_once(file, sink, ledger)
                except DeliveryError as e:
                    if "_FATAL" in e.failed:
                        raise
                    self._say(f"{file.name} will be published again: {e}")
                    folder.again(file)
                    time.sleep(_RETRY_SECONDS)
            time.sleep(_POLL_SECONDS)

    def _take_once(self, file: Path, sink: Sink, ledger: Ledger) -> None:
        try:
            digest = digest_of(file)
        except UnusableFileError as e:
            self._unusable(file, e)
            return
        if digest in ledger:
            return
        totals = self.take(file, sink)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        ledger.add(digest, {"at": at, **(totals.as_json() if totals else {"file": file.name, "unusable": True})})

    def _unusable(self, path: Path, error: Exception) -> None:
        self.unusable += 1
        self._say(f"error: {path}: {error}")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _print(self, totals: Totals) -> None:
        if self._as_json:
            typer.echo(json.dumps(totals.as_json()))
            return
        typer.echo(
            f"{totals.file} -> {totals.topic}: read {totals.read:,} = published {totals.published:,} "
            f"+ rejected {totals.rejected:,} ({totals.read / max(totals.seconds, 1e-3):,.0f} rows/s)"
        )
        for (field, reason), count in sorted(totals.warnings.items()):
            typer.echo(f"  warning: {field}: {reason}: {count:,}")
        if totals.rejects:
            typer.echo(f"  rejects: {totals.rejects}")


@contextmanager
def _progress(path: Path, console: Console) -> Iterator[OnProgress]:
    """A bar on a terminal, nothing elsewhere."""
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(path.name, total=path.stat().st_size)
        yield lambda done: progress.update(task, completed=done)
