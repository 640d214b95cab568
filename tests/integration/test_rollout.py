"""Another catalogue beside the one in use, on a real broker: both editions are the oracle's, the comparison is what
their tables say, the enclave goes over, and the old edition is removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from infra.catalogue import configured_catalogue
from infra.cli import app
from infra.demo import live_records
from infra.keys import export_enquiry_key
from infra.operation import OperationLog
from infra.provision import provision
from infra.settings import Settings
from infra.topic_table import table
from schemas import contracts, wire
from schemas.codec import decode
from schemas.registry import Registry
from stream_processors import oracle
from stream_processors.areas import load_areas
from stream_processors.link import last_claims
from stream_processors.topology import NAMES
from tests.integration.containers import running_stack
from tests.integration.test_crash import SUPPLIERS, Population, _decoded
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
OLD: dict[str, Any] = {}
NEW: dict[str, Any] = {"edition": "v2", "near_matches": False, "match_keys_off": "k01,k02,k03"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("rollout")
    with running_stack(home) as stack:
        yield stack.settings.model_copy(update={"home": home, "partitions": 2, "session_timeout_ms": 6_000})


def lethe(*arguments: str, code: int = 0) -> Any:
    said = CliRunner().invoke(app, [*arguments, "--json"])
    assert said.exit_code == code, said.output
    return json.loads(said.stdout) if said.stdout else said.stderr


def ended(settings: Settings, logs: Path, code: Path | None = None) -> Workers:
    """Run an edition until it is at rest, and end its workers."""
    with Workers(settings, logs, code) as workers:
        workers.start_all()
        workers.at_rest(600)
        for name in NAMES:
            assert workers.stop(name) == 0
    return workers


def assert_is_the_oracles(workers: Workers) -> dict[bytes, bytes]:
    settings, (token, research) = workers.settings, workers.keys
    published = table(settings, "research.person")
    catalogue = configured_catalogue(settings)
    expected = oracle.research(live_records(settings), token, research, catalogue, load_areas().by_postcode)
    assert published
    assert oracle.equal(expected, _decoded(published)) == []
    return published


def linked(settings: Settings) -> Counter[str]:
    """Departments' subjects by match key or outcome, as the links of the last pass say."""
    links = table(settings, "linkage.link")
    rows = decode([v[wire.HEADER_BYTES :] for v in links.values()], contracts.contract("linkage/link")).to_pylist()
    last = last_claims({k.decode(): r for k, r in zip(links, rows, strict=True)})
    mine = [r for r in last.values() if r["role"] == "department"]
    return Counter(f"{r['supplier']}, {r['match_key'] if r['person_ref'] else r['outcome']}" for r in mine)


