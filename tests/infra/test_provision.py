"""Provisioning, against a real broker and registry. Each test has suppliers of its own."""

from __future__ import annotations

import copy
import itertools
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from confluent_kafka.schema_registry import SchemaRegistryClient
from typer.testing import CliRunner

from infra.commands import provision as provision_command
from infra.commands.supplier import supplier_app
from infra.provision import (
    BrokerDownError,
    PartitionsDifferError,
    add_supplier,
    provision,
    suppliers_of,
)
from infra.settings import Settings
from schemas import contracts
from schemas.contracts import Contract
from schemas.registry import (
    Registry,
    RegistryDownError,
    SchemaDriftError,
    SchemaIncompatibleError,
    SchemaNotRegisteredError,
    UnknownSchemaError,
)

containers = pytest.mark.containers
_numbers = itertools.count()


@pytest.fixture
def settings(stack: Any) -> Settings:
    found: Settings = stack.settings
    return found


@pytest.fixture
def council(settings: Settings) -> Iterator[str]:
    """A council of the test's own; its topics and schemas go with it, since others share the stack."""
    name = f"council-t{os.getpid()}x{next(_numbers)}"
    yield name
    admin = AdminClient({"bootstrap.servers": settings.bootstrap})
    mine = [t for t in admin.list_topics(timeout=10).topics if t.startswith(f"identified.{name}")]
    for future in (admin.delete_topics(mine) if mine else {}).values():
        future.result()
    client = SchemaRegistryClient({"url": settings.registry})
    for subject in client.get_subjects():
        if subject.startswith(f"identified.{name}"):
            client.delete_subject(subject)


def config_of(settings: Settings, topic: str) -> dict[str, str]:
    admin = AdminClient({"bootstrap.servers": settings.bootstrap})
    (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result().items()}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@containers
def test_a_second_run_finds_nothing_to_do(settings: Settings, council: str) -> None:
    first = provision(settings, [council])
    second = provision(settings, [council])
    assert {f"identified.{council}.{d}" for d in ("person", "safeguarding", "quarantine")} <= set(first.created)
    assert (second.created, second.corrected) == ((), ())
    assert second.schema_ids == first.schema_ids
    admin = AdminClient({"bootstrap.servers": settings.bootstrap})
    found = admin.list_topics(timeout=10).topics
    for spec in first.topics:
        assert len(found[spec.name].partitions) == settings.partitions
        assert all(p.leader >= 0 for p in found[spec.name].partitions.values())
    registry = Registry(settings.registry)
    for spec in first.topics:
        if spec.contract is None:
            with pytest.raises(SchemaNotRegisteredError):
                registry.schema_id(spec.name)
        else:
            id_ = first.schema_ids[spec.name]
            assert registry.check(spec.name, spec.contract) == registry.schema_id(spec.name) == id_
            assert registry.compatibility(spec.name) == spec.compatibility
            assert registry.writer(id_) == spec.contract.parsed


@containers
def test_a_supplier_is_added_at_run_time(settings: Settings, council: str) -> None:
    assert council not in suppliers_of(settings)
    done = add_supplier(settings, council)
    assert len(done.created) == 4
    assert all(name.startswith(f"identified.{council}.") for name in done.created)
    assert council in suppliers_of(settings)
    assert add_supplier(settings, council).created == ()


@containers
def test_settings_that_differ_are_corrected(settings: Settings, council: str) -> None:
    short = {"segment.ms": "5000", "delete.retention.ms": "5000", "min.cleanable.dirty.ratio": "0.01"}
    add_supplier(settings, council, short)
    topic = f"identified.{council}.person"
    assert {k: config_of(settings, topic)[k] for k in short} == short
    again = add_supplier(settings, council, {**short, "min.cleanable.dirty.ratio": "0.010"})
    assert again.corrected == ()
    back = add_supplier(settings, council)
    assert topic in back.corrected
    declared = next(s for s in back.topics if s.name == topic).config
    now = config_of(settings, topic)
    assert {k: now[k] for k in declared} == dict(declared)


@containers
def test_another_number_of_partitions_is_refused_and_nothing_is_made(settings: Settings, council: str) -> None:
    add_supplier(settings, council)
    other = settings.model_copy(update={"partitions": settings.partitions + 1})
    with pytest.raises(PartitionsDifferError, match=f"identified.{council}.person has {settings.partitions}"):
        add_supplier(other, council)
    with pytest.raises(PartitionsDifferError):
        provision(other, [council, f"{council}-new"])
    assert f"{council}-new" not in suppliers_of(settings)


