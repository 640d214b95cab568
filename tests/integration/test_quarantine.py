"""Quarantine on a real broker: records go back once, whatever is killed, and nothing deleted returns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from typer.testing import CliRunner

from infra.bench.load import Loader, absences, council, department, persons
from infra.cli import app
from infra.editions import within
from infra.monitoring.picture import quarantined_fields
from infra.operation import Operation, OperationLog, now_ms
from infra.provision import provision
from infra.quarantine import work as work_module
from infra.quarantine.entries import Filter
from infra.quarantine.work import InterruptedWorkError, Tally, Work
from infra.settings import Settings
from infra.topic_table import messages, table
from schemas.registry import Registry
from schemas.rows import to_value
from stream_processors import quarantine
from stream_processors.access import OPERATOR
from stream_processors.accounting.trace import DROPPED
from stream_processors.edition import Edition
from stream_processors.runtime.account import ATTEMPTS, BATCH_HEADER
from stream_processors.runtime.kafka import producer_config
from tests.integration.containers import running_stack
from tests.integration.test_crash import _empty
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
SUPPLIERS = ["council-northam", "dfe"]
PUBLICATION = b"8 bytes."
SOURCE, QUARANTINE = "identified.dfe.absence", "identified.dfe.quarantine"
TOLD = "governance.quarantine"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with running_stack(tmp_path_factory.mktemp("quarantine")) as stack:
        yield stack.settings


@pytest.fixture
def settings(fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    found = fresh.model_copy(update={"home": tmp_path, "partitions": 2, "session_timeout_ms": 6_000})
    for name, value in found.environment().items():
        monkeypatch.setenv(name, value)
    _empty(found)
    provision(found, suppliers=SUPPLIERS)
    return found


class Failed:
    """Absences as `pseudonymise` would have quarantined them, were it at fault: the records are good."""

    def __init__(self, settings: Settings, count: int, editions: Sequence[str] = ("",)) -> None:
        self.settings = settings
        self.registry = Registry(settings.registry)
        self.producer = Producer(producer_config(settings, "failed"))
        self.values: dict[bytes, bytes] = {}
        self.partitions: dict[bytes, int] = {}
        self.errors: dict[bytes, str] = {}
        places: dict[bytes, int] = {}

        def told(_: object, m: Message) -> None:
            places[m.key()] = m.offset()

        for topic, value, key, partition in Loader(settings).messages("dfe", "absence", absences(count, 200)):
            raw = key.encode()
            self.values[raw], self.partitions[raw] = value, partition
            self.producer.produce(topic, value, raw, partition, on_delivery=told)
        self.producer.flush()
        for i, (raw, value) in enumerate(self.values.items()):
            self.errors[raw] = ("OutOfDomain", "Undecodable", "WrongPartition")[i % 3]
            said: dict[str, str | bytes] = {
                "__connect.errors.topic": SOURCE,
                "__connect.errors.partition": str(self.partitions[raw]),
                "__connect.errors.offset": str(places[raw]),
                "__connect.errors.exception.class.name": self.errors[raw],
                "lethe.errors.field": "",
                quarantine.TOLD: self.told(raw, places[raw]),
                BATCH_HEADER: PUBLICATION,
            }
            for edition in editions:
                topic = Edition(edition).topic(QUARANTINE)
                self.producer.produce(topic, value, b"absence|" + raw, self.partitions[raw], headers=list(said.items()))
                row = {
                    "supplier": "dfe", "topic": SOURCE, "partition": self.partitions[raw], "offset": places[raw],
                    "error": self.errors[raw], "field": None,
                }  # fmt: skip
                content = to_value(TOLD, row, self.registry)
                name = said[quarantine.TOLD]
                self.producer.produce(Edition(edition).topic(TOLD), content, name, self.partitions[raw])
        self.producer.flush()

    def told(self, raw: bytes, offset: int = 0) -> bytes:
        return quarantine.told_key(SOURCE, self.partitions[raw], raw, offset)

    def of(self, error: str) -> list[bytes]:
        return [k for k, e in self.errors.items() if e == error]

    def write(self, key: bytes, value: bytes | None) -> None:
        """What a supplier writes of that key later."""
        self.producer.produce(SOURCE, value, key, self.partitions[key])
        self.producer.flush()


def requeued(settings: Settings) -> list[Message]:
    return [m for m in messages(settings, SOURCE) if ATTEMPTS in dict(m.headers() or [])]


def told(settings: Settings) -> dict[tuple[str, str, str, str], int]:
    """As `lethe top`, the console and the alert count."""
    return quarantined_fields(settings.acting_as(OPERATOR), Registry(settings.registry))


def lethe(*arguments: str) -> Any:
    return json.loads(CliRunner().invoke(app, ["quarantine", *arguments, "--json"], catch_exceptions=False).stdout)


def killed(point: str, *arguments: str) -> int:
    env = {**os.environ, "LETHE_KILL_AT": point, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "infra.cli", "quarantine", *arguments]
    return subprocess.run(command, env=env, capture_output=True, timeout=120, check=False).returncode


def test_what_is_meant_goes_back_once_though_it_is_killed_at_every_step(settings: Settings) -> None:
    failed = Failed(settings, 3_000)
    before = table(settings, QUARANTINE)
    meant = failed.of("OutOfDomain")
    corrected, deleted = meant[:20], meant[20:50]
    for key in corrected:
        failed.write(key, b"newer")
    for key in deleted:
        failed.write(key, None)
    wanted = set(meant) - set(corrected) - set(deleted)
    which = ["--supplier", "dfe", "--error", "OutOfDomain"]

    counted = lethe("ls", *which)
    assert [(r["dataset"], r["error"], r["records"]) for r in counted] == [("absence", "OutOfDomain", len(meant))]
    said = lethe("requeue", *which)
    assert (said["executed"], said["requeue"], said["left"]) == (False, len(wanted), {"superseded": 50})
    assert requeued(settings) == []
    assert table(settings, QUARANTINE) == before, "a preview changes nothing"

    for point in ("produced:1", "offsets_sent:2", "committed:1"):  # at 300 a second a transaction has 300
        code = killed(point, "requeue", *which, "--rate", "300", "--by", "tester", "--reason", "a fix", "--execute")
        assert code == -signal.SIGKILL, point
    log = OperationLog(settings, Registry(settings.registry))
    last = log.all()[-1]
    assert (last.state, last.by, last.reason) == ("begun", "tester", "a fix")
    said = lethe("requeue", "--resume", last.operation_id, "--execute")
    assert said["executed"]

    back = Counter(m.key() for m in requeued(settings))
    assert back == dict.fromkeys(wanted, 1), "each once: none lost, none doubled"
    for m in requeued(settings):
        assert (m.value(), m.partition()) == (failed.values[m.key()], failed.partitions[m.key()])
        assert m.headers() == [(ATTEMPTS, b"1"), (BATCH_HEADER, PUBLICATION)], "what was said of the error is gone"
    left = {k.removeprefix(b"absence|") for k in table(settings, QUARANTINE)}
    assert left == set(failed.values) - wanted, "what was not meant, or must not go back, is still there"
    now = table(settings, SOURCE)
    assert all(now[k] == b"newer" for k in corrected)
    assert not set(deleted) & set(now), "nothing that was deleted has come back"
    assert log.all()[-1].state == "done"

    said = lethe("drop", *which, "--superseded", "--reason", "overtaken", "--execute")
    assert said["drop"] == 50
    assert lethe("ls", *which) == []
    listed = {("dfe", r["dataset"], r["error"], r["field"]): r["records"] for r in lethe("ls")}
    assert told(settings) == listed, "nothing is told any more of what went"


def test_every_edition_is_seen_and_what_two_of_them_could_not_read_goes_back_once(settings: Settings) -> None:
    provision(within(settings, Edition("v2")), suppliers=SUPPLIERS)
    failed = Failed(settings, 300, ["", "v2"])
    alone = Failed(settings, 30, ["v2"])
    good, rest = failed.of("OutOfDomain"), alone.of("OutOfDomain")
    newer = next(k for k in good if k not in alone.values)
    failed.write(newer, b"newer")  # after which none of its entries may go back
    both, one = set(good) - set(rest) - {newer}, set(rest)
    which = ["--supplier", "dfe", "--error", "OutOfDomain"]

    assert {(r["edition"], r["records"]) for r in lethe("ls", *which)} == {("plain", len(good)), ("v2", len(good))}
    (only,) = lethe("ls", *which, "--edition", "plain")
    assert only["edition"] == "plain"
    shown = lethe("show", *which, "--edition", "v2", "--limit", "1")
    assert [r["place"].partition("/")[0] for r in shown] == ["dfe@v2"]
    assert lethe("show", shown[0]["place"]) == shown
    for unknown in (["--edition", "v9"], ["--supplier", "nobody"], ["--error", "Foo"], ["--dataset", "foo"]):
        refused = CliRunner().invoke(app, ["quarantine", "ls", *unknown])
        assert refused.exit_code == 2
        assert "there are" in refused.stderr

    counted = told(settings)
    assert {counted[name, "absence", "OutOfDomain", ""] for name in ("dfe", "dfe@v2")} == {len(good)}, "as ls"

    # What was published again has a newer record than the plain edition's entry, and the same as the other's.
    said = lethe("requeue", *which)
    assert (said["requeue"], said["also"], said["left"]) == (len(both | one), len(both), {"superseded": 2 + len(one)})
    did = lethe("requeue", *which, "--execute")
    assert (did["requeue"], did["also"], did["left"]) == (said["requeue"], said["also"], said["left"])
    assert Counter(m.key() for m in requeued(settings)) == dict.fromkeys(both | one, 1)
    left = {k.removeprefix(b"absence|") for k in table(settings, f"{QUARANTINE}.v2")}
    assert left == {k for k in failed.values if k not in both | one}
    assert lethe("drop", *which, "--superseded", "--reason", "overtaken", "--execute")["drop"] == 2 + len(one)
    assert lethe("ls", *which) == []


def test_killed_between_two_editions_what_went_back_for_the_first_is_superseded_for_the_second(
    settings: Settings,
) -> None:
    provision(within(settings, Edition("v2")), suppliers=SUPPLIERS)
    failed = Failed(settings, 300, ["", "v2"])
    which = ["--supplier", "dfe", "--error", "OutOfDomain"]
    meant = set(failed.of("OutOfDomain"))
    first = {k for k in meant if failed.partitions[k] == 0}
    assert killed("committed:1", "requeue", *which, "--by", "tester", "--execute") == -signal.SIGKILL
    assert {m.key() for m in requeued(settings)} == first, "one edition of one partition"
    last = OperationLog(settings, Registry(settings.registry)).all()[-1]
    did = lethe("requeue", "--resume", last.operation_id, "--execute")
    assert (did["requeue"], did["also"], did["left"]) == (
        len(meant),
        len(meant - first),
        {"superseded": len(first)},
    )
    assert Counter(m.key() for m in requeued(settings)) == dict.fromkeys(meant, 1), "each once"
    (left,) = lethe("ls", *which)
    assert (left["edition"], left["records"]) == ("v2", len(first))
    assert lethe("drop", *which, "--superseded", "--reason", "gone back", "--execute")["drop"] == len(first)
    assert lethe("ls", *which) == []
    assert told(settings) == {
        (name, "absence", error, ""): len(failed.of(error))
        for name in ("dfe", "dfe@v2")
        for error in ("Undecodable", "WrongPartition")
    }


def requeued_while(settings: Settings, then: Callable[[], None]) -> Tally:
    """What becomes of those that are Undecodable, if others write after their keys were looked at, before they are
    put back."""

    def meanwhile(what: str, done: int, _: int) -> None:
        if what == "dfe 0: requeue" and done == 20:
            then()

    log = OperationLog(settings, Registry(settings.registry))
    work = Work(settings, "requeue", Filter(("dfe",), errors=("Undecodable",)), on_progress=meanwhile)
    return work.execute(Operation("quarantine_requeue", "tester", None, {}, now_ms()), log)


def test_what_governance_is_told_meanwhile_of_a_key_is_not_taken_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "_MOST_RECORDS", 20)
    failed = Failed(settings, 600)
    again = [k for k in failed.of("Undecodable") if failed.partitions[k] == 0][-1]

    def tell() -> None:  # of another failure, whose entry comes after ours
        failed.producer.produce(TOLD, b"newer", failed.told(again), 0)
        failed.producer.flush()

    assert requeued_while(settings, tell).left == {"contended": 1}
    assert table(settings, TOLD)[failed.told(again)] == b"newer"
    assert b"absence|" + again in table(settings, QUARANTINE)


def test_what_the_guard_refused_is_listed_and_nothing_of_it_goes_back(settings: Settings) -> None:
    failed = Failed(settings, 30)
    row = {
        "supplier": "research", "topic": "linkage.contribution", "partition": 1, "offset": 7,
        "error": "RefusedByGuard", "field": None,
    }  # fmt: skip
    content = to_value(TOLD, row, failed.registry)
    failed.producer.produce(TOLD, content, b"linkage.contribution|1|7", 1)
    failed.producer.produce(TOLD, content, b"linkage.contribution|1|8", 1)
    failed.producer.produce(TOLD, None, b"linkage.contribution|1|8", 1)
    failed.producer.flush()
    listed = {(r["supplier"], r["dataset"], r["error"]): r["records"] for r in lethe("ls")}
    refused = ("research", "linkage.contribution", "RefusedByGuard")
    assert listed[refused] == 1
    assert sum(listed.values()) == 31
    (shown,) = lethe("show", "--error", "RefusedByGuard")
    assert (shown["record"], shown["place"]) == ("linkage.contribution/1/7", "")
    assert lethe("drop", "--error", "RefusedByGuard", "--reason", "seen", "--execute")["drop"] == 0
    assert lethe("ls", "--error", "RefusedByGuard") != []
    assert lethe("ls", "--error", "RefusedByGuard", "--supplier", "dfe") == []


def test_a_record_that_the_supplier_writes_meanwhile_is_not_overwritten(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "_MOST_RECORDS", 20)
    failed = Failed(settings, 600)
    meant = [k for k in failed.of("Undecodable") if failed.partitions[k] == 0]
    newer, gone = meant[-1], meant[-2]

    def write() -> None:
        failed.write(newer, b"newer")
        failed.write(gone, None)

    assert requeued_while(settings, write).left == {"contended": 2}
    back = Counter(m.key() for m in requeued(settings))
    assert back == dict.fromkeys(set(failed.of("Undecodable")) - {newer, gone}, 1)
    now = table(settings, SOURCE)
    assert now[newer] == b"newer"
    assert gone not in now


def test_ctrl_c_ends_between_two_transactions_and_the_rest_is_gone_on_with(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "_MOST_RECORDS", 20)
    failed = Failed(settings, 600)
    log, meant = OperationLog(settings, Registry(settings.registry)), Filter(("dfe",), errors=("Undecodable",))
    done: list[int] = []

    def seen(what: str, n: int, _: int) -> None:
        if what.endswith("requeue"):
            done.append(n)

    operation = Operation("quarantine_requeue", "tester", None, {}, now_ms())
    work = Work(settings, "requeue", meant, on_progress=seen, stopping=lambda: len(done) == 2)
    with pytest.raises(InterruptedWorkError):
        work.execute(operation, log)
    held = log.find(operation.operation_id)
    assert held is not None
    assert (held.state, held.done, len(requeued(settings))) == ("interrupted", 40, 40)
    tally = Work(settings, "requeue", meant).execute(held, log)
    assert tally.done == len(failed.of("Undecodable"))
    assert Counter(m.key() for m in requeued(settings)) == dict.fromkeys(failed.of("Undecodable"), 1)


def test_what_fails_again_says_how_often_and_what_is_revealed_or_dropped_is_audited(
    settings: Settings, tmp_path: Path
) -> None:
    loader, frame = Loader(settings), persons(40)
    loader.publish("council-northam", "person", council(frame))
    topic, value, key, partition = next(loader.messages("dfe", "person", department(frame, "UPN")))
    loader.producer.produce(topic, b"\x01" + value[1:], key, partition)
    loader.producer.flush()
    with Workers(settings, tmp_path / "logs") as workers:
        workers.start("pseudonymise")
        for attempts in (0, 1):
            workers.wait_for_log("pseudonymise", "assigned")
            _until_quarantined(attempts)
            (row,) = lethe("show", "--supplier", "dfe")
            assert (row["error"], row["attempts"], row["dataset"]) == ("BadMagicByte", attempts, "person")
            assert key not in json.dumps(row), "no key without --reveal"
            assert lethe("requeue", "--supplier", "dfe", "--execute")["requeue"] == 1
        _until_quarantined(2)
        (row,) = lethe("show", "--supplier", "dfe")
        refused = CliRunner().invoke(app, ["quarantine", "show", row["place"], "--reveal"])
        assert refused.exit_code == 2
        (seen,) = lethe("show", row["place"], "--reveal", "--reason", "the supplier asks", "--by", "A. Officer")
        assert (seen["key"], seen["value"]) == (key, (b"\x01" + value[1:]).hex())
        log = OperationLog(settings, Registry(settings.registry))
        assert [(o.kind, o.by, o.reason) for o in log.all()][-1] == (
            "quarantine_reveal",
            "A. Officer",
            "the supplier asks",
        )
        assert CliRunner().invoke(app, ["quarantine", "drop", "--execute"]).exit_code == 2, "a reason is needed"
        assert lethe("drop", "--supplier", "dfe", "--reason", "broken")["drop"] == 1
        assert len(table(settings, QUARANTINE)) == 1
        assert lethe("drop", "--supplier", "dfe", "--reason", "broken", "--execute")["drop"] == 1
        assert table(settings, QUARANTINE) == {}
        assert key.encode() not in table(settings, topic), "a replay would bring it back"
        last = log.all()[-1]
        (gone,) = [m for m in messages(settings, topic) if m.key() == key.encode() and m.value() is None]
        assert gone.headers() == [(DROPPED, last.operation_id.encode())], "trace tells it from a supplier's deletion"
        told = CliRunner().invoke(app, ["operations", "--json"])
        assert json.loads(told.stdout)[-1]["what"]["suppliers"] == ["dfe"], "one document, none within it"
        found = json.loads(CliRunner().invoke(app, ["top", "--json"]).stdout)
        assert found["quarantine"] == [], "it has gone back, failed again and been dropped: nothing is left of it"
        assert {s["processor"] for s in found["flow"]} > {"pseudonymise", "join"}


def _until_quarantined(attempts: int) -> None:
    deadline = time.monotonic() + 60
    while not any(r["attempts"] == attempts for r in lethe("ls", "--supplier", "dfe")):
        if time.monotonic() > deadline:
            raise TimeoutError("not quarantined")
        time.sleep(0.2)  # Kafka tells nobody
