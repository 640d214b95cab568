"""Retention on a real broker: a tick goes down to the research topic, and the ledger has a line for each record."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from infra.bench.load import Loader, absences, council, department, persons
from infra.cli import app
from infra.clock import tick
from infra.held import due, ledger_heads, ledger_lines, unmatched
from infra.keys import export_enquiry_key
from infra.provision import provision
from infra.settings import Settings
from infra.topic_table import messages, table
from schemas.registry import Registry
from stream_processors.ledger import verify
from stream_processors.retention import MARK
from stream_processors.retention_policy import FILE, load_policy
from stream_processors.runtime.records import HEARTBEAT_KEY
from tests.integration.containers import running_stack
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
SOURCES = ("identified.council-northam.person", "identified.dfe.person", "identified.dfe.absence")
EMPTY = (*SOURCES, "linkage.identity", "linkage.activity", "linkage.contribution", "research.person")
"""What has no record when everything has expired."""


def test_what_a_tick_makes_expire_leaves_linkage_and_research_and_the_ledger_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = load_policy().hard_stop
    with running_stack(tmp_path / "stack") as stack:
        settings = stack.settings.model_copy(update={"home": tmp_path})
        provision(settings, suppliers=["council-northam", "dfe"])
        for name, value in settings.environment().items():
            monkeypatch.setenv(name, value)
        registry = Registry(settings.registry)
        loader, frame = Loader(settings), persons(200)
        loader.publish("council-northam", "person", council(frame))
        loader.publish("dfe", "person", department(frame, "UPN"))
        early = absences(300, 200, 1).with_columns(PeriodEnd=pl.lit(date(2012, 7, 1)))  # held until 2 July 2021
        loader.publish("dfe", "absence", early)
        with Workers(settings, tmp_path / "logs") as workers:
            workers.start_all()
            workers.at_rest()
            before = table(settings, "research.person")
            assert due(settings, date(2021, 7, 2), stop) == {("dfe", "absence"): 300}

            for day in (date(2021, 7, 1), date(2022, 7, 2)):  # the second is far ahead: it waits
                tick(settings, registry, day)
            workers.at_rest()
            assert ledger_lines(settings) == []
            assert table(settings, "research.person") == before

            for day in (date(2021, 7, 1), date(2021, 7, 2)):
                tick(settings, registry, day)
            workers.at_rest()
            assert len(ledger_lines(settings)) == 300
            assert table(settings, "identified.dfe.absence") == {}, "it leaves its source, too"
            assert len(table(settings, "identified.dfe.person")) == 200
            assert due(settings, stop - timedelta(1), stop) == {}
            assert table(settings, "research.person").keys() == before.keys()
            assert table(settings, "research.person") != before

            workers.kill("retention.activity")
            for day in (stop - timedelta(1), stop):
                tick(settings, registry, day)
            workers.start("retention.activity")
            workers.at_rest()
            for topic in EMPTY:
                assert table(settings, topic) == {}, topic
            lines = ledger_lines(settings)
            assert len(lines) == 300 + 2 * 400  # identity and activity of each person
            assert verify(lines, ledger_heads(settings)) == []
            said = CliRunner().invoke(app, ["ledger", "verify", "--json"])
            assert (said.exit_code, json.loads(said.stdout)) == (0, {"lines": len(lines), "faults": []})
            assert [workers.stop(name) for name in workers.running()] == [0] * 7


def test_a_shorter_policy_holds_for_what_is_held_and_what_comes_late_is_refused(tmp_path: Path) -> None:
    with running_stack(tmp_path / "stack") as stack:
        settings = stack.settings.model_copy(update={"home": tmp_path, "session_timeout_ms": 6_000})
        provision(settings, suppliers=["council-northam", "dfe"])
        registry = Registry(settings.registry)
        loader, frame = Loader(settings), persons(40)
        loader.publish("council-northam", "person", council(frame))
        loader.publish("dfe", "person", department(frame, "UPN"))
        loader.publish("dfe", "absence", absences(60, 40, 1).with_columns(PeriodEnd=pl.lit(date(2014, 7, 1))))
        with Workers(settings, tmp_path / "logs") as workers:
            workers.start_all()
            for day in (date(2020, 1, 1), date(2020, 1, 2)):
                tick(settings, registry, day)
            workers.at_rest()
            before = table(settings, "research.person")
            assert ledger_lines(settings) == []

            shorter = yaml.safe_load(FILE.read_text())
            shorter["periods"]["dfe.absence"] = {"after": "event", "days": 365}  # over since 2015
            (tmp_path / "shorter.yaml").write_text(yaml.safe_dump(shorter))
            workers.settings = settings.model_copy(update={"retention": tmp_path / "shorter.yaml"})
            restarted = ("pseudonymise", "retention.identity", "retention.activity")
            assert [workers.stop(name) for name in restarted] == [0, 0, 0]
            for name in restarted:
                workers.start(name)
            deadline = time.monotonic() + 180
            while workers.log("pseudonymise").count('"reconciled"') < settings.partitions:  # all was read again
                assert time.monotonic() < deadline
                time.sleep(0.2)
            workers.at_rest()
            lines = ledger_lines(settings)
            assert {(x["why"], x["supplier"], x["dataset"]) for x in lines} == {("expiry", "dfe", "absence")}
            assert len(lines) == 60
            after = table(settings, "research.person")
            assert after.keys() == before.keys()
            assert after != before

            late = absences(5, 40, 2).with_columns(
                PeriodEnd=pl.lit(date(2013, 7, 1)), record_id=pl.format("late{}", pl.int_range(5))
            )
            loader.publish("dfe", "absence", late)
            workers.at_rest()
            assert table(settings, "research.person") == after
            lines = ledger_lines(settings)
            assert [x["why"] for x in lines].count("late") == 5
            assert verify(lines, ledger_heads(settings)) == []
            assert due(settings, date(2020, 1, 2), load_policy().hard_stop) == {}


def _pass(settings: Settings, registry: Registry, loader: Loader, day: date) -> None:
    """A day, and the heartbeats after it."""
    tick(settings, registry, day)
    for topic in ("linkage.activity", "linkage.link"):
        for partition in range(settings.partitions):
            loader.producer.produce(topic, None, HEARTBEAT_KEY, partition)
    loader.producer.flush(30)


@pytest.mark.long  # the flow without a broker says the same in tests/properties/test_unmatched.py
def test_who_matches_nobody_leaves_its_source_when_the_linkage_window_has_ended(tmp_path: Path) -> None:
    policy = yaml.safe_load(FILE.read_text())
    policy |= {"hard_stop": date(2099, 12, 31), "linkage_window_days": 30}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    with running_stack(tmp_path / "stack") as stack:
        more = {"home": tmp_path, "retention": tmp_path / "policy.yaml"}
        settings = stack.settings.model_copy(update=more)
        provision(settings, suppliers=["council-northam", "dfe"])
        registry, loader, frame = Registry(settings.registry), Loader(settings), persons(40)
        strangers = persons(45, seed=9)[40:]
        today = datetime.now(UTC).date()
        loader.publish("council-northam", "person", council(frame))
        loader.publish("dfe", "person", department(pl.concat([frame, strangers]), "UPN"))
        loader.publish("dfe", "absence", absences(300, 45, 1).with_columns(PeriodEnd=pl.lit(today)))
        theirs = {f"D{n}" for n in strangers["number"]}
        with Workers(settings, tmp_path / "logs") as workers:
            workers.start_all()
            workers.at_rest()
            before = table(settings, "research.person")
            sources = {topic: table(settings, topic) for topic in SOURCES}
            alone = {k for t in SOURCES[1:] for k in sources[t] if k.decode().partition("|")[0] in theirs}
            preview = unmatched(settings, today + timedelta(30), load_policy(tmp_path / "policy.yaml"))
            assert preview == {("dfe", "person"): 5, ("dfe", "identity"): 5, ("dfe", "absence"): len(alone) - 5}
            assert unmatched(settings, today + timedelta(28), load_policy(tmp_path / "policy.yaml")) == {}

            for n in range(27, 31):
                _pass(settings, registry, loader, today + timedelta(n))
                workers.at_rest()
            assert {topic: table(settings, topic) for topic in SOURCES} == sources, "nothing goes early"

            for name in ("join", "pseudonymise"):
                workers.kill(name)
            _pass(settings, registry, loader, today + timedelta(31))
            for name in ("join", "pseudonymise"):
                workers.start(name)
            workers.at_rest()
            for topic, was in sources.items():
                assert table(settings, topic) == {k: v for k, v in was.items() if k not in alone}, topic
            assert table(settings, "research.person") == before
            assert table(settings, "linkage.unmatched") == {}
            lines = ledger_lines(settings)
            assert {(x["why"], x["supplier"]) for x in lines} == {("window", "dfe")}
            assert len(lines) == len(alone) + 5, "an identity besides, of each"
            assert verify(lines, ledger_heads(settings)) == []


KILLS = 20
VICTIMS = ("pseudonymise", "retention.identity", "retention.activity", "publish", "control")


@pytest.mark.crash
def test_killed_twenty_times_while_everything_expires_each_record_has_one_tombstone_and_one_line(
    tmp_path: Path,
) -> None:
    chance, stop = random.Random(11), load_policy().hard_stop
    with running_stack(tmp_path / "stack") as stack:
        quick = {"home": tmp_path, "batch_records": 100, "session_timeout_ms": 6_000, "clock": "simulated"}
        settings = stack.settings.model_copy(update=quick)
        provision(settings, suppliers=["council-northam", "dfe"])
        registry, loader, frame = Registry(settings.registry), Loader(settings), persons(200)
        loader.publish("council-northam", "person", council(frame))
        loader.publish("dfe", "person", department(frame, "UPN"))
        ends = [date(2011 + i % 3, 7, 1) for i in range(1_500)]  # a third each is held until July 2020, 2021 and 2022
        loader.publish("dfe", "absence", absences(1_500, 200, 1).with_columns(PeriodEnd=pl.Series(ends)))
        with Workers(settings, tmp_path / "logs") as workers:
            export_enquiry_key(settings)
            workers.start_all()
            workers.start("control")
            workers.at_rest()
            days = [date(2020, 7, 3), date(2021, 7, 3), date(2022, 7, 3), stop]
            for i in range(KILLS):
                if i % 5 == 0:
                    for day in (days[i // 5] - timedelta(1), days[i // 5]):
                        tick(settings, registry, day)
                time.sleep(chance.uniform(0.05, 1.5))  # the moment of the kill is what is drawn here
                name = chance.choice(VICTIMS)
                assert workers.alive(name), f"{name} ended by itself before kill {i + 1}"
                workers.kill(name)
                workers.start(name)
            workers.at_rest()
            expired = 2 * 400 + 1_500  # an identity and an activity of each person record, and the events
            lines = ledger_lines(settings)
            marked = [
                (m.topic(), m.partition(), m.key())
                for topic in ("linkage.identity", "linkage.activity")
                for m in messages(settings, topic)
                if m.value() is None and any(name == MARK for name, _ in m.headers() or ())
            ]
            # Where retention was killed, what pseudonymise deletes at the source comes first: the line names that.
            theirs = {(x["topic"], x["partition"], x["tombstone"]) for x in lines if x["tombstone"] is not None}
            at = {
                (m.topic(), m.partition(), m.offset()): (m.topic(), m.partition(), m.key())
                for topic in ("linkage.identity", "linkage.activity")
                for m in messages(settings, topic)
                if m.value() is None
            }
            ended = [*marked, *(at[place] for place in theirs)]
            assert (len(lines), len(ended), len(set(ended))) == (expired, expired, expired)
            assert {x["why"] for x in lines} <= {"expiry", "hard_stop"}
            assert verify(lines, ledger_heads(settings)) == []
            for topic in EMPTY:
                assert table(settings, topic) == {}, topic
