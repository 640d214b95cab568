"""`lethe supplier`: who supplies records."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from infra.commands.options import AsJson
from infra.provision import (
    BrokerDownError,
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


def say_admitted(done: Provisioned) -> None:
    """Print what was granted, taken back and made, as far as there is anything to say."""
    if done.granted:
        typer.echo(f"{done.granted} grants made")
    for line in done.taken_back:
        typer.echo(f"taken back: {line}")
    for path in done.credentials:
        typer.echo(f"made {path}")


@supplier_app.command()
def add(
    supplier: Annotated[str, typer.Argument(help="such as council-hackney")],
) -> None:
    """Create a supplier's topics, register their schemas, and make and admit its credential. Safe to repeat.

    Hand the credential (supplier.<name>.pem) and ca.crt to the supplier on a safe way.

    Example: lethe supplier add council-hackney
    """
    try:
        done = add_supplier(Settings(), supplier, on_wait=say)
    except EXPECTED as e:
        say(str(e))
        raise typer.Exit(1) from None
    for spec in done.topics:
        state = "created" if spec.name in done.created else "is there"
        typer.echo(f"{spec.name}: {'corrected' if spec.name in done.corrected else state}")
    say_admitted(done)


@supplier_app.command()
def ls(
    as_json: AsJson = False,
) -> None:
    """List the suppliers that have topics, with what each delivers.

    Example: lethe supplier ls --json
    """
    try:
        found = suppliers_of(Settings(), on_wait=say)
    except EXPECTED as e:
        say(str(e))
        raise typer.Exit(1) from None
    rows = [{"supplier": s, "topics": [identified_topic(s, d) for d in DATASETS[kind_of(s)]]} for s in found]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for supplier in found:
        typer.echo(f"{supplier}: {', '.join(DATASETS[kind_of(supplier)])}")
