"""`lethe keys`: the key files."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.errors import fail
from infra.keys import KeyFileError, export_enquiry_key, init_certificate_key, init_council, init_keys
from infra.settings import Settings
from schemas.contracts import UnknownSupplierError

keys_app = typer.Typer(help="Key files, one for each process that needs one; councils' secrets.", no_args_is_help=True)


@keys_app.command()
def init() -> None:
    """Make the key files that are missing. What exists is never written to.

    The public key for enquiries (enquiry.pub) follows the token key. Unless LETHE_SECURITY=plaintext, also an authority
    for the brokers' certificates and a credential of each principal; one that ends within 30 days is renewed.
    certificate.key signs certificates of destruction; hand certificate.pub to whoever is to check them.

    Example: lethe keys init
    """
    settings = Settings()
    for key in init_keys(settings):
        typer.echo(f"made {key.path}" if key.made else f"kept {key.path}: it is there already")
    try:
        made = [export_enquiry_key(settings), *init_certificate_key(settings)]
    except KeyFileError as e:
        fail(str(e))
    for key in made:
        typer.echo(f"made {key.path}" if key.made else f"kept {key.path}: it is there already")
    if settings.security == "plaintext":
        return
    from infra.certificates import init_credentials
    from infra.topics import load
    from stream_processors.access import principals

    files = init_credentials(settings, principals(load().suppliers))
    new = [file for file in files if file.made]
    for file in new:
        typer.echo(f"made {file.path}")
    typer.echo(f"credentials: {len(new)} made, {len(files) - len(new)} kept in {settings.access}")


@keys_app.command()
def council(
    name: Annotated[str, typer.Argument(metavar="COUNCIL", help="council-<code>, or its code.")],
) -> None:
    """Make the secret that a council signs its enquiries with. What exists is never written to.

    Hand the file to the council on a safe way, with enquiry.pub. Delete it here and make another to revoke it.

    Example: lethe keys council council-northam
    """
    settings = Settings()
    try:
        key = init_council(settings, name if name.startswith("council-") else f"council-{name}")
    except UnknownSupplierError as e:
        fail(str(e))
    typer.echo(f"made {key.path}" if key.made else f"kept {key.path}: it is there already")