@containers
def test_an_unknown_supplier_makes_nothing(settings: Settings) -> None:
    with pytest.raises(contracts.UnknownSupplierError):
        add_supplier(settings, "hackney")


def changed(contract: Contract, **field: Any) -> Contract:
    schema = copy.deepcopy(contract.json)
    schema["fields"].append({"name": "added", "classification": "attribute", **field})
    return Contract(contract.name, json.dumps(schema))


@containers
def test_the_registry_refuses_what_does_not_fit_and_code_that_is_behind_stops(settings: Settings, council: str) -> None:
    add_supplier(settings, council)
    topic = f"identified.{council}.person"
    now = contracts.contract("identified/council.person")
    registry = Registry(settings.registry)
    with pytest.raises(SchemaIncompatibleError, match=topic):
        registry.register(topic, changed(now, type="string"))
    newer = changed(now, type=["null", "string"], default=None)
    assert registry.register(topic, newer) == registry.check(topic, newer)
    with pytest.raises(SchemaDriftError, match=f"{topic}.*lethe supplier add {council}"):
        registry.check(topic, now)
    with pytest.raises(SchemaDriftError):
        add_supplier(settings, council)


@containers
def test_an_id_that_the_registry_does_not_know_is_unknown(settings: Settings) -> None:
    with pytest.raises(UnknownSchemaError):
        Registry(settings.registry).writer(2_000_000_000)


@containers
def test_a_value_of_5_mb_is_taken_in_and_quarantined(settings: Settings, council: str) -> None:
    add_supplier(settings, council)
    failed: list[Any] = []
    producer = Producer({"bootstrap.servers": settings.bootstrap, "message.max.bytes": 10_000_000})
    for topic in (f"identified.{council}.person", f"identified.{council}.quarantine"):
        value = os.urandom(5 * 1024 * 1024)
        producer.produce(topic, value, b"k", on_delivery=lambda e, _: failed.append(e))
    assert producer.flush(30) == 0
    assert failed == [None, None]


@containers
def test_the_commands(settings: Settings, council: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_BOOTSTRAP", settings.bootstrap)
    monkeypatch.setenv("LETHE_REGISTRY", settings.registry)
    monkeypatch.setenv("LETHE_PARTITIONS", str(settings.partitions))
    run = CliRunner()
    added = run.invoke(supplier_app, ["add", council])
    assert (added.exit_code, added.output.count("created")) == (0, 4)
    listed = json.loads(run.invoke(supplier_app, ["ls", "--json"]).stdout)
    assert {"supplier": council, "topics": [f"identified.{council}.{d}" for d in ("person", "safeguarding")]} in listed
    assert f"{council}: person, safeguarding" in run.invoke(supplier_app, ["ls"]).stdout
    refused = run.invoke(supplier_app, ["add", "hackney"])
    assert (refused.exit_code, "unknown supplier" in refused.output) == (1, True)


def test_brokers_that_are_down_are_waited_for_by_name_until_the_deadline() -> None:
    said: list[str] = []
    nobody = Settings(bootstrap=f"127.0.0.1:{free_port()}")
    with pytest.raises(BrokerDownError, match="gave up waiting for Kafka at 127"):
        suppliers_of(nobody, on_wait=said.append, deadline_seconds=4)
    assert said
    assert nobody.bootstrap in said[0]


@containers
def test_a_registry_that_is_down_is_waited_for_by_name(settings: Settings, council: str) -> None:
    said: list[str] = []
    alone = settings.model_copy(update={"registry": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(RegistryDownError, match="gave up waiting for the schema registry"):
        add_supplier(alone, council, on_wait=said.append, deadline_seconds=1)
    assert alone.registry in said[0]
    assert f"identified.{council}.person" in add_supplier(settings, council).schema_ids


@containers
def test_the_command_provisions(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_BOOTSTRAP", settings.bootstrap)
    monkeypatch.setenv("LETHE_REGISTRY", settings.registry)
    monkeypatch.setenv("LETHE_PARTITIONS", str(settings.partitions))
    app = typer.Typer()
    app.command()(provision_command.provision)
    assert CliRunner().invoke(app).exit_code == 0
    again = CliRunner().invoke(app)
    assert "0 created, 0 corrected" in again.stdout
