"""Accounting on a real broker: batches balance end to end through kills and replays, and what was done to the flow is
named."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from typer.testing import CliRunner

from infra.bench.load import absences, council, department, persons
from infra.cli import app
from infra.keys import init_keys
from infra.operation import OperationLog
from infra.provision import provision
from infra.reconciler import reconcile_stack
from infra.settings import Settings
from infra.topic_table import messages
from producers.publisher import Publisher
from schemas.registry import Registry
from stream_processors.access import ADMIN, OPERATOR
from stream_processors.accounting.reconcile import Report
from stream_processors.runtime.kafka import consumer_config, producer_config
from tests.integration.containers import RunningStack, running_stack
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
SUPPLIERS = ["council-northam", "dfe"]
PEOPLE, EVENTS = 200, 900


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("accounts"), security="tls") as found:
        yield found


@pytest.fixture(scope="module")
def flow(stack: RunningStack) -> Iterator[Workers]:
    settings = stack.settings.model_copy(update={"batch_records": 200, "session_timeout_ms": 6_000}).acting_as(ADMIN)
    provision(settings, suppliers=SUPPLIERS)
    init_keys(settings)
    with Workers(settings, settings.base / "logs") as workers:
        yield workers


def publish(settings: Settings, supplier: str, dataset: str, rows: pl.DataFrame) -> None:
    with Publisher(supplier, dataset, settings=settings) as publisher:
        publisher.publish_batch(rows.drop("number", strict=False))


def reconciled(flow: Workers) -> Report:
    """As an operator sees it."""
    return reconcile_stack(flow.settings.acting_as(OPERATOR))


def lethe(flow: Workers, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    for name, value in flow.settings.acting_as(OPERATOR).environment().items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, [*arguments])
    return result.exit_code, result.stdout or result.stderr


def test_batches_balance_end_to_end_whoever_is_killed_meanwhile(
    flow: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, frame = flow.settings, persons(PEOPLE)
    flow.start_all()
    publish(settings, "council-northam", "person", council(frame))
    publish(settings, "dfe", "person", department(frame, "UPN"))
    for name in ("pseudonymise", "route", "link", "join", "publish", "retention.activity"):
        flow.kill(name)
        flow.start(name, kill_at="produced:3" if name in ("route", "publish") else "committed:2")
    bad = tmp_path / "absence.csv"
    rows = absences(EVENTS, PEOPLE)
    text = rows.write_csv()
    bad.write_text(text + "D1,,2014-07-20,300,1,1\n")
    code, out = lethe(flow, monkeypatch, "publish", "dfe", "absence", str(bad), "--json")
    assert (code, json.loads(out)["rejected"]) == (0, 1)
    with Publisher("dfe", "absence", settings=settings) as one, Publisher("dfe", "absence", settings=settings) as other:
        for part in range(4):
            more = absences(50, PEOPLE, seed=5 + part).with_columns(record_id=pl.format(f"P{part}-{{}}", "record_id"))
            (one if part % 2 else other).publish_batch(more).wait()
    producer = Producer(producer_config(settings.acting_as("supplier.dfe"), "bad"))
    producer.produce("identified.dfe.absence", b"nonsense", b"D1|nonsense", 0)
    producer.flush()
    flow.at_rest()
    code, out = lethe(flow, monkeypatch, "reconcile", "--json", "--wait", "60")
    found = json.loads(out)
    assert [f["rule"] for f in found["findings"]] == []
    assert (code, found["state"]) == (0, "balanced")
    assert len(found["batches"]) == 5
    for b in found["batches"]:
        assert b["published"] == b["accepted"] + b["deletions"] + b["quarantined"] > 0
        assert b["accepted"] == b["replaced_at_once"] + sum(b["outcomes"].values()) + b["no_longer_held"]
    absence = next(d for d in found["datasets"] if d["dataset"] == "absence")
    assert (absence["accepted"], absence["quarantined"]) == (EVENTS + 200, 1)


def test_the_supplier_has_its_own_report_as_json_and_as_a_page(
    flow: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    html = tmp_path / "dfe.html"
    code, out = lethe(flow, monkeypatch, "reconcile", "--supplier", "dfe", "--json", "--html", str(html))
    found = json.loads(out)
    assert code == 0
    assert {b["supplier"] for b in found["batches"]} == {"dfe"}
    (file,) = [b for b in found["batches"] if b["rejected"]]
    assert file["rejects"] == [{"line": EVENTS + 2, "field": "record_id", "reason": file["rejects"][0]["reason"]}]
    page = html.read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert f'<td class="number">{EVENTS + 2}</td><td>record_id</td>' in page
    assert "balanced" in page
    code, out = lethe(flow, monkeypatch, "reconcile", "--batch", file["batch_id"][:6], "--json")
    assert (code, [b["batch_id"] for b in json.loads(out)["batches"]]) == (0, [file["batch_id"]])
    code, out = lethe(flow, monkeypatch, "reconcile", "--batch", file["batch_id"][:6])
    assert code == 0
    assert f"rejected line {EVENTS + 2}, record_id:" in out
    assert re.search(rf"^ *{file['accepted']:,}  of which accepted$", out, re.M)
    code, out = lethe(flow, monkeypatch, "reconcile", "--supplier", "dfee")
    assert (code, "balanced" in out) == (1, False), "who is not there does not balance"
    assert "council-northam, dfe" in out


def test_why_one_record_is_in_the_research_topic_and_who_asked(flow: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = flow.settings
    code, out = lethe(flow, monkeypatch, "trace", "--supplier", "dfe", "--subject", "D7", "--reason", "test", "--json")
    found = json.loads(out)
    assert (code, found["published"]) == (0, True)
    assert [s["topic"] for s in found["steps"]][:3] == ["identified.dfe.person", "linkage.activity", "linkage.identity"]
    code, out = lethe(flow, monkeypatch, "trace", "--supplier", "dfe", "--subject", "NOBODY")
    assert code == 1
    assert "Nothing lies under these ids" in out
    asked = [o for o in OperationLog(settings, Registry(settings.registry)).all() if o.kind == "trace"]
    assert [(o.reason, o.what["supplier"]) for o in asked] == [("test", "dfe"), (None, "dfe")]
    assert "D7" not in str(asked)


def test_a_flow_that_is_not_at_rest_is_pending(flow: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    flow.stop("join")
    publish(flow.settings, "dfe", "absence", absences(40, PEOPLE, seed=30))
    code, out = lethe(flow, monkeypatch, "reconcile", "--json")
    found = json.loads(out)
    assert (code, found["state"], found["findings"]) == (5, "pending", [])
    flow.start("join")
    flow.at_rest()
    assert reconciled(flow).state == "balanced"


def test_offsets_that_an_operator_moved_are_named(flow: Workers) -> None:
    settings, topic = flow.settings, "linkage.contribution"
    flow.stop("publish")
    publish(
        settings, "dfe", "absence", absences(60, PEOPLE, seed=31).with_columns(record_id=pl.format("S{}", "record_id"))
    )
    wait_for(flow, ["pseudonymise", "route", "link", "join"])
    group = Consumer(consumer_config(settings.acting_as("publish"), "lethe.publish"))
    (at,) = group.committed([TopicPartition(topic, 0)], 30)
    skipped = [
        m.offset()
        for m in messages(settings.acting_as("publish"), topic)
        if m.partition() == 0 and m.offset() >= at.offset
    ]
    moved = TopicPartition(topic, 0, skipped[0] + 1, metadata=at.metadata)
    deadline = time.monotonic() + 60
    while not committed(group, moved):  # a static member stays in its group until its session ends
        assert time.monotonic() < deadline
        time.sleep(0.5)
    group.close()
    found = reconciled(flow)
    assert (at.offset, skipped[0] + 1) in {(f.offset, f.next) for f in found.findings if f.processor == "publish"}
    flow.start("publish")
    flow.at_rest()
    found = reconciled(flow)
    assert {(f.processor, f.partition) for f in found.findings} == {("publish", 0)}
    assert {(f.topic, f.offset, f.next) for f in found.findings if f.rule == "every offset is read"} == {
        (topic, at.offset, skipped[0] + 1)
    }


def committed(group: Consumer, at: TopicPartition) -> bool:
    """Whether the broker let an offset be set: not while the group has members."""
    try:
        group.commit(offsets=[at], asynchronous=False)
    except KafkaException as e:
        if e.args[0].code() != KafkaError.UNKNOWN_MEMBER_ID:
            raise
        return False
    return True


def wait_for(flow: Workers, names: list[str]) -> None:
    """Until these have taken in everything."""
    from infra.rest import Flow

    rest = Flow(flow.settings)
    try:
        while rest.behind() & set(names):
            pass
    finally:
        rest.close()


def test_a_publisher_that_is_killed_leaves_a_batch_that_is_named(flow: Workers) -> None:
    settings = flow.settings

    def killed() -> None:
        with Publisher("dfe", "absence", settings=settings) as publisher:
            publisher.publish_batch(absences(30, PEOPLE, seed=40)).wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    flow.at_rest()
    found: Any = [b for b in reconciled(flow).batches if b.published == 0]
    assert [(b.state, b.accepted) for b in found] == [("pending", 30)]


def test_a_damaged_state_folder_is_rebuilt_and_balances(flow: Workers) -> None:
    settings = flow.settings
    before = [f.text for f in reconciled(flow).findings]
    flow.kill("join")
    for file in (settings.state / "join" / "1").glob("*/*"):
        if file.suffix in (".sst", ".log") or file.name.startswith("MANIFEST"):
            file.write_bytes(b"\x00" * 64)
    flow.start("join")
    flow.wait_for_log("join", "restored")
    publish(settings, "dfe", "absence", absences(20, PEOPLE, seed=41))
    flow.at_rest()
    assert [f.text for f in reconciled(flow).findings] == before
    assert flow.alive("join")
    flow.signal("join", signal.SIGTERM)
