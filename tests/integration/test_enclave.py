"""The enclave's sync on a real broker: killed, resumed, away for too long, and what it says of deletions."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from confluent_kafka import Producer

from infra.provision import provision
from infra.settings import Settings
from infra.topic_table import table
from schemas import contracts, wire
from schemas.codec import decode, encode
from schemas.registry import Registry
from stream_processors.access import ADMIN
from stream_processors.enclave.changes import TOPIC
from stream_processors.enclave.store import FILE, Store
from stream_processors.runtime.kafka import producer_config
from tests.integration.containers import running_stack
from tests.stream_processors.enclave.support import Row, batch, bytes_of, held, ordered, person_id, record

pytestmark = pytest.mark.containers
RESEARCH = contracts.contract(TOPIC.replace(".", "/"))
ACKNOWLEDGED = contracts.contract("governance/acknowledgement")


class Topic:
    """research.person as `publish` would write it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        registry = Registry(settings.registry)
        self._id = registry.schema_id(TOPIC)
        registry.close()
        self._producer = Producer(producer_config(settings, "test-publish", "test-publish"))
        self._producer.init_transactions(30)
        self.live: dict[str, Row] = {}

    def put(self, rows: dict[int, Row | None], commit: bool = True) -> None:
        """Records and tombstones by number of the person, in one transaction."""
        self._producer.begin_transaction()
        for n, row in rows.items():
            value = wire.frame(self._id, encode(batch([row]), RESEARCH))[0] if row else None
            self._producer.produce(TOPIC, value, person_id(n).encode())
        self._producer.flush(30)
        if not commit:
            self._producer.abort_transaction(30)
            return
        self._producer.commit_transaction(30)
        for n, row in rows.items():
            if row:
                self.live[person_id(n)] = ordered(row)
            else:
                self.live.pop(person_id(n), None)


@pytest.fixture(scope="module")
def topic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topic]:
    with running_stack(tmp_path_factory.mktemp("enclave-stack"), security="tls") as running:
        provision(running.settings, suppliers=["dfe"])
        yield Topic(running.settings.acting_as(ADMIN))  # its syncs act for the enclave