def test_another_catalogue_is_worked_out_compared_switched_to_and_the_old_one_removed(
    plain: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = plain.model_copy(update=NEW)
    for name, value in plain.environment().items():
        monkeypatch.setenv(name, value)
    provision(plain, suppliers=SUPPLIERS)
    population = Population(plain, people=200)
    population.publish(events=600)
    population.correct(seed=1, count=40)
    population.delete(seed=2, count=20)
    was = ended(plain, tmp_path / "old")
    before = assert_is_the_oracles(was)

    provision(new, suppliers=SUPPLIERS)
    now = ended(new, tmp_path / "new")
    after = assert_is_the_oracles(now)
    assert table(plain, "research.person") == before, "the edition in use is left alone"

    found = lethe("compare", "plain", "v2")
    assert found["behind"] == []
    both = before.keys() & after.keys()
    alike = sum(before[k][wire.HEADER_BYTES :] == after[k][wire.HEADER_BYTES :] for k in both)
    assert found["persons"] == {
        "alike": alike,
        "changed": len(both) - alike,
        "added": len(after.keys() - before.keys()),
        "removed": len(before.keys() - after.keys()),
    }
    assert not found["alike"]
    for edition, settings in (("old", plain), ("new", new)):
        assert {c["what"]: c[edition] for c in found["links"] if c[edition]} == linked(settings)
    assert linked(plain) != linked(new)
    assert not any(key.decode() in json.dumps(found) for key in before), "no id is told"
    assert lethe("compare", "plain", "plain")["alike"]

    enclave = str(tmp_path.parent / "enclave")
    first = lethe("enclave", "sync", "--to", enclave)
    refused = lethe("rollout", "retire", "plain", "--reason", "a test", "--execute", code=1)
    assert "is in use" in refused
    assert lethe("rollout", "switch", "v2")["executed"] is False
    assert lethe("rollout", "switch", "v2", "--reason", "a test", "--execute")["was"] == "plain"
    assert [(r["edition"], r["in_use"]) for r in lethe("rollout", "ls")] == [("plain", False), ("v2", True)]

    second = lethe("enclave", "sync", "--to", enclave)
    assert [r["rows"]["persons"] for r in (first, second)] == [len(before), len(after)], "it follows the switch"
    assert second["rebuilt"] == "the topic was made anew"

    while "stop first" in (said := CliRunner().invoke(app, ["rollout", "retire", "plain"])).stderr:
        pass  # members count until their session times out
    assert said.exit_code == 0
    assert "research.person" in _topics(plain), "a preview removes nothing"
    gone = lethe("rollout", "retire", "plain", "--reason", "a test", "--execute")
    topics = _topics(plain)
    assert not set(gone["topics"]) & topics
    assert {"research.person", "linkage.link", "state.join"} <= set(gone["topics"])
    assert {"identified.dfe.person", "governance.clock", "governance.ledger", "research.person.v2"} <= topics
    assert not [n for n in NAMES if (plain.state / n).exists()]
    assert table(new, "research.person") == after
    kinds = [(o.kind, o.state) for o in OperationLog(plain, Registry(plain.registry)).all()]
    assert kinds == [("rollout_switch", "done"), ("rollout_retire", "done")]
    assert "there is v2: set LETHE_EDITION" in lethe("reconcile", code=1), "not that all is lost"
    for command in (["provision"], ["supplier", "add", "council-eastham"]):
        assert "was retired; there is v2: set LETHE_EDITION" in lethe(*command, code=1), "not an empty flow beside it"
    assert _topics(plain) == topics


def in_checkout(code: Path, settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of another version."""
    env = {**os.environ, **settings.environment(), "PYTHONPATH": str(code)}
    command = [sys.executable, "-m", "infra.cli", *arguments]
    return subprocess.run(command, cwd=code, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_a_contract_that_does_not_fit_the_versions_before_it_is_rolled_out_beside_them(
    plain: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout whose `linkage.link` is another record to Avro: no reader of the old can read it."""
    old = plain.model_copy(update=NEW)
    code, new = tmp_path / "code", old.model_copy(update={"edition": "v3"})
    for package in ("infra", "producers", "schemas", "stream_processors"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    contract = code / "schemas" / "linkage" / "link.avsc"
    contract.write_text(contract.read_text().replace('"name": "Link"', '"name": "Tie"', 1))
    assert '"Tie"' in contract.read_text()
    refused = in_checkout(code, old, "provision")
    assert refused.returncode == 1
    assert "linkage.link" in refused.stderr

    assert in_checkout(code, new, "provision").returncode == 0
    worker = Workers(old, tmp_path / "wrong", code)
    with worker:
        worker.start("link")
        assert worker.wait_exit("link", 60) == 1
    assert "linkage.link" in worker.log("link"), "the new code does not work on the old edition"
    ended(new, tmp_path / "new", code)
    for name, value in new.environment().items():
        monkeypatch.setenv(name, value)
    found = json.loads(in_checkout(code, new, "compare", "v2", "v3", "--json").stdout)
    assert found["alike"], "another contract, and the same people"
    assert found["persons"]["alike"] == len(table(old, "research.person")) > 0
    done = in_checkout(code, new, "rollout", "switch", "v3", "--reason", "a contract", "--execute")
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("LETHE_EDITION", "")
    synced = lethe("enclave", "sync", "--to", str(tmp_path.parent / "enclave"))
    assert synced["rebuilt"] == "the topic was made anew"
    assert synced["rows"]["persons"] == len(table(new, "research.person"))
    back = in_checkout(code, old, "rollout", "switch", "v2", "--reason", "back to it", "--execute")
    assert back.returncode == 0, back.stderr


def test_destroy_leaves_nothing_of_any_edition(
    plain: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """v2 is in use, v3 beside it."""
    settings = plain.model_copy(update=NEW)
    for name, value in {**settings.environment(), "LETHE_EDITION": ""}.items():
        monkeypatch.setenv(name, value)
    assert {"research.person.v2", "research.person.v3"} <= _topics(plain)
    export_enquiry_key(settings)
    assert lethe("destroy")["editions"] == ["v3"]
    enclave = str(tmp_path.parent / "enclave")
    lethe("enclave", "sync", "--to", enclave)
    arguments = ["destroy", "--execute", "--before-hard-stop", "--reason", "a test", "--enclave", enclave]
    deadline = time.monotonic() + 120
    while (said := CliRunner().invoke(app, [*arguments, "--json"])).exit_code:
        assert "these run" in said.stderr, (said.output, said.exception)  # members count until their session times out
        assert time.monotonic() < deadline
    zones = ("identified", "linkage", "research", "state", "governance")
    left = {t for t in _topics(plain) if t.partition(".")[0] in zones}
    assert left == {"governance.acknowledgement", *(f"governance.ledger{e}" for e in ("", ".v2", ".v3"))}
    assert not plain.state.exists()
    assert {p.name for p in plain.keys.iterdir() if p.is_file()} == {"certificate.key", "certificate.pub"}
    journal = json.loads((plain.base / "destruction" / "journal.json").read_text())
    assert "v3" in journal["done"]["editions"]


def _topics(settings: Settings) -> set[str]:
    return set(AdminClient({"bootstrap.servers": settings.bootstrap}).list_topics(timeout=30).topics)
