"""`lethe scan`: is there anything in the research zone that has no business there."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from infra.errors import EXIT_ERROR, EXIT_NOT_UP, EXIT_USAGE, fail
from infra.settings import Settings


def scan(
    canaries: Annotated[
        Path | None, typer.Option(metavar="JSON", help="Planted texts by field: truth/canaries.json of a simulation.")
    ] = None,
    enclave: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Look for canaries in every byte of an enclave's files, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as one JSON object.")] = False,
) -> None:
    """Look for identifiers by shape, and for planted canaries, in values, keys and headers of research.person.

    Prints kinds and counts, never what was found. Exits 1 if there is anything.

    Example: lethe scan --canaries /tmp/files/truth/canaries.json --enclave /srv/enclave
    """
    from confluent_kafka import KafkaException

    from infra.topic_table import messages
    from stream_processors.scan import Canaries
    from stream_processors.scan import scan as scan_records

    try:
        planted = Canaries(json.loads(canaries.read_text())) if canaries else None
    except (OSError, ValueError, AttributeError, TypeError):
        fail(f"{canaries}: is no list of canaries by field", EXIT_USAGE)
    records = 0
    found: Counter[str] = Counter()
    try:
        for m in messages(Settings(), "research.person"):
            records += 1
            found += scan_records([(m.key(), m.value(), m.headers() or [])], planted)
    except KafkaException as e:
        fail(f"research.person cannot be read: {e.args[0].name()}", EXIT_NOT_UP)
    if enclave and planted:
        for path in sorted(p for p in enclave.rglob("*") if p.is_file()):
            for field, n in planted.found(path.read_bytes()).items():
                found[f"file.canary.{field}"] += n
    if as_json:
        typer.echo(json.dumps({"records": records, "found": dict(found)}))
    else:
        typer.echo(f"{records:,} records of research.person: {sum(found.values()):,} findings")
        for kind, n in sorted(found.items()):
            typer.echo(f"{kind}: {n:,}")
    if found:
        raise typer.Exit(EXIT_ERROR)
