"""Running processes export what the dashboards and rules ask for, and say when they are ready."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from infra.monitoring.names import METRICS
from infra.monitoring.render import used
from infra.monitoring.server import port_of
from infra.provision import provision
from producers import Publisher
from stream_processors.runtime.instance import folder_of
from stream_processors.topology import NAMES
from tests.integration.containers import running_stack
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.crash, pytest.mark.timeout(300)]
CANARY = "Canarius"
_NAME = re.compile(r"^# TYPE (\S+)", re.M)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    home = tmp_path_factory.mktemp("monitoring")
    with running_stack(home) as stack:
        provision(stack.settings, suppliers=["council-northam", "dfe"])
        with Workers(stack.settings, home / "logs") as running:
            with Publisher("council-northam", "person", settings=stack.settings) as publisher:
                publisher.publish_batch(
                    [{"person_id": "c1", "programme_status": "participant", "forename": CANARY, "surname": "Smith"}]
                )
                publisher.tombstone("c2")
            running.start_all()
            running.start("control")
            running.at_rest()
            yield running


def ask(workers: Workers, process: str, path: str) -> tuple[int, str]:
    port = port_of(folder_of(workers.settings.state, process, 1))
    if port is None:
        return 0, "it does not say where it answers"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def until_ready(workers: Workers, process: str) -> None:
    deadline = time.monotonic() + 120
    while ask(workers, process, "/ready")[0] != 200:
        assert time.monotonic() < deadline, f"{process} does not get ready"
        time.sleep(0.1)  # health is asked for, it tells nobody


def test_every_process_becomes_ready_and_exports_its_metrics(workers: Workers) -> None:
    exported: set[str] = set()
    for process in (*NAMES, "control"):
        until_ready(workers, process)
        _, text = ask(workers, process, "/metrics")
        assert CANARY not in text
        exported |= {n if n.endswith("_total") or METRICS.get(n) else n + "_total" for n in _NAME.findall(text)}
    assert set(METRICS) <= exported | {"lethe_restore_ratio"}  # which is there while a state is restored
    assert used() <= set(METRICS)


def test_records_are_counted_where_they_pass(workers: Workers) -> None:
    _, text = ask(workers, "pseudonymise", "/metrics")
    labels = 'direction="in",processor="pseudonymise",topic="identified.council-northam.person"'
    assert f"lethe_records_total{{{labels}}} 2.0" in text
    assert f"lethe_tombstones_total{{{labels}}} 1.0" in text


def test_a_suspended_process_still_says_where_it_answers_and_a_stopped_one_does_not(workers: Workers) -> None:
    folder = folder_of(workers.settings.state, "route", 1)
    assert workers.stop("route") == 0
    assert port_of(folder) is None
    workers.start("route")
    until_ready(workers, "route")
