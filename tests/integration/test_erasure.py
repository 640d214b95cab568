"""Erasure on a real broker: a subject and a person leave everything, and stay out whatever is pushed, replayed or
killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner

from infra.cli import app
from infra.erasure import NotFollowedError, Orders
from infra.held import ledger_heads, ledger_lines
from infra.keys import export_enquiry_key, read_enquiry_key
from infra.provision import provision
from infra.settings import Settings
from infra.topic_table import messages, table
from producers import Publisher
from schemas.registry import Registry
from stream_processors.erasure.order import Target
from stream_processors.ledger import verify
from stream_processors.runtime.kafka import consumer_config
from tests.integration.containers import running_stack
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.crash, pytest.mark.timeout(600)]
COUNCIL = "council-northam"
AYSHA = {"forename": "Aysha", "surname": "Quuxbegum", "date_of_birth": "2001-02-03", "sex": "F", "postcode": "SE13 7AB"}
BORN = {**AYSHA, "date_of_birth": date(2001, 2, 3)}
LINKAGE = ("linkage.identity", "linkage.activity", "linkage.candidate", "linkage.link", "linkage.contribution")
SOURCES = ("identified.dfe.person", "identified.dfe.absence", "identified.moj.person", f"identified.{COUNCIL}.person")


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    home = tmp_path_factory.mktemp("erasure")
    with running_stack(home) as stack:
        settings = stack.settings.model_copy(update={"session_timeout_ms": 6_000})
        provision(settings, suppliers=[COUNCIL, "dfe", "moj"])
        with Workers(settings, home / "logs") as running:
            export_enquiry_key(settings)
            everybody(settings)
            running.start_all()
            running.at_rest()
            yield running


def everybody(settings: Settings) -> None:
    """Two people: Aysha with a council, dfe and, under another surname, moj; Zoe with a council and dfe."""
    zoe = {**BORN, "forename": "Zoe", "surname": "Marsh", "date_of_birth": date(2002, 3, 4)}
    publish(settings, COUNCIL, "person", {"person_id": "c1", "programme_status": "participant", **BORN},
            {"person_id": "c2", "programme_status": "comparison", **zoe})  # fmt: skip
    publish(settings, "dfe", "person", {"UPN": "A1", **BORN}, {"UPN": "Z1", **zoe})
    publish(settings, "dfe", "absence", *absences("A1", 3), *absences("Z1", 1))
    publish(settings, "moj", "person", {"mojuid": "m1", **BORN, "surname": "Quuxkhan"})


def absences(subject: str, n: int) -> list[dict[str, Any]]:
    return [{"UPN": subject, "record_id": f"r{i}", "PeriodEnd": date(2014 + i, 7, 1)} for i in range(n)]


def publish(settings: Settings, supplier: str, dataset: str, *rows: dict[str, Any]) -> None:
    with Publisher(supplier, dataset, settings=settings) as publisher:
        publisher.publish_batch(list(rows))


def lethe(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, dict[str, Any]]:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["erase", *arguments, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout) if result.stdout else {}


def counts(document: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(h["supplier"], h["dataset"]): h["records"] for h in document["holdings"]}


def live(settings: Settings, *topics: str) -> dict[str, set[bytes]]:
    return {topic: set(table(settings, topic)) for topic in topics}


def replay(workers: Workers, kill_at: str = "") -> None:
    """Read the suppliers' topics, and all else that pseudonymise reads, from the beginning."""
    settings = workers.settings
    workers.stop("pseudonymise")
    consumer = Consumer(consumer_config(settings, "lethe.pseudonymise"))
    topics = [*SOURCES, "linkage.suppression", "governance.erasure", "linkage.found"]
    back = [TopicPartition(t, p, 0) for t in topics for p in range(settings.partitions)]

    def committed() -> bool:
        try:
            consumer.commit(offsets=back, asynchronous=False)
        except Exception:  # the group still knows the member that was stopped, until its session ends
            return False
        return True

    until(committed, "the group did not let go")
    consumer.close()
    workers.start("pseudonymise", kill_at=kill_at)


def until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.2)


