"""`lethe keys`: the key files."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Annotated

import typer

from infra.commands.options import (
    AsJson,
    answers,
    away,
    council_named,
    files_told,
    known_supplier,
    tell,
    up_with_edition,
)
from infra.errors import EXIT_NOT_UP, fail
from infra.keys import KeyFileError, export_enquiry_key, init_certificate_key, init_council, init_keys
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.epochs import Manifest

keys_app = typer.Typer(help="Key files, one for each process that needs one; councils' secrets.", no_args_is_help=True)


@keys_app.command()
def init(as_json: AsJson = False) -> None:
    """Make the key files that are missing. What exists is never written to.

    The public key for enquiries (enquiry.pub) follows the token key. Unless LETHE_SECURITY=plaintext, also an authority
    for the brokers' certificates and a credential of each principal; one that ends within 30 days is renewed.
    certificate.key signs certificates of destruction; hand certificate.pub to whoever is to check them.

    Example: lethe keys init
    """
    settings = Settings()
    keys = init_keys(settings)
    try:
        keys += [export_enquiry_key(settings), *init_certificate_key(settings)]
    except KeyFileError as e:
        fail(str(e))
    lines = [f"made {key.path}" if key.made else f"kept {key.path}: it is there already" for key in keys]
    if settings.security == "plaintext":
        tell(files_told(keys), lines, as_json)
        return
    from infra.certificates import init_credentials
    from infra.topics import load
    from stream_processors.access import principals

    files = init_credentials(settings, principals(load().suppliers))
    new = [f"made {file.path}" for file in files if file.made]
    kept = f"credentials: {len(new)} made, {len(files) - len(new)} kept in {settings.access}"
    tell(files_told([*keys, *files]), [*lines, *new, kept], as_json)


@keys_app.command()
def council(
    name: Annotated[str, typer.Argument(metavar="COUNCIL", help="council-<code>, or its code.")],
    as_json: AsJson = False,
) -> None:
    """Make the secret that a council signs its enquiries with. What exists is never written to.

    Hand the file to the council on a safe way, with enquiry.pub. Delete it here and make another to revoke it.
    While the stack is up, only a supplier gets one (exit code 1 otherwise).

    Example: lethe keys council council-northam
    """
    settings, council = Settings(), council_named(name)
    if answers(settings):
        known_supplier(settings, council)
    key = init_council(settings, council)
    said = f"made {key.path}" if key.made else f"kept {key.path}: it is there already"
    tell(files_told([key]), [said], as_json)


@keys_app.command()
def rotate(
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without, only say what would be done.")] = False,
    wait_s: Annotated[
        float, typer.Option(min=1, help="Seconds that each of the three stages may take before the command gives up.")
    ] = 3600,
    as_json: AsJson = False,
) -> None:
    """Bring a new key for tokens into force, and take every token of the old one back.

    Subjects are first said under both keys, then the new one decides, then the old one's tokens go: nobody loses a
    link on the way. Research ids stay. The processors must run meanwhile; they need no restart. If it is interrupted,
    or gives up waiting (exit code 1), the same command goes on where it was.

    Without --execute it shows how far a rotation is, and what the next run would do.

    Example: lethe keys rotate --execute
    """
    from confluent_kafka import KafkaException
    from rich.console import Console

    from infra.epochs import load
    from infra.rotation import Progress, RotationError
    from infra.rotation import rotate as go

    settings = Settings()
    try:
        if not execute:
            _preview(settings, as_json)
            return
        console = Console(stderr=True)
        with console.status("looking") as status:

            def show(p: Progress) -> None:
                status.update(f"{p.stage}: {p.behind} is behind on {p.partitions:,} partitions")

            began = load(settings)
            done = go(up_with_edition(settings), wait_s, show)
    except (KeyFileError, RotationError) as e:
        fail(str(e))
    except KafkaException as e:
        away(e, "; run the same command again: it goes on")
    if as_json:
        typer.echo(json.dumps({"leads": done.leads, "stage": done.stage, "retired": min(began.checks)}))
        return
    typer.echo(f"epoch {done.leads} is in force, epoch {min(began.checks)} is retired: none of its tokens is live")
    typer.echo("enquiry.pub is new: hand it out; what is sealed to the old one is refused as unreadable from now on")


@keys_app.command("status")
def epochs_status(as_json: AsJson = False) -> None:
    """Show the key epochs, and how many live records of each the topics that hold tokens have.

    Reads those topics from their beginning. Exits 3 if the stack is not up, after showing the epochs.

    Example: lethe keys status
    """
    from confluent_kafka import KafkaException
    from rich.console import Console

    from infra.epochs import WHAT, epoch_key, load
    from infra.rotation import HOLD_TOKENS, live_by_epoch
    from infra.tables import listing

    settings = Settings()
    try:
        manifest = load(settings)
    except KeyFileError as e:
        fail(str(e))
    live = None
    if answers(settings):
        with contextlib.suppress(KafkaException):
            live = live_by_epoch(settings)
    numbers = sorted({*manifest.checks, *(e for c in (live or {}).values() for e in c)})
    rows = [
        {
            "epoch": number,
            "role": _role(number, manifest),
            "key": str(epoch_key(settings, number)) if number in manifest.checks else None,
            "live": {topic: live[topic][number] for topic in HOLD_TOKENS} if live is not None else None,
        }
        for number in numbers
    ]
    if as_json:
        typer.echo(json.dumps({"stage": manifest.stage, "leads": manifest.leads, "epochs": rows}, indent=1))
    else:
        table = listing("epoch", "", *(f"live in {t}" for t in HOLD_TOKENS), "key", title=WHAT[manifest.stage])
        for row in rows:
            counts = row["live"]
            shown = [f"{counts[t]:,}" if isinstance(counts, dict) else "?" for t in HOLD_TOKENS]
            table.add_row(str(row["epoch"]), str(row["role"]), *shown, str(row["key"] or "none"))
        Console().print(table)
    if live is None:
        fail("the stack is not up, so live records were not counted: `lethe up` brings it up", EXIT_NOT_UP)


def _role(number: int, manifest: Manifest) -> str:
    if number == manifest.leads:
        return "leads"
    if number == manifest.also:
        return "is added" if number > manifest.leads else "is said besides"
    return "is retiring" if number in manifest.checks else "is retired"


def _preview(settings: Settings, as_json: bool) -> None:
    from infra.epochs import WHAT, Stage, load

    manifest = load(settings)
    stages = [s for s in Stage if s != Stage.steady]
    to_come = stages if manifest.stage == Stage.steady else stages[stages.index(manifest.stage) :]
    new = max(manifest.checks) + (manifest.stage == Stage.steady)
    if as_json:
        told = {"stage": manifest.stage, "leads": manifest.leads, "new_epoch": new, "to_come": to_come}
        typer.echo(json.dumps(told))
        return
    begins = "would begin" if manifest.stage == Stage.steady else "is at " + manifest.stage
    typer.echo(f"epoch {manifest.leads} leads; the rotation to epoch {new} {begins}. Nothing was done. With --execute:")
    for stage in to_come:
        typer.echo(f"  {stage}: {WHAT[stage]}")
    typer.echo("  and then enquiry.pub is another, to be handed out, and the old key's tokens are nowhere live")
