"""`lethe console`: the web console, on loopback."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from infra.errors import EXIT_ERROR, fail
from infra.settings import Settings


def console(
    port: Annotated[int, typer.Option(help="Loopback port.", min=1, max=65535)] = 19095,
) -> None:
    """Serve pages for people who would rather look: flow, batches, quarantine, retention, ledger, enquiries.

    Open the address that it prints; the token in it is of this run. No value of any person is on any page.
    Ctrl-C ends it.

    Example: lethe console
    """
    import uvicorn

    from infra.broker.ports import HOST, holder, is_free
    from infra.console.app import Console
    from infra.console.sources import ClusterSources
    from infra.logs import configure, scrub_exceptions

    configure()
    scrub_exceptions()
    if not is_free(port):
        fail(f"port {port} is taken by another process{holder(port)}: --port names another", EXIT_ERROR)
    token = secrets.token_urlsafe(24)
    typer.echo(f"http://{HOST}:{port}/?token={token}")
    app = Console(ClusterSources(Settings()), token).app()
    # No access log: it would keep the token.
    uvicorn.run(app, host=HOST, port=port, access_log=False, log_level="warning", server_header=False)
