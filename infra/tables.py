"""The one look of what commands list: no frame, so that it fits a terminal of 80 columns."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table


def listing(*columns: Column | str, title: str | None = None, numbers_from: int | None = None) -> Table:
    """A table to fill. A column given by its name folds what is too long for it; those from `numbers_from` on hold
    numbers, to the right."""
    made = []
    for i, column in enumerate(columns):
        if isinstance(column, Column):
            made.append(column)
        elif numbers_from is not None and i >= numbers_from:
            made.append(Column(column, justify="right"))
        else:
            made.append(Column(column, overflow="fold"))
    return Table(*made, title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
