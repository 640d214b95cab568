"""What a process answers over HTTP, and where."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from infra.monitoring.ports import INSTANCES, PROCESSES, metrics_port
from infra.monitoring.server import MonitoringServer, port_of
from infra.settings import Settings


@dataclass
class Fake:
    live: bool = True
    ready: bool = False
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def test_metrics_and_health(tmp_path: Path) -> None:
    fake = Fake()
    Counter("lethe_tries_total", "tries", registry=fake.registry).inc(3)
    with MonitoringServer(fake, 0, tmp_path) as server:
        assert port_of(tmp_path) == server.port
        assert "lethe_tries_total 3.0" in ask(server.port, "/metrics")[1]
        assert ask(server.port, "/live") == (200, "yes\n")
        assert ask(server.port, "/ready") == (503, "no\n")
        assert ask(server.port, "/")[0] == 404
    assert port_of(tmp_path) is None


def test_a_port_that_is_taken_stops_nobody(tmp_path: Path) -> None:
    with MonitoringServer(Fake(), 0, tmp_path / ".") as first:
        (tmp_path / "second").mkdir()
        with MonitoringServer(Fake(), first.port, tmp_path / "second") as second:
            assert second.port != first.port
            assert ask(second.port, "/live")[0] == 200


def test_every_process_and_instance_has_a_port_of_its_own() -> None:
    settings = Settings(metrics_port=19100)
    ports = [metrics_port(settings, p, n) for p in PROCESSES for n in range(1, INSTANCES + 1)]
    assert len(set(ports)) == len(ports)
    assert metrics_port(settings, "route", INSTANCES + 1) == 0
    assert metrics_port(Settings(metrics_port=0), "route", 1) == 0
    with pytest.raises(ValueError, match="nobody"):
        metrics_port(settings, "nobody", 1)
