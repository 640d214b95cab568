"""Faust's known traps, and what is set against each: every test names its trap."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types.enums import ProcessingGuarantee

from infra.settings import Settings
from infra.topics import topics_of
from schemas.rows import from_value
from stream_processors.control import app as module
from stream_processors.control.alerts import Observed
from stream_processors.control.app import LEADS_BY, READS, Control, Watchdog, _guarded, make_control
from stream_processors.control.desk import Place
from stream_processors.control.office import ENQUIRY, Came, Said
from stream_processors.control.transport import ReadCommitted
from stream_processors.quarantine import TOPIC as QUARANTINE
from tests.stream_processors.control.test_office import NOW, PARTS, asked, finding, office, request
from tests.stream_processors.tables import REGISTRY


class Nothing:
    """Looks at no cluster."""

    def accounts(self) -> list[bytes]:
        return []

    def observe(self, now_ms: int) -> list[Observed]:  # noqa: ARG002
        return []

    def partitions(self) -> list[tuple[str, int]]:
        return []


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return make_control(Settings(home=tmp_path, bootstrap="127.0.0.1:1"), office(), Nothing())


class Broker:
    """Takes records in, after failing so many times."""

    def __init__(self, control: Control, failures: int = 0) -> None:
        self.took: list[Said] = []
        self._failures = failures
        control.app.maybe_start_producer = self._producer

    async def _producer(self) -> Any:
        return self

    async def send_and_wait(self, topic: str, key: bytes, value: bytes | None, partition: int, *rest: Any) -> Any:  # noqa: ARG002
        for _ in range(50 if topic.startswith("identified") and value is not None else 1):
            await asyncio.sleep(0)  # a question takes longer than what follows it
        if self._failures:
            self._failures -= 1
            raise ConnectionError("the broker is away")
        self.took.append(Said(topic, partition, key, value))
        return SimpleNamespace(partition=partition, offset=len(self.took))


def test_trap_exactly_once_has_open_defects_so_it_is_at_least_once(control: Control) -> None:
    conf: Any = control.app.conf
    assert conf.processing_guarantee == ProcessingGuarantee.AT_LEAST_ONCE


def test_trap_aborted_transactions_are_read(control: Control) -> None:
    assert isinstance(control.app.transport, ReadCommitted)

    async def made() -> Any:
        consumer: Any = control.app.consumer
        return consumer._new_consumer_thread()._create_worker_consumer(control.app.transport)

    consumer = asyncio.new_event_loop().run_until_complete(made())
    assert consumer._isolation_level == "read_committed"


def test_trap_an_agents_exception_skips_the_record(control: Control) -> None:
    """It is quarantined with its place, and the agent goes on."""
    broker = Broker(control)
    asyncio.run(control.handle(Came(ENQUIRY, Place(1, 4), b"e" * 32, b"zq9x", NOW)))
    (said,) = broker.took
    assert said.topic == QUARANTINE
    assert said.value is not None
    assert from_value(QUARANTINE, said.value, REGISTRY)["offset"] == 4


def test_trap_a_failed_send_skips_the_record(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.001)
    monkeypatch.setattr(module, "now_ms", lambda: NOW)
    broker = Broker(control, failures=3)
    asyncio.run(control.handle(asked(request())))
    assert [s.topic for s in broker.took] == ["governance.audit", "identified.council-northam.enquiry"]


def test_trap_agents_run_side_by_side(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer does not overtake the question that it ends, nor its audit the one before."""
    monkeypatch.setattr(module, "now_ms", lambda: NOW)
    broker = Broker(control)
    control.office.desk.let_in(request(), NOW, Place(0, 0))
    for partition in range(PARTS - 1):
        control.office.take(finding(1, partition), NOW)

    async def at_once() -> None:
        await asyncio.gather(control.handle(asked(request())), control.handle(finding(1, PARTS - 1)))

    asyncio.run(at_once())
    last = {s.topic: s for s in broker.took}
    assert last["identified.council-northam.enquiry"].value is None, "no question is left lying"
    value = last["governance.audit"].value
    assert value is not None
    assert from_value("governance.audit", value, REGISTRY)["outcome"] == "held"


def test_trap_concurrency_commits_past_a_record_in_flight(control: Control) -> None:
    assert {a.concurrency for a in control.app.agents.values()} == {1}
    assert len(control.app.agents) == len(READS)


def test_trap_recovery_of_tables_sticks_so_there_are_none(control: Control) -> None:
    assert not control.app.tables
    assert not control.app.tables.changelog_topics
    assert control.app.conf.table_standby_replicas == 0


def test_trap_its_web_server_listens_everywhere_and_serves_tables(control: Control) -> None:
    assert control.app.conf.web_enabled is False


def test_trap_a_tombstone_ends_an_agent_and_an_undecodable_value_is_lost(control: Control) -> None:
    for agent in control.app.agents.values():
        topic: Any = agent.channel
        assert topic.allow_empty
        assert topic.value_type is topic.key_type is bytes
        assert topic.schema.value_serializer == topic.schema.key_serializer == "raw"


def test_trap_the_confluent_driver_drops_headers(control: Control) -> None:
    assert {url.scheme for url in control.app.conf.broker_consumer} == {"kafka"}
    assert control.app.transport.driver_version.startswith("aiokafka")


def test_trap_lz4_cannot_be_read_without_another_package() -> None:
    kinds = {s.name: s.config for s in topics_of(Settings(), ["dfe"])}
    assert {kinds[topic].get("compression.type") for topic in READS} == {"gzip"}


def test_trap_it_makes_topics_of_its_own(control: Control) -> None:
    assert control.app.conf.topic_allow_declare is False
    assert control.app.conf.topic_disable_leader is True


def test_trap_linger_is_in_seconds(control: Control) -> None:
    assert control.app.producer.linger_ms == 0


def test_the_leader_is_whoever_has_one_partition(control: Control) -> None:
    assert not control.leads, "nobody leads before it has started"
    assert LEADS_BY.topic in READS


def test_trap_a_timer_that_fails_ends_the_app() -> None:
    calls = 0

    async def fails() -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("zq9x")

    asyncio.run(_guarded(fails)())
    asyncio.run(_guarded(fails)())
    assert calls == 2


def test_trap_it_stalls_and_says_nothing(control: Control) -> None:
    ended = threading.Event()
    dog = Watchdog(control, 0.2, ended.set)
    control.beat = time.monotonic()
    dog.start()
    assert ended.wait(10)


def test_a_sign_of_life_keeps_the_watchdog_quiet(control: Control) -> None:
    control.beat = time.monotonic() + 3_600
    ended = threading.Event()
    dog = Watchdog(control, 0.02, ended.set)
    dog.start()
    assert not ended.wait(0.3)
    dog.stop()
    dog.join(10)
    assert not dog.is_alive()
