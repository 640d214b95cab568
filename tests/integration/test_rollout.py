"""Another catalogue beside the one in use, on a real broker: both editions are the oracle's, the comparison is what
their tables say, the enclave goes over, and the old edition is removed."""

from __future__ import annotations

import json
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
from infra.operation import OperationLog
from infra.provision import provision
from infra.settings import Settings
from infra.topic_table import table
from schemas import contracts, wire
from schemas.codec import decode
from schemas.registry import Registry
from stream_processors import oracle
from stream_processors.areas import load_areas
from stream_processors.enclave.sync import Options, Round, sync
from stream_processors.link import last_claims
from stream_processors.topology import NAMES
from tests.integration.containers import running_stack
from tests.integration.test_crash import SUPPLIERS, Population, _decoded
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]
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


def ended(settings: Settings, logs: Path) -> Workers:
    """Run an edition until it is at rest, and end its workers."""
    with Workers(settings, logs) as workers:
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

    refused = lethe("rollout", "retire", "plain", "--reason", "a test", "--execute", code=1)
    assert "is in use" in refused
    assert lethe("rollout", "switch", "v2")["executed"] is False
    assert lethe("rollout", "switch", "v2", "--reason", "a test", "--execute")["was"] == "plain"
    assert [(r["edition"], r["in_use"]) for r in lethe("rollout", "ls")] == [("plain", False), ("v2", True)]

    rounds: list[Round] = []
    registry = Registry(plain.registry)
    for settings in (plain, new):
        sync(settings, tmp_path / "enclave", registry, Options(), rounds.append)
    assert [r.rows["persons"] for r in rounds] == [len(before), len(after)]
    assert rounds[1].rebuilt == "the topic was made anew"

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
    kinds = [(o.kind, o.state) for o in OperationLog(plain, registry).all()]
    assert kinds == [("rollout_switch", "done"), ("rollout_retire", "done")]


def _topics(settings: Settings) -> set[str]:
    return set(AdminClient({"bootstrap.servers": settings.bootstrap}).list_topics(timeout=30).topics)
