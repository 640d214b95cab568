"""Running processes export what the dashboards and rules ask for, and say when they are ready."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from infra.keys import export_enquiry_key, token_key
from infra.monitoring.doctor import examine
from infra.monitoring.names import METRICS
from infra.monitoring.render import used
from infra.monitoring.server import port_of
from infra.provision import provision
from producers import Publisher
from schemas import contracts
from stream_processors.runtime.instance import folder_of
from stream_processors.runtime.kafka import client_config
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
            export_enquiry_key(stack.settings)
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


def findings_of(workers: Workers) -> set[tuple[str, str, str]]:
    return {(f.severity, f.check, f.where) for f in examine(workers.settings, [workers.settings.broker_data])}


def test_the_doctor_names_what_is_wrong_and_nothing_else(workers: Workers) -> None:
    settings = workers.settings
    for process in (*NAMES, "control"):
        until_ready(workers, process)
    assert {f for f in findings_of(workers) if f[1] not in ("disk", "idle")} <= {("info", "clock", "governance.clock")}

    admin = AdminClient(client_config(settings))
    entry = ConfigEntry("segment.ms", "3600001", incremental_operation=AlterConfigOpType.SET)
    changed = ConfigResource(ResourceType.TOPIC, "linkage.identity", incremental_configs=[entry])
    admin.incremental_alter_configs([changed])[changed].result(30)
    drifted = json.loads(contracts.contract("linkage/link").text)
    drifted["fields"].append(
        {"name": "more", "type": ["null", "string"], "default": None, "classification": "technical"}
    )
    SchemaRegistryClient({"url": settings.registry}).register_schema(
        "linkage.link-value", Schema(json.dumps(drifted), "AVRO")
    )
    token_key(settings).chmod(0o644)
    workers.signal("link", signal.SIGSTOP)
    try:
        found = findings_of(workers)
    finally:
        workers.signal("link", signal.SIGCONT)
        token_key(settings).chmod(0o600)
    assert ("warning", "topics", "linkage.identity") in found
    assert ("critical", "schemas", "linkage.link") in found
    assert ("critical", "keys", str(token_key(settings))) in found
    assert ("critical", "processes", f"link 1 (pid {workers.pid('link')})") in found
