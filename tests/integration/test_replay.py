"""Replay on a real broker: each processor in turn reads again from the beginning, killed on the way, while suppliers go
on publishing. At rest the research topic is the oracle's, byte for byte per key, and who was deleted stays deleted."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from infra.cli import app
from infra.operation import OperationLog
from infra.provision import provision
from infra.replay.groups import Groups
from infra.settings import Settings
from infra.topic_table import table
from schemas.registry import Registry
from stream_processors.runtime.kafka import producer_config
from stream_processors.runtime.partition import partition_of
from stream_processors.topology import NAMES
from tests.integration.containers import running_stack
from tests.integration.test_crash import SUPPLIERS, Population, assert_as_the_oracle_says
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.crash, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("replay")
    with running_stack(home) as stack:
        small = {"home": home, "batch_records": 400, "session_timeout_ms": 6_000, "partitions": 2}
        found = stack.settings.model_copy(update=small)
        provision(found, suppliers=SUPPLIERS)
        yield found


def lethe(*arguments: str, code: int = 0) -> Any:
    said = CliRunner().invoke(app, [*arguments, "--json"])
    assert said.exit_code == code, said.output
    return json.loads(said.stdout) if said.stdout else said.stderr


@contextmanager
def live_traffic(population: Population) -> Iterator[None]:
    """Records, corrections and deletions, until the block ends."""
    over = threading.Event()

    def publish() -> None:
        seed = 100
        while not over.wait(0.5):
            population.publish(events=60, seed=seed)
            population.correct(seed=seed, count=5)
            population.delete(seed=seed, count=4)
            seed += 1

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def until_said_anew(workers: Workers, name: str, times: int) -> None:
    deadline = time.monotonic() + 240
    while workers.log(name).count('"said_anew"') < times:
        assert workers.alive(name), workers.log(name)[-2_000:]
        assert time.monotonic() < deadline, f"{name} is not through:\n{workers.log(name)[-3_000:]}"
        time.sleep(0.1)  # a worker tells its log and nobody else


SOME = ("pseudonymise", "publish")


@pytest.mark.parametrize(
    "names",
    [SOME, pytest.param(tuple(n for n in NAMES if n not in SOME), marks=pytest.mark.long)],
    ids=["some", "the others"],
)
def test_each_processor_reads_again_from_the_beginning_during_live_flow_and_is_killed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    population, reason = Population(settings, people=200), f"a test of {names[0]}"
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        population.publish(events=600)
        population.delete(seed=1, count=40)
        workers.at_rest()
        lost = sorted(table(settings, "research.person"))[:5]
        groups = Groups(settings)
        with live_traffic(population):
            for name in names:
                refused = lethe("replay", name, "--from-beginning", "--reason", reason, "--execute", code=1)
                assert "stop first what is running" in refused
                workers.kill(name)
                while groups.members(name):  # a killed member counts until its session times out
                    time.sleep(0.2)
                if name == "publish":  # what was lost on the way is said again
                    rogue = Producer(producer_config(settings, "rogue"))
                    for key in lost:
                        rogue.produce("research.person", None, key, partition_of(key, settings.partitions))
                    rogue.flush()
                preview = lethe("replay", name, "--from-beginning")
                assert preview["executed"] is False
                assert preview["processors"][0]["again"] > 0
                assert preview["processors"][0]["seconds"] > 0, "measured on a sample"
                assert lethe("replay", name, "--from-beginning", "--reason", reason, "--execute")["executed"]
                workers.start(name, kill_at="produced:1" if NAMES.index(name) % 2 else "committed:1")
                assert workers.wait_exit(name, 180) == -signal.SIGKILL, name
                workers.start(name)
                until_said_anew(workers, name, settings.partitions)
        groups.close()
        workers.at_rest()
        assert_as_the_oracle_says(workers)
        assert set(lost) & set(table(settings, "research.person"))
        done = OperationLog(settings, Registry(settings.registry)).all()
        mine = [(o.kind, o.state) for o in done if o.reason == reason]
        assert mine == [("replay", "done")] * len(names)

        for name in names:
            assert workers.stop(name) == 0
            workers.start(name)  # through is through: nobody starts over
        workers.at_rest()
        for name in names:
            assert workers.log(name).count('"said_anew"') == settings.partitions, name


def test_a_part_is_read_again_from_a_file_and_from_a_moment(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    population, file = Population(settings, people=200), tmp_path / "offsets.csv"
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start_all()
        population.publish(events=300, seed=900)
        workers.at_rest()
        for name in ("join", "pseudonymise"):
            assert workers.stop(name) == 0
        groups = Groups(settings)
        while groups.members("join") or groups.members("pseudonymise"):
            time.sleep(0.2)
        groups.close()
        preview = lethe("replay", "linkage.activity", "--by-duration", "2m", "--partitions", "1", "--export", str(file))
        names = [p["processor"] for p in preview["processors"]]
        assert names == ["join", "retention.activity"]
        assert set(preview["live"]) == {"retention.activity"}
        mine = [line for line in file.read_text().splitlines() if not line.startswith("retention")]
        file.write_text("\n".join(mine) + "\n")
        said = lethe(
            "replay", "join", "--from-file", str(file), "--reason", "a part", "--by", "A. Officer", "--execute"
        )
        (row,) = said["processors"]
        assert 0 < row["again"] < row["read"]
        said = lethe("replay", "pseudonymise", "--to-offset", "20", "--reason", "a part", "--execute")
        assert said["processors"][0]["again"] > 0
        for name in ("join", "pseudonymise"):
            workers.start(name)
            until_said_anew(workers, name, settings.partitions)
        workers.at_rest()
        assert_as_the_oracle_says(workers)
        assert CliRunner().invoke(app, ["replay", "join", "--to-offset", "99999999"]).exit_code == 2
        said = CliRunner().invoke(app, ["replay", "join", "--to-datetime", "2100-01-01T00:00"])
        assert (said.exit_code, "nothing to read again" in said.output) == (2, True)
        assert CliRunner().invoke(app, ["replay", "join"]).exit_code == 2
