"""The `lethe` command: each subcommand is the module of that name in `infra/commands/`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

# Set before polars is first imported: workers share the cores, and other commands wait for files and brokers.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

from infra.commands.bench import bench
from infra.commands.console import console
from infra.commands.demo import demo_app
from infra.commands.destroy import destroy
from infra.commands.destruction import destruction_app
from infra.commands.dictionary import dictionary
from infra.commands.doctor import doctor
from infra.commands.enclave import enclave_app
from infra.commands.enclave_report import report
from infra.commands.enquire import enquire
from infra.commands.erase import erase
from infra.commands.evaluate import evaluate_app
from infra.commands.evaluate_effects import effects
from infra.commands.governance import alerts, audit, batches, operations
from infra.commands.keys import keys_app
from infra.commands.lag import lag
from infra.commands.monitoring import monitoring
from infra.commands.provision import provision
from infra.commands.publish import publish
from infra.commands.quarantine import quarantine_app
from infra.commands.reconcile import reconcile
from infra.commands.replay import replay
from infra.commands.retention import clock_app, ledger_app, retention_app
from infra.commands.risk import risk
from infra.commands.rollout import compare, rollout_app
from infra.commands.run import run
from infra.commands.scan import scan
from infra.commands.simulate import simulate
from infra.commands.stack import down, status, up
from infra.commands.supplier import supplier_app
from infra.commands.top import top
from infra.commands.trace import trace
from infra.errors import EXIT_ERROR
from infra.keys import KeyFileError

app = typer.Typer(
    help="Links records about the same people without anyone downstream seeing who they are, and forgets on time.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a local variable may hold a value of a record
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lethe {version('lethe')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version, and end.")
    ] = False,
) -> None:
    pass


enclave_app.command()(report)
evaluate_app.command()(effects)

_IN_ORDER: tuple[Callable[..., None] | tuple[str, typer.Typer], ...] = (
    up,
    down,
    status,
    provision,
    ("keys", keys_app),
    ("supplier", supplier_app),
    simulate,
    publish,
    run,
    ("enclave", enclave_app),
    dictionary,
    risk,
    scan,
    enquire,
    erase,
    audit,
    alerts,
    batches,
    doctor,
    lag,
    top,
    console,
    reconcile,
    trace,
    monitoring,
    ("quarantine", quarantine_app),
    operations,
    destroy,
    ("demo", demo_app),
    replay,
    compare,
    ("rollout", rollout_app),
    bench,
    ("evaluate", evaluate_app),
    ("clock", clock_app),
    ("retention", retention_app),
    ("ledger", ledger_app),
    ("destruction", destruction_app),
)
"""As `lethe --help` lists them: commands, and groups of commands by name."""
for _one in _IN_ORDER:
    if isinstance(_one, tuple):
        app.add_typer(_one[1], name=_one[0])
    else:
        app.command()(_one)


def main() -> None:
    """Entry point of the command. A credential or another file that is missing or may not be used is one line, whoever
    needs it."""
    try:
        app()
    except KeyFileError as e:
        typer.echo(f"error: {e}", err=True)
        sys.exit(EXIT_ERROR)
    except OSError as e:
        if e.filename is None:
            raise
        typer.echo(f"error: {e.filename}: {e.strerror}", err=True)
        sys.exit(EXIT_ERROR)


if __name__ == "__main__":
    main()
