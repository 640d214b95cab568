"""Destruction on a real broker: what was destroyed is searched for in every byte, and the proof fails where it must."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from infra.cli import app
from infra.clock import tick
from infra.destruction.bounds import bounds
from infra.held import ledger_lines
from infra.keys import init_certificate_key, token_key
from infra.provision import provision
from infra.settings import Settings
from infra.topic_table import messages, table
from producers import Publisher
from schemas.registry import Registry
from stream_processors.access import ADMIN
from stream_processors.enclave.sync import Options, sync
from stream_processors.ledger import verify
from stream_processors.runtime.kafka import client_config
from stream_processors.runtime.records import HEARTBEAT_KEY
from stream_processors.topology import TOPOLOGY
from tests.integration.containers import running_stack
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]
COUNCIL = "council-northam"
QUICK_TOPICS = {
    "segment.ms": "1000",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "3000",
    "file.delete.delay.ms": "500",
}
# One cleaner that is not done before the next heartbeats takes partitions with little that is new last, or never.
QUICK_BROKER = {"log.cleaner.threads": "4"}
STAYS = [(f"Stay{c}", f"Remainder{c}", f"SE1 {i}ZZ") for i, c in enumerate("abcdefgh")]
GOES = [("Xanthippequu", "Vanishington", "SE13 7QX"), ("Zebediahquu", "Goneleyford", "SE13 6QZ")]
CANARIES = {
    "forename": [f for f, _, _ in GOES],
    "surname": [s for _, s, _ in GOES],
    "postcode": [p for _, _, p in GOES],
    "local id": ["CANARYC0", "CANARYC1", "CANARYU0", "CANARYU1"],
    "record id of what expires": [f"QXABSENCE{i}Y2012" for i in range(8)],
}
SIMULATED = {
    "partitions": 2,
    "clock": "simulated",
    "heartbeat_seconds": 6.0,
    "sweep_seconds": 3.0,
    "session_timeout_ms": 6_000,
}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    home = tmp_path_factory.mktemp("destruction")
    with running_stack(home, QUICK_BROKER) as stack:
        settings = stack.settings.model_copy(update=SIMULATED).acting_as(ADMIN)
        provision(settings, suppliers=[COUNCIL, "dfe"], overrides=QUICK_TOPICS)
        with Workers(settings, home / "logs") as running:
            running.enable_control()
            _publish(settings)
            running.start_all()
            running.start("control")
            running.at_rest()
            _until_heartbeats(settings)
            yield running


def _until_heartbeats(settings: Settings) -> None:
    """The bound holds while the control plane sends them."""
    deadline = time.monotonic() + 120
    while not any(m.key() == HEARTBEAT_KEY for m in messages(settings, "state.route")):
        assert time.monotonic() < deadline, "the control plane sends no heartbeats"
        time.sleep(0.2)


def _rows(people: list[tuple[str, str, str]], prefix: str, id_: str) -> list[dict[str, Any]]:
    return [
        {
            id_: f"{prefix}{i}",
            "forename": f,
            "surname": s,
            "date_of_birth": f"2001-02-{i + 1:02}",
            "sex": "F",
            "postcode": p,
        }
        for i, (f, s, p) in enumerate(people)
    ]


def _publish(settings: Settings) -> None:
    with Publisher(COUNCIL, "person", settings=settings) as sink:
        for people, prefix in ((STAYS, "C"), (GOES, "CANARYC")):
            sink.publish_batch([r | {"programme_status": "participant"} for r in _rows(people, prefix, "person_id")])
    with Publisher("dfe", "person", settings=settings) as sink:
        for people, prefix in ((STAYS, "U"), (GOES, "CANARYU")):
            sink.publish_batch(_rows(people, prefix, "UPN"))
    with Publisher("dfe", "absence", settings=settings) as sink:
        # Held for 3288 days from the end of the term: those of 2012 until July 2021.
        sink.publish_batch(
            [
                {"UPN": f"U{i}", "record_id": f"QXABSENCE{i}Y{y}", "PeriodEnd": date(y, 7, 1)}
                for i in range(8)
                for y in (2012, 2013)
            ]
        )
        sink.publish_batch([{"UPN": f"CANARYU{i}", "record_id": "r", "PeriodEnd": date(2013, 7, 1)} for i in range(2)])


def _enclave(settings: Settings) -> Path:
    """Where researchers work: not below the installation."""
    return settings.base.parent / "destruction-enclave"


def _sync(settings: Settings, to: Path) -> None:
    registry = Registry(settings.registry)
    try:
        sync(settings, to, registry, Options(name="test"), lambda _: None)
    finally:
        registry.close()


class _Proves:
    """`lethe destruction verify`, as an operator runs it."""

    def __init__(self, settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._canaries = home / "texts.json"
        self._canaries.write_text(json.dumps(CANARIES))
        self._enclave = _enclave(settings)
        for name, value in settings.environment().items():
            monkeypatch.setenv(name, value)

    def __call__(self, *more: str) -> tuple[int, dict[str, Any]]:
        arguments = ["destruction", "verify", "--json", "--canaries", str(self._canaries), *more]
        said = CliRunner().invoke(app, [*arguments, "--enclave", str(self._enclave)])
        assert said.exit_code in (0, 1), said.output
        for text in (t for texts in CANARIES.values() for t in texts):
            assert text not in said.output, "a place, never a value"
        found: dict[str, Any] = json.loads(said.stdout)
        return said.exit_code, found

    def certificate(self, out: Path) -> dict[str, Any]:
        """`lethe destruction certificate`, of what is proved."""
        arguments = ["destruction", "certificate", "--json", "--out", str(out), "--canaries", str(self._canaries)]
        said = CliRunner().invoke(app, [*arguments, "--enclave", str(self._enclave)])
        assert said.exit_code == 0, said.output
        made: dict[str, Any] = json.loads(said.stdout)
        return made

    def until_proved(self, seconds: float) -> tuple[float, dict[str, Any]]:
        began = time.monotonic()
        while True:
            code, found = self()
            took = time.monotonic() - began
            if code == 0:
                return took, found
            if took > seconds:
                raise AssertionError(found["findings"][:20] + found["pending"][:5])
            time.sleep(1)


def _kinds(found: dict[str, Any]) -> set[str]:
    return {f["kind"] for f in found["findings"]}


def test_what_is_deleted_or_expired_is_in_no_byte_after_the_bound(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = workers.settings
    proves = _Proves(settings, tmp_path, monkeypatch)
    enclave = _enclave(settings)
    _sync(settings, enclave)
    code, before = proves()
    assert code == 1
    assert _kinds(before) == {"needle"}, before["findings"][:10]
    where = " ".join(f["where"] for f in before["findings"])
    assert "identified.dfe.person-" in where
    assert ".log" in where or "on disk" in where

    registry = Registry(settings.registry)
    with Publisher(COUNCIL, "person", settings=settings) as sink:
        for i in range(2):
            sink.tombstone(f"CANARYC{i}")
    for dataset, record in (("absence", "r"), ("person", None)):
        with Publisher("dfe", dataset, settings=settings) as sink:
            for i in range(2):
                sink.tombstone(f"CANARYU{i}", record) if record else sink.tombstone(f"CANARYU{i}")
    for day in (date(2021, 7, 1), date(2021, 7, 2)):
        tick(settings, registry, day)
    workers.at_rest()
    _sync(settings, enclave)
    limit = bounds(settings, ["identified.dfe.person"])["identified.dfe.person"].key_ms / 1000
    took, found = proves.until_proved(limit)
    print(f"no hit after {took:.1f} s of {limit:.0f}")
    assert sum(r["records"] for r in found["ledger"]["destroyed"] if r["reason"] == "expiry") == 8
    assert found["held"]["identified.dfe.absence"] == 8, "what has expired is not held, at its source either"
    assert found["checked"]["enclaves"] == 1
    assert found["checked"]["state directories"] == sum(not d.stateless for d in TOPOLOGY) * settings.partitions
    assert len(table(settings, "research.person")) == len(STAYS), "the others are still there"
    _, public = init_certificate_key(settings)
    made = proves.certificate(tmp_path / "made")
    assert (made["proved"], made["ledger"]) == (True, found["ledger"])
    for page in made["files"]:
        arguments = ["destruction", "check-certificate", page, "--public-key", str(public.path), "--json"]
        said = json.loads(CliRunner().invoke(app, arguments).stdout)
        assert (said["valid"], said["lines"]) == (True, found["ledger"]["lines"])


def test_destroy_killed_half_way_is_finished_by_a_second_run_and_the_keys_go_last(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = workers.settings
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "infra.cli", "destroy", "--execute", "--reason", "the test", "--enclave"]
    command.append(str(_enclave(settings)))
    _enclave(settings).mkdir(exist_ok=True)
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (refused.returncode, "stop `lethe run` first" in refused.stderr) == (1, True), refused.stderr
    for name in workers.running():
        workers.stop(name)
    research = len(table(settings, "research.person"))
    assert research > 0

    journal = settings.base / "destruction" / "journal.json"
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (journal.exists() and "expire" in json.loads(journal.read_text())["done"]):
        assert first.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.wait()
    assert token_key(settings).exists()
    assert json.loads(journal.read_text())["workers"], "the processors of the killed run are known, and are ended"

    second = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert second.returncode == 0, second.stderr[-2000:]
    done = json.loads(journal.read_text())
    assert list(done["done"]) == [
        "editions",
        "expire",
        "sources",
        "enclaves",
        "topics",
        "folders",
        "proof",
        "keys",
        "certificate",
    ]
    assert {p.name for p in settings.keys.iterdir() if p.is_file()} == {"certificate.key", "certificate.pub"}
    assert not settings.state.exists()
    topics = AdminClient(client_config(settings)).list_topics(timeout=30).topics
    zones = {t for t in topics if t.partition(".")[0] in ("identified", "linkage", "research", "state", "governance")}
    assert zones == {"governance.ledger", "governance.acknowledgement"}
    assert verify(ledger_lines(settings)) == []

    public = settings.keys / "certificate.pub"
    for page in ("certificate.json", "certificate.html"):
        arguments = ["destruction", "check-certificate", str(journal.parent / page), "--public-key", str(public)]
        assert CliRunner().invoke(app, arguments).exit_code == 0
    document = json.loads((journal.parent / "certificate.json").read_text())["document"]
    assert document["sanitization"]["details"]["keys"] == ["enquiry.pub", "research.key", "token.key"]
    assert document["verification"]["still_held"] == {}
    assert document["verification"]["within_bound"] == []
    by_reason = {r["reason"] for r in document["ledger"]["destroyed"]}
    assert "late" not in by_reason, "what is read again when the processors start is destroyed once"
    assert "hard_stop" in by_reason
    code, after = _Proves(settings, tmp_path, monkeypatch)("--nothing-left")
    assert code == 0, after["findings"]
