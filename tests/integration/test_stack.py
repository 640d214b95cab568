"""The stack that the tests run on, whichever way it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from infra.images.build import tag
from infra.provision import provision
from infra.settings import Settings
from tests.integration.containers import (
    OWNER,
    TEST_BROKER,
    RunningStack,
    chosen,
    owner,
    remove_orphans,
    running_stack,
)

pytestmark = pytest.mark.containers
ROOT = Path(__file__).parents[2]
only_containers = pytest.mark.skipif(chosen()[0] != "containers", reason="no containers here")


def new_topic(settings: Settings, name: str) -> str:
    admin = AdminClient({"bootstrap.servers": settings.bootstrap})
    for created in admin.create_topics([NewTopic(name, 1, 1)]).values():
        created.result(30)
    until = time.monotonic() + 30
    while not any(p.leader >= 0 for p in admin.list_topics(name, 10).topics[name].partitions.values()):
        assert time.monotonic() < until, "the topic has no leader"
        time.sleep(0.05)  # the broker tells nobody when it knows a topic that the controller has made
    return name


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def consumer(stack: RunningStack) -> Iterator[Consumer]:
    found = Consumer(
        {
            "bootstrap.servers": stack.settings.bootstrap,
            "group.id": "test-stack",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    yield found
    found.close()


def test_what_a_transaction_commits_is_read_and_what_it_aborts_is_not(stack: RunningStack, consumer: Consumer) -> None:
    topic = new_topic(stack.settings, "test-stack.transaction")
    producer = Producer({"bootstrap.servers": stack.settings.bootstrap, "transactional.id": "test-stack"})
    producer.init_transactions(30)
    for value, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush()  # an abort would otherwise drop what was never sent
        end(30)
    consumer.subscribe([topic])
    message = consumer.poll(30)
    assert message is not None
    assert message.value() == b"committed"


def test_the_broker_takes_its_settings_from_the_common_file(stack: RunningStack) -> None:
    admin = AdminClient({"bootstrap.servers": stack.settings.bootstrap})
    (described,) = admin.describe_configs([ConfigResource(ResourceType.BROKER, "1")]).values()
    found = {name: entry.value for name, entry in described.result(30).items()}
    lines = (ROOT / "infra/broker/broker.properties").read_text().splitlines()
    wanted = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert {name: found.get(name) for name in wanted} == wanted


def test_segment_files_can_be_searched(stack: RunningStack) -> None:
    topic = new_topic(stack.settings, "test-stack.bytes")
    producer = Producer({"bootstrap.servers": stack.settings.bootstrap})
    producer.produce(topic, b"a-needle-in-a-segment")
    assert producer.flush(30) == 0
    segment = stack.broker_log_dir / f"{topic}-0" / "00000000000000000000.log"
    assert b"a-needle-in-a-segment" in segment.read_bytes()


def test_a_schema_comes_back_as_it_was_registered(stack: RunningStack) -> None:
    client = SchemaRegistryClient({"url": stack.settings.registry})
    text = '{"type":"record","name":"R","fields":[{"name":"f","type":"string","class":"identifier"}]}'
    number = client.register_schema("test-stack-value", Schema(text, "AVRO"))
    assert yaml.safe_load(client.get_schema(number).schema_str) == yaml.safe_load(text)


def test_provisioning_twice_changes_nothing(stack: RunningStack) -> None:
    first = provision(stack.settings)
    second = provision(stack.settings)
    assert set(first.created) <= {s.name for s in first.topics}
    assert (second.created, second.corrected) == ((), ())
    assert second.schema_ids == first.schema_ids


def test_deleted_segments_are_gone_within_seconds(stack: RunningStack) -> None:
    topic = new_topic(stack.settings, "test-stack.deletion")
    admin = AdminClient({"bootstrap.servers": stack.settings.bootstrap})
    (described,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    found = described.result(30)
    assert found["file.delete.delay.ms"].value == TEST_BROKER["log.segment.delete.delay.ms"]
    assert found["message.timestamp.type"].value == "LogAppendTime"


def test_broker_settings_can_be_added(tmp_path: Path) -> None:
    with running_stack(tmp_path, {"log.cleaner.backoff.ms": "250"}) as stack:
        admin = AdminClient({"bootstrap.servers": stack.settings.bootstrap})
        (described,) = admin.describe_configs([ConfigResource(ResourceType.BROKER, "1")]).values()
        assert described.result(30)["log.cleaner.backoff.ms"].value == "250"
        assert not (tmp_path / "data" / "kafka" / "lost+found").exists()
        assert stack.settings.bootstrap.startswith("127.0.0.1:")


@only_containers
def test_containers_of_killed_runs_are_removed_and_nobody_elses() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    labels = {"ended": owner(ended.pid), "mine": owner(os.getpid()), "elsewhere": f"elsewhere/1/{ended.pid}/1"}
    made = {name: _docker("create", "--label", f"{OWNER}={label}", tag("kafka")) for name, label in labels.items()}
    try:
        remove_orphans()
        left = _docker("ps", "--all", "--quiet", "--no-trunc").split()
        assert {name for name, number in made.items() if number in left} == {"mine", "elsewhere"}
    finally:
        for number in made.values():
            subprocess.run(["docker", "rm", "--volumes", number], capture_output=True, check=False)


@only_containers
def test_a_broker_that_ends_leaves_no_container(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="NoSuchClass"),
        running_stack(tmp_path, {"metric.reporters": "NoSuchClass"}),
    ):
        pass
    assert not _docker("ps", "--all", "--quiet", "--filter", f"volume={tmp_path / 'data' / 'kafka'}")


@only_containers
def test_a_container_publishes_on_loopback_only(stack: RunningStack) -> None:
    port = stack.settings.bootstrap.rpartition(":")[2]
    (line,) = [x for x in _docker("ps", "--format", "{{.Ports}}").splitlines() if f":{port}->" in x]
    assert line.startswith(f"127.0.0.1:{port}->")


def test_compose_runs_the_same_images_on_loopback() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert {s["image"] for s in services.values()} == {tag("kafka"), tag("registry")}
    ports = [port for s in services.values() for port in s["ports"]]
    settings = Settings.model_construct()
    assert sorted(p.rpartition(":")[0] for p in ports) == sorted(
        [settings.bootstrap, settings.registry.removeprefix("http://").partition("/")[0]]
    )


def test_the_clock_of_the_broker_is_this_machines(stack: RunningStack, consumer: Consumer) -> None:
    topic = new_topic(stack.settings, "test-stack.clock")
    producer = Producer({"bootstrap.servers": stack.settings.bootstrap})
    producer.produce(topic, b"x", timestamp=1)
    assert producer.flush(30) == 0
    consumer.subscribe([topic])
    message = consumer.poll(30)
    assert message is not None
    assert abs(message.timestamp()[1] / 1000 - time.time()) < 60
