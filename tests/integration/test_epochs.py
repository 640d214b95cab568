"""Keys are rotated on a real broker while anything may be killed: no link moves, nothing of the old epoch is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue import configured_catalogue
from infra.demo import live_records
from infra.epochs import Stage, epoch_key, epochs, load
from infra.keys import read_enquiry_key
from infra.provision import provision
from infra.rotation import live_by_epoch
from infra.settings import Settings
from infra.topic_table import messages, table
from schemas import contracts, wire
from schemas.codec import decode
from stream_processors import oracle
from stream_processors.access import ADMIN
from stream_processors.areas import load_areas
from stream_processors.enquiry.seal import public_key
from stream_processors.runtime.records import HEARTBEAT_KEY
from tests.integration.containers import RunningStack, running_stack
from tests.integration.test_crash import SUPPLIERS, Population
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
DOWNSTREAM = ("linkage.contribution", "research.person")


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack of its own for each test: each has keys of its own."""
    with running_stack(tmp_path_factory.mktemp("epochs"), security="tls") as stack:
        yield stack


@pytest.fixture
def settings(fresh: RunningStack, tmp_path: Path) -> Settings:
    found = fresh.settings.model_copy(
        update={
            "home": tmp_path,
            "credentials": fresh.settings.access,
            "batch_records": 400,
            "session_timeout_ms": 6_000,
            "near_matches": False,  # those near a threshold may move: see ADR 26
        }
    )
    provision(found, suppliers=SUPPLIERS)
    return found


def lethe(settings: Settings, *words: str) -> subprocess.Popen[bytes]:
    """The command, in a process of its own."""
    env = {**os.environ, **settings.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", "from infra.cli import app; app()", *words],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def outcome(process: subprocess.Popen[bytes], code: int = 0) -> dict[str, Any]:
    """What it printed as JSON."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err.decode()[-2_000:]
    found: dict[str, Any] = json.loads(out)
    return found


def wait_for(settings: Settings, stage: Stage, rotating: subprocess.Popen[bytes], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while load(settings).stage != stage:
        assert rotating.poll() is None, rotating.communicate()
        assert time.monotonic() < deadline, f"never at {stage}"
        time.sleep(0.02)


def said(settings: Settings) -> dict[str, int]:
    """How many records lie downstream in all."""
    return {t: sum(m.key() != HEARTBEAT_KEY for m in messages(settings.acting_as(ADMIN), t)) for t in DOWNSTREAM}


def research(settings: Settings) -> dict[str, Any]:
    rows = table(settings.acting_as(ADMIN), "research.person")
    contract = contracts.contract("research/person")
    bodies = decode([v[wire.HEADER_BYTES :] for v in rows.values()], contract).to_pylist()
    return {k.decode(): v for k, v in zip(rows, bodies, strict=True)}


def differences(settings: Settings, workers: Workers) -> list[str]:
    token, research_key = workers.keys
    expected = oracle.research(
        live_records(settings.acting_as(ADMIN)),
        token,
        research_key,
        configured_catalogue(settings),
        load_areas().by_postcode,
        epochs(settings).leads,
    )
    return oracle.equal(expected, research(settings))


def test_a_rotation_moves_no_link_whatever_is_killed(settings: Settings, tmp_path: Path) -> None:
    population = Population(settings.acting_as(ADMIN), people=300)
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        population.publish(events=600)
        # Old values and deleted records lie in the log still: read again, they must not come back for a moment.
        population.correct(seed=77, count=60)
        population.delete(seed=78, count=20)
        workers.at_rest()
        ids, before = set(research(settings)), said(settings)
        assert len(ids) > 200
        assert differences(settings, workers) == []

        # Without --execute nothing is done.
        told = outcome(lethe(settings, "keys", "rotate", "--json"))
        assert told == {"stage": "steady", "leads": 1, "new_epoch": 2, "to_come": ["adding", "leading", "retiring"]}
        assert load(settings).stage == Stage.steady

        # At the first stage the command and pseudonymise are killed, at the second link; then it goes on to the end.
        rotating = lethe(settings, "keys", "rotate", "--execute")
        wait_for(settings, Stage.adding, rotating)
        rotating.kill()
        rotating.communicate()
        workers.kill("pseudonymise")
        workers.start("pseudonymise")
        rotating = lethe(settings, "keys", "rotate", "--execute", "--json")
        wait_for(settings, Stage.leading, rotating)
        workers.kill("link")
        workers.start("link")
        assert outcome(rotating) == {"leads": 2, "stage": "steady", "retired": 1}
        workers.at_rest()
        assert said(settings) == before, "no link has moved, not even for a moment"
        assert {t: set(c) for t, c in live_by_epoch(settings).items()} == {
            "linkage.identity": {2},
            "linkage.candidate": {2},
        }
        assert read_enquiry_key(settings) == public_key(epochs(settings).opens[0])


@pytest.mark.long
def test_keys_are_rotated_while_records_come_change_and_go(settings: Settings, tmp_path: Path) -> None:
    population = Population(settings.acting_as(ADMIN), people=300)
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        population.publish(events=600)
        workers.at_rest()
        ids = set(research(settings))
        rotating = lethe(settings, "keys", "rotate", "--execute", "--json")
        for i, stage in enumerate((Stage.adding, Stage.leading, Stage.retiring)):
            wait_for(settings, stage, rotating)
            population.correct(seed=i, count=20)
            population.delete(seed=10 + i, count=6)
        leads = outcome(rotating)["leads"]
        workers.at_rest()
        assert differences(settings, workers) == []
        assert set(research(settings)) <= ids, "research ids stay"
        found = outcome(lethe(settings, "keys", "status", "--json"))
        assert [(e["epoch"], e["role"]) for e in found["epochs"]] == [(leads, "leads")]
        identities = table(settings.acting_as(ADMIN), "linkage.identity")
        assert found["epochs"][0]["live"]["linkage.identity"] == len(identities)
        assert outcome(lethe(settings, "keys", "rotate", "--execute", "--json"))["retired"] == leads
        assert not epoch_key(settings, leads).exists() or leads == 1
        assert epoch_key(settings, 1).exists(), "references are made under it"
