"""The HTTP side of a process: `/metrics` for Prometheus, `/live` and `/ready` for whoever starts it anew.

Loopback only, and nothing of a person is on it. A thread of its own: it answers while the loop is stuck, which is
when it is asked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Protocol, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from infra.broker.ports import HOST

PORT_FILE = "port"
"""In the folder of an instance: where it answers. Read by `lethe status`, `top`, `doctor` and the console."""
_log = structlog.get_logger()


class Health(Protocol):
    """What is asked."""

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics."""

    @property
    def live(self) -> bool:
        """Whether the loop moves."""

    @property
    def ready(self) -> bool:
        """Whether it is assigned and caught up."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    address_family = 2  # AF_INET: the loopback address below


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """A scrape every few seconds is no event."""


class MonitoringServer:
    """Answers between `__enter__` and `__exit__`, at `port` or, if another process has it, at any free one."""

    def __init__(self, health: Health, port: int, folder: Path) -> None:
        self._file = folder / PORT_FILE
        app = _app(health)
        try:
            self._server = self._listening(app, port)
        except OSError:
            # To stop working because of a port for watching would be the wrong way round.
            _log.warning("port_taken", port=port)
            self._server = self._listening(app, 0)
        self._thread = threading.Thread(target=self._server.serve_forever, name="monitoring", daemon=True)

    @property
    def port(self) -> int:
        """Where it answers."""
        return self._server.server_port

    def __enter__(self) -> Self:
        self._thread.start()
        new = self._file.with_suffix(f".{os.getpid()}")
        new.write_text(str(self.port))
        new.replace(self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._file.unlink(missing_ok=True)

    @staticmethod
    def _listening(app: Callable[..., Iterable[bytes]], port: int) -> WSGIServer:
        return make_server(HOST, port, app, _Server, _Silent)


def _app(health: Health) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    metrics = make_wsgi_app(health.registry)
    states: dict[str, Callable[[], bool]] = {"/live": lambda: health.live, "/ready": lambda: health.ready}

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            found: Iterable[bytes] = metrics(environ, start)
            return found
        state = states.get(path)
        if state is None:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics, /live, /ready\n"]
        good = state()
        start("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"yes\n" if good else b"no\n"]

    return app


def port_of(folder: Path) -> int | None:
    """Where an instance answers, by its folder; None if it does not say."""
    try:
        return int((folder / PORT_FILE).read_text())
    except (OSError, ValueError):
        return None
