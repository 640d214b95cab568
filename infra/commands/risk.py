"""`lethe risk`: how far the people in an enclave's file could be told apart."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.errors import EXIT_ERROR, EXIT_USAGE, fail, need_enclave
from infra.settings import Settings
from infra.tables import listing


def risk(
    enclave: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of enclave.duckdb, or the file.")],
    quasi: Annotated[
        str, typer.Option(metavar="COLUMNS", help="What an intruder may know, as columns of persons.")
    ] = "birth_year,sex,area",
    at_least: Annotated[int, typer.Option(min=0, help="Exit 1 if k is below this.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON document.")] = False,
) -> None:
    """k-anonymity, l-diversity, and the share of people whom birth year, sex and area single out.

    With area as it is held, and as it would be at wider levels (MSOA, local authority). The file is only read.

    Example: lethe risk /srv/enclave
    """
    need_enclave()
    import duckdb

    from stream_processors.areas import DirectoryError, load_areas
    from stream_processors.enclave.risk import UnknownColumnError, measure
    from stream_processors.enclave.store import FILE

    path = enclave if enclave.suffix and not enclave.is_dir() else enclave / FILE
    if not path.is_file():
        fail(f"{path} is not there; `lethe enclave sync --to {path.parent}` makes it", EXIT_USAGE)
    settings = Settings()
    names = tuple(name.strip() for name in quasi.split(",") if name.strip())
    try:
        areas = load_areas(settings.postcodes) if settings.postcodes else load_areas()
        with duckdb.connect(str(path), read_only=True) as connection:
            found = measure(connection, areas, names)
    except (DirectoryError, UnknownColumnError) as e:
        fail(str(e), EXIT_USAGE)
    except duckdb.Error as e:
        fail(f"{path}: cannot be read ({type(e).__name__}); a sync may have it open", EXIT_ERROR)
    if as_json:
        rows = [{**asdict(r), "l_diversity": r.l_diversity, "singled_out": r.singled_out} for r in found]
        typer.echo(json.dumps(rows, indent=1))
    else:
        sizes = list(found[0].below)
        counts = ("classes", "k", "l", "singled out", *(f"in classes below {n}" for n in sizes))
        table = listing("area", *counts, numbers_from=1)
        for r in found:
            shares = (f"{r.below[n] / r.persons:.1%}" if r.persons else "" for n in sizes)
            table.add_row(r.level, f"{r.classes:,}", f"{r.k}", f"{r.l_diversity}", f"{r.singled_out:.1%}", *shares)
        console = Console()
        console.print(f"{found[0].persons:,} persons by {', '.join(names)}", highlight=False)
        console.print(table)
    if found[0].k < at_least:
        fail(f"k is {found[0].k}, below {at_least}", EXIT_ERROR)
