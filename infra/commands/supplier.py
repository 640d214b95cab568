"""`lethe supplier`: who supplies records."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from infra.commands.options import AsJson, tell, up
from infra.errors import fail
from infra.provision import (
    BrokerDownError,
    EditionRetiredError,
    PartitionsDifferError,
    Provisioned,
    add_supplier,
    suppliers_of,
)
from infra.settings import Settings
from schemas.contracts import DATASETS, UnknownSupplierError, identified_topic, kind_of
from schemas.registry import (
    RegistryDownError,
    RegistryRefusedError,
    SchemaDriftError,
    SchemaIncompatibleError,
)

supplier_app = typer.Typer(help="Suppliers: councils and departments.", no_args_is_help=True)

EXPECTED = (  # what a person can put right from its message alone
    BrokerDownError,
    EditionRetiredError,
    PartitionsDifferError,
    RegistryDownError,
    RegistryRefusedError,
    SchemaDriftError,
    SchemaIncompatibleError,
    UnknownSupplierError,
)


def say(message: str) -> None:
    """Tell the person at the terminal, beside the output."""
    typer.echo(message, err=True)


def admitted(done: Provisioned) -> list[str]:
    """What was granted, taken back and made, in lines, as far as there is anything to say."""
    granted = [f"{done.granted} grants made"] if done.granted else []
    taken_back = [f"taken back: {line}" for line in done.taken_back]
    return [*granted, *taken_back, *(f"made {path}" for path in done.credentials)]


@supplier_app.command()
def add(
    supplier: Annotated[str, typer.Argument(help="such as council-hackney")],
    as_json: AsJson = False,
) -> None:
    """Create a supplier's topics, register their schemas, and make and admit its credential. Safe to repeat.

    Hand the credential (supplier.<name>.pem) and ca.crt to the supplier on a safe way.

    Example: lethe supplier add council-hackney
    """
    try:
        done = add_supplier(up(Settings()), supplier, on_wait=say)
    except EXPECTED as e:
        fail(str(e))
    states = {
        **dict.fromkeys((s.name for s in done.topics), "is there"),
        **dict.fromkeys(done.created, "created"),
        **dict.fromkeys(done.corrected, "corrected"),
    }
    tell(done.as_json(), [*(f"{name}: {state}" for name, state in states.items()), *admitted(done)], as_json)


@supplier_app.command()
def ls(
    as_json: AsJson = False,
) -> None:
    """List the suppliers that have topics, with what each delivers.

    Example: lethe supplier ls --json
    """
    try:
        found = suppliers_of(up(Settings()), on_wait=say)
    except EXPECTED as e:
        fail(str(e))
    rows = [{"supplier": s, "topics": [identified_topic(s, d) for d in DATASETS[kind_of(s)]]} for s in found]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for supplier in found:
        typer.echo(f"{supplier}: {', '.join(DATASETS[kind_of(supplier)])}")
