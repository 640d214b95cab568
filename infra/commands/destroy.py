"""`lethe destroy`: the end of everything, at the hard stop."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.commands.destruction import BrokerData, Canaries, Enclaves, asked_of, not_up
from infra.commands.options import AsJson, up
from infra.errors import end_tidily_on_sigterm, fail
from infra.settings import Settings


def destroy(
    reason: Annotated[str | None, typer.Option(help="Why; it is in the certificate.", show_default=False)] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Destroy; without this, say what would go.")] = False,
    before_hard_stop: Annotated[
        bool, typer.Option("--before-hard-stop", help="Although the hard stop of the policy has not come.")
    ] = False,
    enclave: Enclaves = None,
    without_enclave: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Do not wait for this enclave; the certificate says so.")
    ] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="How long to wait for enclaves, in seconds.")] = 60,
    canaries: Canaries = None,
    broker_data: BrokerData = None,
    as_json: AsJson = False,
) -> None:
    """Destroy everything: every record, topic, state directory and, last of all, the keys. What remains is the ledger.

    Stop `lethe run` before. Every enclave has to acknowledge the last deletions; one whose folder is named with
    --enclave is synced. The proof comes before the keys go: if anything is left, they stay, and it ends with 1. Killed
    half-way, run it again: it goes on. The certificate is in <home>/destruction.

    Example: lethe destroy --reason "end of the programme" --execute
    """
    from infra.destruction.destroy import NotYetError, Order, preview
    from infra.destruction.destroy import destroy as run

    settings, today = Settings(), datetime.now(UTC).date()
    asked = asked_of(settings, canaries, True, enclave, None, broker_data)
    if execute and not (reason and reason.strip()):
        fail("--execute needs a --reason", 2)
    settings = up(settings)
    if not execute:
        with not_up():
            found = preview(settings, today)
        rows = [{"supplier": s, "dataset": d, "records": n} for (s, d), n in sorted(found.due.items())]
        if as_json:
            typer.echo(
                json.dumps(
                    {
                        "hard_stop": found.hard_stop.isoformat(),
                        "allowed": found.allowed,
                        "due": rows,
                        "held": dict(found.held),
                        "enclaves": list(found.enclaves),
                        "keys": list(found.keys),
                        "folders": [str(p) for p in found.folders],
                        "done": list(found.done),
                        "editions": list(found.editions),
                    },
                    indent=1,
                )
            )
            return
        for row in rows:
            typer.echo(f"{row['supplier']}.{row['dataset']}: {row['records']} records in the linkage zone")
        for topic, n in found.held.items():
            typer.echo(f"{topic}: {n} records")
        typer.echo(f"enclaves that have to acknowledge: {', '.join(found.enclaves) or 'none is known'}")
        typer.echo(f"keys: {', '.join(found.keys) or 'none'}")
        typer.echo(f"folders: {', '.join(map(str, found.folders)) or 'none'}")
        if found.editions:
            typer.echo(f"editions that are not in use, and go whole: {', '.join(found.editions)}")
        if found.done:
            typer.echo(f"done already: {', '.join(found.done)}")
        when = "has come" if found.allowed else "has not come: --before-hard-stop"
        typer.echo(f"the hard stop {found.hard_stop} {when}; nothing was destroyed: repeat with --reason and --execute")
        return
    end_tidily_on_sigterm()
    console = Console(stderr=True, highlight=False)
    order = Order(
        (reason or "").strip(),
        getpass.getuser(),
        asked.enclaves,
        without_enclave or (),
        asked.broker_data,
        wait_s,
        before_hard_stop,
        asked.needles,
    )
    try:
        with not_up():
            paths = run(settings, order, today, sync_enclave, console.print)
    except NotYetError as e:
        fail(str(e))
    if as_json:
        typer.echo(json.dumps({"destroyed": True, "certificate": [str(p) for p in paths]}))
    else:
        typer.echo(f"everything is destroyed; the certificate: {', '.join(map(str, paths))}")


def sync_enclave(settings: Settings, folder: Path) -> None:
    """Bring an enclave of this machine to the end, under the name that it has acknowledged with."""
    from schemas.registry import Registry
    from stream_processors.enclave.acknowledge import FILE
    from stream_processors.enclave.sync import Options, sync

    try:
        name = str(json.loads((folder / FILE).read_text())["enclave"])
    except (OSError, ValueError, KeyError):
        name = "enclave"
    registry = Registry(settings.registry, deadline_seconds=60)
    try:
        sync(settings, folder, registry, Options(name), lambda _: None)
    finally:
        registry.close()
