"""`lethe enclave`: what researchers run where they work."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from infra.commands.options import AsJson, tell, up
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, end_tidily_on_sigterm, fail, need_enclave
from infra.logs import configure
from infra.settings import Settings

if TYPE_CHECKING:
    from stream_processors.enclave.sync import Round

enclave_app = typer.Typer(help="The researchers' enclave: tables of research.person.", no_args_is_help=True)

_REGISTRY_S = 60.0


@enclave_app.callback()
def _group() -> None:
    """Keep each a command of its own."""


@enclave_app.command()
def sync(
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder of enclave.duckdb; made if it is not there.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until SIGTERM or Ctrl-C.")] = False,
    parquet: Annotated[
        bool | None,
        typer.Option("--parquet/--no-parquet", help="Also DIR/parquet/<table>.parquet; copies there are kept renewed."),
    ] = None,
    name: Annotated[str, typer.Option(help="What this enclave acknowledges deletions as.")] = "enclave",
    memory_mb: Annotated[int, typer.Option(min=128, help="Most memory that DuckDB takes.")] = 512,
    sweep_s: Annotated[
        float, typer.Option(min=0, help="With --follow: longest time that deleted rows stay in the file, in seconds.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per round.")] = False,
) -> None:
    """Bring DIR/enclave.duckdb to the end of research.person: new records in, deleted ones gone from the file.

    It reads the edition that `lethe rollout switch` has put in use, with --follow also after a switch; LETHE_EDITION
    says another. Stopped or killed at any point, it goes on where it was. Away for longer than the topic keeps
    deletions, it rebuilds the file. It acknowledges what it has deleted, in governance.acknowledgement or, where it may
    not write that, in DIR/acknowledgement.json only. DuckDB lets one process write while nobody reads: with --follow
    the file is closed while nothing comes.

    Example: lethe enclave sync --to /srv/enclave --parquet
    """
    need_enclave()
    from confluent_kafka import KafkaException

    from infra.editions import in_use, within
    from schemas.registry import Registry, RegistryDownError
    from stream_processors.access import ENCLAVE
    from stream_processors.edition import Edition
    from stream_processors.enclave.store import FileInUseError
    from stream_processors.enclave.sync import Options, TopicUnreadableError
    from stream_processors.enclave.sync import sync as run

    configure()
    end_tidily_on_sigterm()
    settings = Settings()
    if not name or not all(c.isalnum() or c in "-_" for c in name):
        fail("--name takes letters, digits, - and _ only", 2)
    console = Console(stderr=as_json)

    def show(done: Round) -> None:
        if as_json:
            typer.echo(json.dumps(asdict(done)))
        elif done.records or not follow:
            _print(console, to, done)

    registry = Registry(up(settings).registry, deadline_seconds=_REGISTRY_S)

    def wanted() -> Edition:
        return Edition(settings.edition) if settings.edition else in_use(settings.acting_as(ENCLAVE), registry)

    try:
        while True:
            edition = wanted()
            options = Options(name, follow, parquet, memory_mb, sweep_s=sweep_s, moved=lambda e=edition: wanted() != e)  # type: ignore[misc]
            run(within(settings, edition), to, registry, options, show)
            if not follow:
                break
    except (TopicUnreadableError, RegistryDownError) as e:
        fail(str(e), EXIT_NOT_UP)
    except FileInUseError as e:
        fail(f"{e}; close it there, or sync with --follow", EXIT_ERROR)
    except KafkaException as e:
        fail(f"research.person at {settings.bootstrap}: {e.args[0].name()}", EXIT_NOT_UP)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    finally:
        registry.close()


@enclave_app.command()
def credential(
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder for ca.crt and enclave.pem; made if not there.")],
    as_json: AsJson = False,
) -> None:
    """Put what researchers authenticate by into DIR: it reads research.person, acknowledges deletions, nothing else.

    Hand the folder over on a safe way. There, LETHE_CREDENTIALS names it, LETHE_BOOTSTRAP and LETHE_REGISTRY say where
    the brokers and the registry are, and `lethe enclave sync` needs no other file.

    Example: lethe enclave credential --to /media/handover
    """
    from infra.certificates import init_credentials
    from infra.keys import CA_CERTIFICATE, hand_out
    from infra.keys import credential as credential_file
    from stream_processors.access import ENCLAVE

    settings = Settings()
    init_credentials(settings, [ENCLAVE])
    made = [str(hand_out(f, to)) for f in (settings.access / CA_CERTIFICATE, credential_file(settings, ENCLAVE))]
    tell({"made": made}, [f"made {path}" for path in made], as_json)


def _print(console: Console, to: Path, done: Round) -> None:
    if done.rebuilt:
        console.print(f"begun anew: {done.rebuilt}")
    rows = ", ".join(f"{n:,} {table}" for table, n in done.rows.items())
    console.print(
        f"{done.records:,} records taken in, {done.tombstones:,} deletions, {done.refused:,} refused, "
        f"{done.seconds:.1f} s; {to / 'enclave.duckdb'} holds {rows}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"deletions acknowledged: {done.acknowledged}", highlight=False, soft_wrap=True)
