"""A report's folder: what may be taken out, and beside it what the next report is compared with and which stays.

index.html, tables/*.csv, output-log.json     what passed disclosure control
not-for-release/counts.json                   counts before rounding: for the comparison alone, mode 0600
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

from stream_processors.enclave.disclosure import Snapshot
from stream_processors.enclave.report import files, page
from stream_processors.enclave.report.build import Report

PAGE, LOG, TABLES = "index.html", "output-log.json", "tables"
COUNTS = Path("not-for-release", "counts.json")


class FolderUnusableError(RuntimeError):
    """The folder holds other things, or not what an earlier report left there; the message says what to do."""


def earlier(folder: Path) -> list[Snapshot]:
    """What was kept of the reports that this folder has had.

    Raises:
        FolderUnusableError: there was a report, but what was kept of it is gone or damaged; or other files are there.
    """
    kept, log = folder / COUNTS, folder / LOG
    if not kept.exists():
        if log.exists():
            raise FolderUnusableError(
                f"{kept}: is gone, so this report cannot be compared with the earlier one; put it back, or write to "
                "another folder and have the checkers compare the two"
            )
        if folder.is_dir() and any(folder.iterdir()):
            raise FolderUnusableError(f"{folder}: holds other files; name a new or empty folder")
        return []
    try:
        return [Snapshot.from_json(s) for s in json.loads(kept.read_text())["reports"]]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as e:
        raise FolderUnusableError(f"{kept}: cannot be read ({type(e).__name__}); put back what was there") from e


def write(report: Report, before: Sequence[Snapshot], folder: Path) -> Path:
    """Write the report into `folder`, over an earlier one; the page's path.

    What the next report is compared with is written first: should this one break off, no number can have left that
    the next does not know of.
    """
    tables = folder / TABLES
    tables.mkdir(parents=True, exist_ok=True)
    _keep(report.release.snapshot, before, folder / COUNTS)
    made = files.frames(report.release.published)
    digests = {}
    for old in tables.glob("*.csv"):
        if old.name not in made:
            old.unlink()
    for name, frame in made.items():
        out = io.BytesIO()
        frame.write_csv(out)
        digests[name] = hashlib.sha256(out.getvalue()).hexdigest()
        _replace(tables / name, out.getvalue())
    entries = []
    for entry in report.release.log:
        file = files.file_of(entry.id) if entry.status != "refused" else None
        entries.append(entry.as_json(f"{TABLES}/{file}" if file else None, digests[file] if file else None))
    log = {"made": report.at, "outputs": entries}
    _replace(folder / LOG, (json.dumps(log, indent=1, ensure_ascii=False) + "\n").encode())
    _replace(folder / PAGE, page.render(report).encode())
    return folder / PAGE


def _keep(now: Snapshot, before: Sequence[Snapshot], path: Path) -> None:
    """Add what is kept of this report, unless it is the same as what was kept of an earlier one."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    known = any((s.cohort, s.outputs) == (now.cohort, now.outputs) for s in before)
    reports = [s.as_json() for s in (*before, *(() if known else (now,)))]
    says = "Counts before rounding. They never leave the enclave; the next report is compared with them."
    _replace(path, json.dumps({"what": says, "reports": reports}).encode(), 0o600)


def _replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)
