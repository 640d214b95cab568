"""`lethe scan`: is there anything in the research zone that has no business there."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.commands.options import up
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, EXIT_USAGE, fail, need_enclave
from infra.settings import Settings

if TYPE_CHECKING:
    from stream_processors.scan import Canaries


def scan(
    canaries: Annotated[
        Path | None, typer.Option(metavar="JSON", help="Planted texts by field: truth/canaries.json of a simulation.")
    ] = None,
    enclave: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Look at an enclave's texts and files, too.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Look at every file of a report, too, and for pseudonyms.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as one JSON object.")] = False,
) -> None:
    """Look for identifiers by shape, and for planted canaries, in values, keys and headers of research.person.

    With --enclave also at every text in its tables, and for canaries in every byte of its files (which are compressed);
    with --report at every byte of a report, in which no pseudonym may stand either.
    Prints kinds and counts, never what was found. Exits 1 if there is anything.

    Example: lethe scan --canaries /tmp/files/truth/canaries.json --enclave /srv/enclave --report /srv/report
    """
    from confluent_kafka import KafkaException

    from infra.topic_table import messages
    from stream_processors.access import ENCLAVE
    from stream_processors.enclave.store import FILE
    from stream_processors.scan import Canaries
    from stream_processors.scan import scan as scan_records

    if enclave:
        need_enclave()
    try:
        planted = Canaries(json.loads(canaries.read_text())) if canaries else None
    except (OSError, ValueError, AttributeError, TypeError):
        fail(f"{canaries}: is no list of canaries by field; `lethe simulate --canaries` writes one", EXIT_USAGE)
    if enclave and not (enclave / FILE).is_file():
        fail(f"{enclave / FILE} is not there; `lethe enclave sync --to {enclave}` makes it", EXIT_USAGE)
    if report and not report.is_dir():
        fail(f"{report}: is no folder of a report", EXIT_USAGE)
    settings, records = up(Settings()), 0
    found: Counter[str] = Counter()
    try:
        for m in messages(settings.acting_as(ENCLAVE), "research.person"):
            records += 1
            found += scan_records([(m.key(), m.value(), m.headers() or [])], planted)
    except KafkaException as e:
        fail(f"research.person cannot be read: {e.args[0].name()}", EXIT_NOT_UP)
    if enclave:
        found += _in_enclave(enclave, planted)
    if report:
        found += _in_report(report, enclave, planted)
    if as_json:
        typer.echo(json.dumps({"records": records, "found": dict(found)}))
    else:
        typer.echo(f"{records:,} records of research.person: {sum(found.values()):,} findings")
        for kind, n in sorted(found.items()):
            typer.echo(f"{kind}: {n:,}")
    if found:
        raise typer.Exit(EXIT_ERROR)


def _in_report(folder: Path, enclave: Path | None, planted: Canaries | None) -> Counter[str]:
    """What the bytes of a report's files hold, by `report.<kind>`; pseudonyms are known where the enclave is named."""
    from stream_processors.scan import identifiers

    pseudonyms = _pseudonyms(enclave) if enclave else frozenset()
    found: Counter[str] = Counter()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        found.update({f"report.{kind}": n for kind, n in identifiers(content).items()})
        words = set(re.findall(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", content))
        found.update({"report.pseudonym": n} if (n := len(words & pseudonyms)) else {})
        if planted is not None:
            found.update({f"report.canary.{field}": n for field, n in planted.found(content).items()})
    return found


def _pseudonyms(enclave: Path) -> frozenset[bytes]:
    import duckdb

    from stream_processors.enclave.store import FILE

    with duckdb.connect(str(enclave / FILE), read_only=True) as connection:
        rows = connection.execute(
            "SELECT person_id FROM persons UNION SELECT family_id FROM persons WHERE family_id IS NOT NULL"
        ).fetchall()
    return frozenset(text.encode() for (text,) in rows)


def _in_enclave(folder: Path, planted: Canaries | None) -> Counter[str]:
    """What the texts of the tables and the bytes of the files hold, by `cell.<kind>` and `file.canary.<field>`."""
    import duckdb

    from stream_processors.enclave.store import FILE
    from stream_processors.enclave.tables import texts
    from stream_processors.scan import scan as scan_records

    found: Counter[str] = Counter()
    try:
        with duckdb.connect(str(folder / FILE), read_only=True) as connection:
            cells = scan_records(((None, text.encode(), ()) for text in texts(connection)), planted)
    except duckdb.Error as e:
        fail(f"{folder / FILE}: cannot be read ({type(e).__name__})", EXIT_USAGE)
    found.update({kind.replace("value.", "cell.", 1): n for kind, n in cells.items()})
    if planted is None:
        return found
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found.update({f"file.canary.{field}": n for field, n in planted.found(path.read_bytes()).items()})
    return found