def start(settings: Settings, folder: Path, *options: str) -> subprocess.Popen[str]:
    env = {**os.environ, **settings.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "infra.cli", "enclave", "sync", "--to", str(folder), "--json", *options]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def sync(settings: Settings, folder: Path, *options: str) -> dict[str, Any]:
    """One sync; what it printed."""
    process = start(settings, folder, *options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    done: dict[str, Any] = json.loads(out)
    return done


def rows_in(folder: Path) -> dict[str, Row]:
    with duckdb.connect(str(folder / FILE), read_only=True) as connection:
        return held(connection)


def people(numbers: range, seed: int) -> dict[int, Row | None]:
    rng = random.Random(seed)
    return {n: record(rng, person_id(n)) for n in numbers}


def test_a_file_that_is_killed_and_resumed_equals_the_compacted_topic(topic: Topic, tmp_path: Path) -> None:
    folder, rng = tmp_path / "enclave", random.Random(5)
    topic.put(people(range(3_000), 1))
    topic.put(people(range(500), 99), commit=False)
    kills = 0
    for seed in range(4):
        process = start(topic.settings, folder)
        time.sleep(rng.uniform(1.0, 3.5))  # a moment by chance is the point
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        topic.put(people(range(seed * 300, seed * 300 + 400), seed) | dict.fromkeys(range(seed * 150, seed * 150 + 99)))
    done = sync(topic.settings, folder)
    assert kills, "at least one was killed before it was done"
    assert done["refused"] == 0
    assert rows_in(folder) == topic.live
    assert sync(topic.settings, folder)["records"] == 0, "it goes on from where it was"


def test_deleted_people_are_out_of_every_byte_and_acknowledged(topic: Topic, tmp_path: Path) -> None:
    folder = tmp_path / "enclave"
    topic.put(people(range(5_000, 5_400), 6))
    sync(topic.settings, folder, "--parquet")
    before = bytes_of(folder)
    gone = [n for n in range(5_000, 5_400, 7) if person_id(n).encode() in before]
    assert len(gone) > 20, "the search finds what is there"
    topic.put(dict.fromkeys(gone))
    done = sync(topic.settings, folder)
    after = bytes_of(folder)
    assert [n for n in gone if person_id(n).encode() in after] == []
    assert (done["tombstones"], done["swept"], done["acknowledged"]) == (len(gone), True, "governance.acknowledgement")
    rows = table(topic.settings, "governance.acknowledgement")
    said = decode([v[wire.HEADER_BYTES :] for v in rows.values()], ACKNOWLEDGED).to_pylist()
    with Store(folder) as store:
        assert {r["partition"]: r["next_offset"] for r in said} == store.position.offsets
    written = json.loads((folder / "acknowledgement.json").read_text())
    assert {p["partition"]: p["next_offset"] for p in written["partitions"]} == store.position.offsets
    assert rows_in(folder) == topic.live


def test_a_file_that_is_older_than_tombstones_live_is_rebuilt(topic: Topic, tmp_path: Path) -> None:
    folder = tmp_path / "enclave"
    topic.put(people(range(6_000, 6_010), 8))
    sync(topic.settings, folder)
    with Store(folder) as store:
        store.connection.execute("INSERT INTO persons (person_id) VALUES ('a deletion that was missed')")
        store.caught_up(store.position.as_of_ms - 20 * 86_400_000)
    done = sync(topic.settings, folder)
    assert "older than tombstones live" in done["rebuilt"]
    assert rows_in(folder) == topic.live


def test_following_keeps_up_and_lets_readers_in_between(topic: Topic, tmp_path: Path) -> None:
    folder = tmp_path / "enclave"
    process = start(topic.settings, folder, "--follow", "--sweep-s", "0")
    try:
        for row in (record(random.Random(1), person_id(7_000)), None):
            topic.put({7_000: row})
            until(lambda row=row: (person_id(7_000) in readable(folder)) is (row is not None))  # type: ignore[misc]
        until(lambda: person_id(7_000).encode() not in bytes_of(folder))
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()
    assert rows_in(folder) == topic.live


def readable(folder: Path) -> dict[str, Row]:
    try:
        return rows_in(folder)
    except duckdb.Error:  # not there yet, or a round is under way
        return {}


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_scan_finds_what_has_no_business_in_the_research_zone(topic: Topic, tmp_path: Path) -> None:
    folder, planted = tmp_path / "enclave", tmp_path / "canaries.json"
    planted.write_text(json.dumps({"surname": ["Zqvkxjcanary"]}))
    topic.put(people(range(8_100, 8_400), 11))
    sync(topic.settings, folder)
    code, found = scan(topic.settings, planted, folder)
    assert (code, found["found"]) == (0, {})
    assert found["records"] >= 300
    topic.put({8_000: record(random.Random(1), person_id(8_000)) | {"area": "SE13 7AB, Zqvkxjcanary"}})
    sync(topic.settings, folder)
    code, found = scan(topic.settings, planted, folder)
    assert code == 1
    assert found["found"].keys() == {
        "value.postcode",
        "value.canary.surname",
        "cell.postcode",
        "cell.canary.surname",
        "file.canary.surname",
    }


def scan(settings: Settings, canaries: Path, enclave: Path) -> tuple[int, dict[str, Any]]:
    env = {**os.environ, **settings.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
    options = ["--canaries", str(canaries), "--enclave", str(enclave), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "scan", *options], env=env, capture_output=True, text=True, timeout=120
    )
    return done.returncode, json.loads(done.stdout)


def test_a_broker_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    process = start(Settings(bootstrap="127.0.0.1:1"), tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "nobody answers at 127.0.0.1:1" in err
    assert "lethe up" in err
