"""What `lethe demo` prints of its report: tables that fit a terminal of 80 columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.tables import listing

_NOT_LINKED = ("waiting", "ambiguous", "contested")


@dataclass(frozen=True)
class Report:
    """What the demo found; `differences` is empty when topic and oracle agree.

    `outcomes`: subjects by supplier, and by match key or why they are not linked. `enclave`: its file, and rows by
    table. `answer`: the enclave's report as `lethe enclave report --json` prints it; empty where there is nobody to
    compare.
    """

    control_totals: list[dict[str, Any]]
    outcomes: dict[str, dict[str, int]]
    quality: dict[str, dict[str, float]]
    research_records: int
    example: dict[str, Any]
    seconds: dict[str, float]
    records_per_second: float
    differences: list[str]
    enclave: dict[str, Any]
    answer: dict[str, Any] = field(default_factory=dict)


def show_demo(report: Report, console: Console) -> None:
    """Everything but the researchers' report."""
    for made in (_control(report), _found(report), _quality(report), _example(report), _times(report)):
        console.print(made)
    console.print(
        f"{report.research_records:,} research records; {report.records_per_second:,.0f} records a second end to end"
    )
    tables = ", ".join(f"{n:,} {name}" for name, n in report.enclave["rows"].items())
    console.print(f"[bold]enclave[/] {tables}: {report.enclave['file']}", highlight=False, soft_wrap=True)
    if report.differences:
        console.print(f"[bold red]{len(report.differences)} differences from the oracle[/]")
    else:
        console.print("[bold green]The research topic and the counts of links equal the oracle's.[/]")


def _control(report: Report) -> Table:
    names = ("supplier", "dataset", "read", "published", "rejected", "warnings")
    made = listing(*names, title="Control totals", numbers_from=2)
    for row in report.control_totals:
        warnings = sum(n for reasons in row["warnings"].values() for n in reasons.values())
        counts = (*(row[c] for c in ("read", "published", "rejected")), warnings)
        made.add_row(row["supplier"], row["dataset"], *(f"{n:,}" for n in counts))
    return made


def _found(report: Report) -> Table:
    """A row for each match key, a column for each supplier: there are more keys than suppliers."""
    suppliers = sorted(report.outcomes)
    heads = [name.replace("-", "-\n", 1) for name in suppliers]
    title = "Subjects by match key, and those that are not linked"
    made = listing("match key", *heads, title=title, numbers_from=1)

    def add(label: str, *of: str) -> None:
        counts = (sum(report.outcomes[s].get(name, 0) for name in of) for s in suppliers)
        made.add_row(label, *(f"{n:,}" if n else "" for n in counts))

    keys = sorted({label for counts in report.outcomes.values() for label in counts} - {*_NOT_LINKED})
    for key in keys:
        add(key, key)
    made.add_section()
    add("linked", *keys)
    for label in _NOT_LINKED:
        add(label, label)
    return made


def _quality(report: Report) -> Table:
    names = ("truth", "subjects", "true matches", "linked", "precision", "recall")
    made = listing(*names, title="Against the truth", numbers_from=1)
    for name, q in report.quality.items():
        counts = (f"{q[c]:,.0f}" for c in ("subjects", "true matches", "linked"))
        made.add_row(name, *counts, f"{q['precision']:.4f}", f"{q['recall']:.4f}")
    return made


def _example(report: Report) -> Table:
    made = listing("field", "value", title="One research record")
    for name, value in report.example.items():
        made.add_row(name, _shown(value))
    return made


def _shown(value: Any) -> str:
    """A value for people: of a list how many items there are, and the first."""
    if isinstance(value, date):
        return f"{value:%Y-%m}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        first = ", ".join(f"{k} {_shown(v)}" for item in value[:1] for k, v in item.items() if v is not None)
        return f"{len(value)}, the first: {first}" if len(value) > 1 else first or "none"
    return "" if value is None else str(value)


def _times(report: Report) -> Table:
    made = listing("what", "seconds", title="How long it took", numbers_from=1)
    for name, s in report.seconds.items():
        made.add_row(name, f"{s:.1f}")
    return made
