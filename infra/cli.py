"""The `lethe` command: each subcommand is the module of that name in `infra/commands/`."""

from __future__ import annotations

import os
import sys

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
app.command()(up)
app.command()(down)
app.command()(status)
app.command()(provision)
app.add_typer(keys_app, name="keys")
app.add_typer(supplier_app, name="supplier")
app.command()(simulate)
app.command()(publish)
app.command()(run)
enclave_app.command()(report)
app.add_typer(enclave_app, name="enclave")
app.command()(dictionary)
app.command()(risk)
app.command()(scan)
app.command()(enquire)
app.command()(erase)
app.command()(audit)
app.command()(alerts)
app.command()(batches)
app.command()(doctor)
app.command()(lag)
app.command()(top)
app.command()(console)
app.command()(reconcile)
app.command()(trace)
app.command()(monitoring)
app.add_typer(quarantine_app, name="quarantine")
app.command()(operations)
app.command()(destroy)
app.add_typer(demo_app, name="demo")
app.command()(replay)
app.command()(compare)
app.add_typer(rollout_app, name="rollout")
app.command()(bench)
evaluate_app.command()(effects)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(clock_app, name="clock")
app.add_typer(retention_app, name="retention")
app.add_typer(ledger_app, name="ledger")
app.add_typer(destruction_app, name="destruction")


def main() -> None:
    """Entry point of the command. A credential that is missing or may not be used is one line, whoever needs it."""
    try:
        app()
    except KeyFileError as e:
        typer.echo(f"error: {e}", err=True)
        sys.exit(EXIT_ERROR)


if __name__ == "__main__":
    main()
