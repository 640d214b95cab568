"""Writing the enclave's report into a folder, for the command and for the end of the demo."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.tables import listing
from stream_processors.enclave.report import build, narrate, write
from stream_processors.enclave.report.build import Report

_NAMED = 8
"""So many refused outputs are named on the terminal; of more, how many there are."""


@dataclass(frozen=True)
class Written:
    """A report, where its page lies, and how long all of it took."""

    report: Report
    page: Path

    def as_json(self) -> dict[str, Any]:
        """What was published of each outcome, and what was refused."""
        estimates: dict[str, dict[str, Any]] = {}
        for f in self.report.findings:
            kinds = {"effect": f.effect, "matched": f.matched, "earlier": f.earlier}
            numbers = {kind: None if e is None else asdict(e) for kind, e in kinds.items()}
            estimates[f.outcome.name] = {"verdict": f.verdict, **numbers}
        refused = {e.id: e.refused_by for e in self.report.release.log if e.refused_by is not None}
        return {
            "page": str(self.page),
            "outcomes": estimates,
            "refused": refused,
            "outputs": len(self.report.release.log),
            "compared_with_reports": self.report.earlier,
            "seconds": round(self.report.seconds, 1),
        }


def write_report(folder: Path, to: Path, memory_mb: int = 2048, now: datetime | None = None) -> Written:
    """Make the report of `folder`/enclave.duckdb in the folder `to`, over an earlier one there.

    Raises:
        source.TablesUnusableError: no enclave file that can be read, or nobody in it to compare.
        write.FolderUnusableError: `to` holds other things, or what was kept of earlier reports is gone.
        audit.UnsoundRelationError: numbers that should add up do not; nothing is written.
    """
    before = write.earlier(to)
    at = f"{now or datetime.now(UTC):%B %Y}"
    report = build.build(folder, at, before, memory_mb)
    return Written(report, write.write(report, before, to))


def report_and_show(folder: Path, to: Path, console: Console) -> Written:
    """Make the report and print the estimates and where it lies: what `lethe demo` ends with. Raises as it does."""
    written = write_report(folder, to)
    show(written, console)
    return written


def show(written: Written, console: Console) -> None:
    """The estimates as a table, what was refused, and where the page lies."""
    title = "Participants, against what would have been"
    table = listing("outcome", "change", "95% interval", "matched", "before the start", title=title, numbers_from=1)
    for f in written.report.findings:
        if f.effect is None:
            table.add_row(f.outcome.title, "withheld", "", "", "")
            continue
        checks = ("withheld" if e is None else narrate.change(e.ratio) for e in (f.matched, f.earlier))
        interval = f"{narrate.change(f.effect.low)} to {narrate.change(f.effect.high)}"
        table.add_row(f.outcome.title, narrate.change(f.effect.ratio), interval, *checks)
    console.print(table)
    log = written.report.release.log
    refused = [e for e in log if e.status == "refused"]
    console.print(f"{len(log) - len(refused)} outputs passed disclosure control, {len(refused)} were refused")
    for rule in sorted({e.refused_by for e in refused if e.refused_by}):
        ids = [e.id for e in refused if e.refused_by == rule]
        said = ", ".join(ids) if len(ids) <= _NAMED else f"{len(ids)} outputs; output-log.json names them"
        console.print(f"  {rule} ({narrate.WHY[rule]}): {said}", highlight=False, soft_wrap=True)
    console.print(f"[bold]report[/] {written.page}", highlight=False, soft_wrap=True)