def test_a_subject_leaves_and_stays_out(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = workers.settings
    subject = ("--supplier", "dfe", "--subject", "A1", "--reason", "objection", "--by", "officer")
    before = live(settings, *LINKAGE, *SOURCES, "research.person")
    code, said = lethe(settings, monkeypatch, *subject)
    assert (code, said["executed"], counts(said)) == (0, False, {("dfe", "person"): 1, ("dfe", "absence"): 3})
    assert live(settings, *LINKAGE, *SOURCES, "research.person") == before
    code, said = lethe(settings, monkeypatch, *subject, "--execute")
    assert (code, said["outcome"], said["records"]) == (0, "erased", 4)
    workers.at_rest()
    after = live(settings, *LINKAGE, *SOURCES, "research.person")
    assert after["identified.dfe.person"] == {b"Z1"}
    assert after["identified.dfe.absence"] == {b"Z1|r0"}
    assert len(before["linkage.activity"]) - len(after["linkage.activity"]) == 4
    lines = ledger_lines(settings)
    assert len(lines) == 5
    assert {(x["why"], x["reason"], x["by"], x["order_id"]) for x in lines} == {
        ("erasure", "objection", "officer", said["order_id"])
    }
    tombstones = {(m.topic(), m.partition(), m.offset()): m.value() for t in LINKAGE[:2] for m in messages(settings, t)}
    assert {tombstones[x["topic"], x["partition"], x["tombstone"]] for x in lines} == {None}

    publish(settings, "dfe", "person", {"UPN": "A1", **BORN})
    publish(settings, "dfe", "absence", *absences("A1", 2))
    workers.at_rest()
    assert live(settings, *LINKAGE, *SOURCES, "research.person") == after
    assert sum(x["refused"] for x in ledger_lines(settings)) == 4

    replay(workers)
    workers.at_rest()
    assert live(settings, *LINKAGE, *SOURCES, "research.person") == after
    lines = ledger_lines(settings)
    assert verify(lines, ledger_heads(settings)) == []
    assert not [k for k in table(settings, "governance.erasure") if not k.startswith(b"__")], "the order is deleted"


@pytest.mark.parametrize("kill_at", ["produced", pytest.param("committed", marks=pytest.mark.long)])
def test_killed_in_the_midst_of_a_replay_nobody_comes_back(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, kill_at: str
) -> None:
    settings = workers.settings
    subject = ("--supplier", "dfe", "--subject", "A1", "--reason", "objection", "--by", "officer")
    assert lethe(settings, monkeypatch, *subject, "--execute")[0] == 0  # again, where it is erased already
    workers.at_rest()
    after = live(settings, *LINKAGE, *SOURCES, "research.person")
    assert b"A1" not in after["identified.dfe.person"]
    replay(workers, kill_at)
    assert workers.wait_exit("pseudonymise", 60) != 0
    workers.start("pseudonymise")
    workers.at_rest()
    assert live(settings, *LINKAGE, *SOURCES, "research.person") == after


def test_a_person_leaves_all_suppliers_while_pseudonymise_is_killed(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = workers.settings
    person = tmp_path / "person.json"
    person.write_text(json.dumps(AYSHA))
    arguments = ("--person", str(person), "--reason", "court-order", "--by", "clerk")
    code, said = lethe(settings, monkeypatch, *arguments)
    assert (code, counts(said)) == (0, {(COUNCIL, "person"): 1, ("moj", "person"): 1})

    workers.kill("pseudonymise")
    public = read_enquiry_key(settings)
    with (
        Orders(settings, Registry(settings.registry), public, timeout_s=0.1) as orders,
        pytest.raises(NotFollowedError),
    ):
        orders.give("erase", Target("moj", "nobody"), "error", "clerk")
    command = [sys.executable, "-m", "infra.cli", "erase", *arguments, "--execute", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for kill_at in ("produced", "committed"):
            workers.start("pseudonymise", kill_at=kill_at)
            assert workers.wait_exit("pseudonymise", 60) != 0
        workers.start("pseudonymise")
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(out)["outcome"] == "erased"
    workers.at_rest()
    after = live(settings, *LINKAGE, *SOURCES, "research.person")
    assert after[f"identified.{COUNCIL}.person"] == {b"c2"}
    assert after["identified.moj.person"] == set()
    assert len(after["research.person"]) == 1

    publish(settings, "moj", "person", {"mojuid": "m9", **BORN, "forename": " aysha"})  # under another id
    publish(settings, COUNCIL, "person", {"person_id": "c1", "programme_status": "participant", **BORN})
    workers.at_rest()
    assert live(settings, *LINKAGE, *SOURCES, "research.person") == after
    replay(workers)
    workers.at_rest()
    assert live(settings, *LINKAGE, *SOURCES, "research.person") == after
    assert verify(ledger_lines(settings), ledger_heads(settings)) == []


def test_details_that_fit_two_people_erase_nobody(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = workers.settings
    zoe = {**BORN, "forename": "Zoe", "surname": "Marsh", "date_of_birth": date(2002, 3, 4)}
    publish(settings, "dfe", "person", {"UPN": "Z2", **zoe})
    workers.at_rest()
    before = live(settings, *SOURCES)
    person = tmp_path / "person.json"
    person.write_text(json.dumps({**zoe, "date_of_birth": "2002-03-04"}))
    code, said = lethe(settings, monkeypatch, "--person", str(person), "--reason", "objection", "--execute")
    assert (code, said["outcome"], said["holdings"]) == (1, "ambiguous", [])
    assert live(settings, *SOURCES) == before


def test_no_name_is_anywhere_but_where_the_supplier_put_it(workers: Workers) -> None:
    settings = workers.settings
    for topic in ("governance.erasure", "governance.finding", "governance.operation", "governance.ledger",
                  "linkage.suppression", "linkage.found", "linkage.enquiry", "linkage.sought"):  # fmt: skip
        for m in messages(settings, topic):
            text = ((m.key() or b"") + (m.value() or b"") + repr(m.headers()).encode()).lower()
            assert b"quux" not in text, topic
            assert b"aysha" not in text, topic
    for name in workers.running():
        assert "quux" not in workers.log(name).lower()
