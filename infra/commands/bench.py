"""`lethe bench`: what this machine does, as figures and as ratios to the raw pass-through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.errors import end_tidily_on_sigterm
from infra.settings import Settings
from infra.tables import listing


def bench(
    records: Annotated[int, typer.Option(min=1_000, help="Records of the identified zone.")] = 500_000,
    out: Annotated[Path, typer.Option(help="Where the figures are written.")] = Path("bench.json"),
    expiry: Annotated[bool, typer.Option("--expiry", help="Only all records expiring at one tick.")] = False,
    keep: Annotated[bool, typer.Option(help="Keep the stack's folder, to look at it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure every processor alone, then everything at once, on a stack of its own.

    Example: lethe bench --records 1000000
    """
    from infra.bench.bench import bench as run_bench

    end_tidily_on_sigterm()
    console = Console(stderr=as_json)
    figures = run_bench(Settings(), records, console.print, keep, expiry).as_json()
    out.write_text(json.dumps(figures, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(figures))
        return
    columns = ("records/s", "of pass-through", "at least", "CPU us a record")
    table = listing("stage", *columns, title=f"{records:,} records", numbers_from=1)
    for name, rate in figures["records_per_second"].items():
        target = figures["targets"].get(name)
        ratio, cpu = figures["ratio_to_pass_through"][name], figures["cpu_us_a_record"].get(name, "")
        table.add_row(name, f"{rate:,}", f"{ratio:.2f}", f"{target or ''}", f"{cpu}")
    console.print(table)
    rest = listing("figure", "value", "at most", numbers_from=1)
    if figures["trickle_p99_ms"] is not None:
        rest.add_row("trickle, 99th percentile", f"{figures['trickle_p99_ms']:,} ms", "2,000 ms")
    for name, mb in figures["peak_rss_mb"].items():
        rest.add_row(f"peak memory, {name}", f"{mb:,} MB", "700 MB")
    if figures["rebuild_s_per_million"] is not None:
        rest.add_row("rebuild, per million records", f"{figures['rebuild_s_per_million']} s", "")
    rest.add_row("expired at one tick", f"{figures['expired_at_one_tick']:,}", "")
    rest.add_row("then research empty after", f"{figures['expiry_to_empty_research_s']} s", "")
    rest.add_row("tick to research tombstone, at rest", f"{figures['tick_to_research_tombstone_ms']:,} ms", "3,000 ms")
    console.print(rest)
    console.print(f"written to {out}")
