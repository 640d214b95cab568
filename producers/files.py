"""A supplier file into its topic, with control totals: readers, pure core and publisher in a row."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Protocol

from producers import readers
from producers.chunks import Chunk
from producers.header import UnusableFileError
from producers.rejects import RejectsFile, rejects_path
from producers.rows import WHOLE_ROW, Converted, convert
from producers.totals import DUPLICATE, SeenKeys, Totals
from schemas.contracts import Contract, identified, identified_topic

OnProgress = Callable[[int], None]
"""Told how many bytes of the file have been read."""
RECODED = "windows_1252"
NO_COLUMN = "has no column"


class Sink(Protocol):
    """Where checked rows go: a `Publisher`, or a list in a test."""

    def send(self, converted: Converted) -> object:
        """Take the rows, or block."""

    def flush(self) -> int:
        """Return when all are where they belong."""

    def announce(self, totals: Totals) -> None:
        """Say that a file is there, with its control totals."""


def digest_of(path: Path) -> str:
    """SHA-256 of the content, in hex.

    Raises:
        UnusableFileError: it cannot be read.
    """
    with _unusable_if_unreadable(), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish_file(
    path: Path,
    supplier: str,
    dataset: str,
    sink: Sink,
    rejects: Path,
    today: date,
    on_progress: OnProgress = lambda _: None,
) -> Totals:
    """Read, check and publish a file; its rejects file goes under the folder `rejects`.

    Holds after: the broker has every row that is not in the rejects file. Doing it again changes nothing
    downstream.

    Raises:
        UnusableFileError: the file cannot be taken, or not to its end; says how many rows went before.
        DeliveryError: the broker does not have all; do it again.
    """
    readers.check(path)
    started = time.monotonic()
    contract = identified(supplier, dataset)
    digest = digest_of(path)
    totals = Totals(path.name, identified_topic(supplier, dataset), digest)
    seen = SeenKeys()
    place = rejects_path(rejects, supplier, dataset, path, digest)
    with RejectsFile(place) as refused, _unusable_if_unreadable(), path.open("rb") as file:
        try:
            for chunk in readers.read(file, path.suffix, contract):
                _publish_chunk(chunk, contract, today, sink, refused, seen, totals)
                on_progress(file.tell())
        except UnusableFileError as e:
            sink.flush()
            if not totals.read:
                raise
            raise UnusableFileError(f"{e}; {totals.published} rows before it are published") from None
        finally:
            totals.rejects = refused.path
        sink.flush()
    sink.announce(totals)
    totals.seconds = time.monotonic() - started
    return totals


def check_file(path: Path, supplier: str, dataset: str, rejects: Path, today: date) -> Totals:
    """As `publish_file`, but publishes nothing: what would be published, and the rejects file."""
    return publish_file(path, supplier, dataset, _Nowhere(), rejects, today)


class _Nowhere:
    def send(self, converted: Converted) -> None:
        """Forget the rows."""

    def flush(self) -> int:
        """Nothing is anywhere."""
        return 0

    def announce(self, totals: Totals) -> None:
        """Tell nobody."""


def _publish_chunk(
    chunk: Chunk,
    contract: Contract,
    today: date,
    sink: Sink,
    refused: RejectsFile,
    seen: SeenKeys,
    totals: Totals,
) -> None:
    converted = convert(chunk.cells, chunk.lines, contract, today)
    if converted.batch.num_rows:
        sink.send(converted)
    lines = [(b.line, WHOLE_ROW, b.reason) for b in chunk.broken]
    if lines or converted.rejected:
        refused.add(sorted([*lines, *converted.rejects.iter_rows()]))
    totals.read += chunk.read
    totals.published += converted.batch.num_rows
    totals.rejected += converted.rejected + len(chunk.broken)
    more = {(WHOLE_ROW, DUPLICATE): seen.again(converted.keys), (WHOLE_ROW, RECODED): chunk.recoded}
    totals.warnings += converted.warnings + Counter({k: n for k, n in more.items() if n})
    for name in (f.name for f in contract.fields if f.name not in chunk.cells.columns):
        totals.warnings[name, NO_COLUMN] = 1  # of the file, however many rows it has


@contextmanager
def _unusable_if_unreadable() -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileNotFoundError, IsADirectoryError) as e:
        raise UnusableFileError(f"cannot be read or written ({e.strerror})") from None
