"""`lethe destruction`: the proof that what was destroyed is gone, and the certificate of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from confluent_kafka import KafkaException
from rich.console import Console

from infra.commands.options import AsJson, away, up
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, EXIT_USAGE, fail, need_enclave
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.destruction.proof import Proof
    from infra.destruction.verify import Asked

destruction_app = typer.Typer(help="Proof and certificates of destruction.", no_args_is_help=True)

Canaries = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Texts that must be nowhere: JSON by field (a person's file, too), or one a line. Never printed.",
    ),
]
NothingLeft = Annotated[bool, typer.Option("--nothing-left", help="Prove that nothing at all is left.")]
Enclaves = Annotated[list[Path] | None, typer.Option("--enclave", metavar="DIR", help="An enclave's folder, too.")]
LookIn = Annotated[
    list[Path] | None, typer.Option("--look-in", metavar="DIR", help="Search these files for the texts, too.")
]
BrokerData = Annotated[
    list[Path] | None,
    typer.Option(metavar="DIR", help="Log directories of brokers; by default the local broker's."),
]


@destruction_app.command()
def verify(
    canaries: Canaries = None,
    nothing_left: NothingLeft = False,
    enclave: Enclaves = None,
    look_in: LookIn = None,
    broker_data: BrokerData = None,
    as_json: AsJson = False,
) -> None:
    """Prove that what the ledger says was destroyed is gone, from topics, disks, state, files and enclaves.

    Reads every topic from the beginning and every segment on disk, decompressed; sweeps state that no processor has
    open, and reads it. Prints places and counts, never a value, and what it could not look at. Exits 0 only if proved.
    Ask at rest.

    Example: lethe destruction verify --canaries /tmp/files/truth/canaries.json --enclave /srv/enclave
    """
    settings = Settings()
    proof = proved(settings, asked_of(settings, canaries, nothing_left, enclave, look_in, broker_data))
    if as_json:
        typer.echo(json.dumps(proof.as_json(), indent=1))
    else:
        show(proof)
    if not proof.proved:
        raise typer.Exit(EXIT_ERROR)


def asked_of(
    settings: Settings,
    canaries: Path | None,
    nothing_left: bool,
    enclaves: list[Path] | None,
    look_in: list[Path] | None,
    broker_data: list[Path] | None,
) -> Asked:
    """What the options ask for; ends the command if one cannot be used."""
    from infra.destruction.needles import Needles, read_needles
    from infra.destruction.verify import Asked
    from stream_processors.scan import LEAST

    if enclaves:
        need_enclave()
    try:
        texts = read_needles(canaries) if canaries else {}
    except (OSError, ValueError):
        fail(f"{canaries}: is no list of texts", EXIT_USAGE)
    if canaries and not any(len(text) >= LEAST for found in texts.values() for text in found):
        fail(f"{canaries}: no text in it has the {LEAST} characters from which on it is looked for", EXIT_USAGE)
    for folder in [*(enclaves or ()), *(look_in or ()), *(broker_data or ())]:
        if not folder.is_dir():
            fail(f"{folder}: is no folder", EXIT_USAGE)
    return Asked(
        "nothing left" if nothing_left else "kept to the ledger",
        Needles(texts),
        broker_data or [settings.broker_data],
        enclaves or (),
        look_in or (),
    )


def proved(settings: Settings, asked: Asked) -> Proof:
    """The proof, with what is looked at shown on a terminal meanwhile; ends the command if there is no broker."""
    from infra.destruction.verify import verify as prove

    with not_up(), Console(stderr=True).status("looking") as status:
        return prove(up(settings), asked, lambda what: status.update(f"looking at {what}"))


@contextmanager
def not_up() -> Iterator[None]:
    """End the command if the broker or the registry does not answer, or knows other schemas than this code."""
    from schemas.codec import CodecError
    from schemas.registry import RegistryDownError, SchemaNotRegisteredError

    try:
        yield
    except (CodecError, SchemaNotRegisteredError) as e:
        fail(f"{e}: is this code newer than the schemas? `lethe provision` registers them")
    except KafkaException as e:
        away(e)
    except RegistryDownError as e:
        fail(str(e), EXIT_NOT_UP)


def show(proof: Proof) -> None:
    """Print a proof for people."""
    out = Console(highlight=False, soft_wrap=True)
    for f in proof.findings:
        out.print(f"[bold red]{f.kind}[/]: {f.where}: {f.count:,}{' ' + f.what if f.what else ''}")
    for p in proof.pending_by_topic().values():
        until = datetime.fromtimestamp(p.until_ms / 1000, UTC).isoformat(timespec="seconds")
        out.print(f"within its bound: {p.where}: {p.count:,} dead values on disk, to be gone by {until}")
    for what in proof.unchecked:
        out.print(f"not checked: {what}")
    out.print("looked at: " + ", ".join(f"{n:,} {what}" for what, n in proof.checked.items()))
    live = ", ".join(f"{n:,} in {topic}" for topic, n in proof.held.items())
    out.print(f"still held: {live or 'nothing'}")
    if proof.proved:
        out.print(f"[bold green]proved[/] ({proof.mode}): {proof.ledger.get('lines', 0):,} records destroyed")
    else:
        out.print(f"[bold red]not proved[/] ({proof.mode}): {len(proof.findings):,} places")


@destruction_app.command()
def certificate(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where certificate.json and certificate.html are written.")],
    reason: Annotated[str, typer.Option(help="Why the records were destroyed.")] = "retention policy",
    canaries: Canaries = None,
    nothing_left: NothingLeft = False,
    enclave: Enclaves = None,
    look_in: LookIn = None,
    broker_data: BrokerData = None,
    as_json: AsJson = False,
) -> None:
    """Prove as `verify` does, and write a signed certificate of what was destroyed. Not proved: none is written.

    It is signed with certificate.key (`lethe keys init`). Names, dates and signatures of people are filled in by hand.

    Example: lethe destruction certificate --out /srv/certificates/2022-12
    """
    from infra.destruction import certificate as document
    from infra.destruction.destroy import media
    from infra.keys import CERTIFICATE_KEY, KeyFileError, read_key

    settings = Settings()
    try:
        seed = read_key(settings.keys / CERTIFICATE_KEY)
    except KeyFileError as e:
        fail(str(e))
    proof = proved(settings, asked_of(settings, canaries, nothing_left, enclave, look_in, broker_data))
    if not proof.proved:
        if as_json:
            typer.echo(json.dumps({"files": [], **proof.as_json()}, indent=1))
        else:
            show(proof)
        fail("not proved: no certificate was written")
    method = {
        "reason": reason,
        "by": "the retention policy",
        "steps": ["tombstones at the head of the linkage zone, which take what follows from a record with them"],
        "purged": {},
        "keys": [],
    }
    paths = document.write(document.sign(document.document(proof, media(settings), method), seed), out)
    if as_json:
        typer.echo(json.dumps({"files": [str(p) for p in paths], **proof.as_json()}, indent=1))
        return
    for path in paths:
        typer.echo(f"wrote {path}")


@destruction_app.command("check-certificate")
def check_certificate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="certificate.json or certificate.html.")],
    public_key: Annotated[str, typer.Option(metavar="FILE|HEX", help="certificate.pub, or its 64 hex digits.")],
    as_json: AsJson = False,
) -> None:
    """Check a certificate on any machine, without the stack: it was signed with that key, and not altered since.

    Take the public key from somewhere else than the certificate.

    Example: lethe destruction check-certificate certificate.html --public-key certificate.pub
    """
    from infra.destruction.certificate import CertificateError, check

    text = Path(public_key).read_text() if Path(public_key).is_file() else public_key
    try:
        key = bytes.fromhex(text.strip())
        document = check(file.read_text(encoding="utf-8"), key)
    except CertificateError as e:
        fail(f"{file}: {e}")
    except (OSError, ValueError):
        fail("the certificate or the public key cannot be read", EXIT_USAGE)
    lines = document["ledger"].get("lines", 0)
    if as_json:
        typer.echo(
            json.dumps({"valid": True, "made_at": document["made_at"], "scope": document["scope"], "lines": lines})
        )
    else:
        typer.echo(f"valid: made {document['made_at']}; {document['scope']}; {lines:,} lines of the ledger")
