"""Rows of a command as a table that fits a terminal of 80 columns: no frame, no column in which nothing stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column

from infra.commands.options import shown_ms
from infra.tables import listing


def print_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    cell: Callable[[Any], str] = str,
) -> None:
    """Print these columns of the rows, but those that are empty or zero in all; one that ends in `_ms` is a moment.

    `cell`: how any value reads that is neither a moment nor a number.
    """
    kept = [c for c in columns if any(row[c] for row in rows)]
    heads = (
        Column(
            c.removesuffix("_ms").replace("_", " "),
            overflow="fold",
            min_width=len("2026-11-27") if c.endswith("_ms") else None,
            justify="right" if any(type(row[c]) is int for row in rows) and not c.endswith("_ms") else "left",
        )
        for c in kept
    )
    table = listing(*heads)
    for row in rows:
        table.add_row(*(_cell(c, row[c], cell) for c in kept))
    Console().print(table)


def _cell(column: str, value: Any, cell: Callable[[Any], str]) -> str:
    if value is None:
        return ""
    if column.endswith("_ms") and isinstance(value, int):
        return shown_ms(value)
    return f"{value:,}" if type(value) is int else cell(value)
