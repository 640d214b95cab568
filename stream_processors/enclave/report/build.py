"""The whole report from an enclave's folder, in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stream_processors.enclave.disclosure import Policy, Release, Snapshot, release
from stream_processors.enclave.report import narrate, source
from stream_processors.enclave.report.design import DESIGN, Design
from stream_processors.enclave.report.draft import draft
from stream_processors.enclave.report.narrate import Finding


@dataclass(frozen=True)
class Report:
    """What may leave (`release`), what it says (`findings`), and how it was made. seconds: to count and estimate."""

    at: str
    release: Release
    findings: Sequence[Finding]
    policy: Policy
    design: Design
    earlier: int
    seconds: float


def build(folder: Path, at: str, earlier: Sequence[Snapshot] = (), memory_mb: int = 2048) -> Report:
    """Count, estimate and hold everything to disclosure control.

    Args:
        folder: where enclave.duckdb lies.
        at: when this is, as it will be printed.
        earlier: what was kept of every report made before.
        memory_mb: most memory that DuckDB takes.

    Raises:
        source.TablesUnusableError: no such file, or nobody in it to compare.
    """
    began = time.monotonic()
    policy = Policy()
    with source.opened(folder, memory_mb) as opened:
        drafted = draft(opened, DESIGN, policy)
    released = release(drafted.outputs, drafted.relations, earlier, drafted.cohort, at, policy)
    found = narrate.findings(released)
    return Report(at, released, found, policy, DESIGN, len(earlier), time.monotonic() - began)
