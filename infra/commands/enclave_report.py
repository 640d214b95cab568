"""`lethe enclave report`: the answer, from the enclave's tables, as a page that has passed disclosure control."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.errors import EXIT_ERROR, fail

_WIDTH = 110


def report(
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the report: new, or of an earlier report.")],
    from_: Annotated[
        Path, typer.Option("--from", metavar="DIR", help="Folder of enclave.duckdb, as `enclave sync --to` made it.")
    ] = Path("enclave"),
    memory_mb: Annotated[int, typer.Option(min=256, help="Most memory that DuckDB takes.")] = 2048,
    as_json: Annotated[bool, typer.Option("--json", help="Print the estimates as one JSON object.")] = False,
) -> None:
    """Compare participants with comparison families, and write index.html, tables/*.csv and output-log.json.

    Nothing is written that fails disclosure control; the log says which rule refused what. DIR/not-for-release stays
    in the enclave: the next report into the same folder is compared with it, so that the two do not tell of a few
    people by their difference.

    Example: lethe enclave report --from /srv/enclave --to /srv/report
    """
    from infra.enclave_report import show, write_report
    from stream_processors.enclave.disclosure.audit import UnsoundRelationError
    from stream_processors.enclave.report.source import TablesUnusableError
    from stream_processors.enclave.report.write import FolderUnusableError

    try:
        written = write_report(from_, to, memory_mb)
    except (TablesUnusableError, FolderUnusableError) as e:
        fail(str(e), EXIT_ERROR)
    except UnsoundRelationError as e:
        fail(f"{e}: nothing was written; this is a defect, please report it", EXIT_ERROR)
    except OSError as e:
        fail(f"{to}: cannot be written ({e.strerror or type(e).__name__})", EXIT_ERROR)
    if as_json:
        typer.echo(json.dumps(written.as_json()))
        return
    console = Console()
    show(written, console if console.is_terminal else Console(width=_WIDTH))
