"""Retention on a real broker: a tick goes down to the research topic, and the ledger has a line for each record."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from infra.bench.load import Loader, absences, council, department, persons
from infra.cli import app
from infra.clock import tick
from infra.held import due, ledger_heads, ledger_lines
from infra.provision import provision
from infra.topic_table import table
from schemas.registry import Registry
from stream_processors.ledger import verify
from stream_processors.retention_policy import load_policy
from tests.integration.containers import running_stack
from tests.integration.workers import Workers

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]


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
            assert due(settings, stop - timedelta(1), stop) == {}
            assert table(settings, "research.person").keys() == before.keys()
            assert table(settings, "research.person") != before

            workers.kill("retention.activity")
            for day in (stop - timedelta(1), stop):
                tick(settings, registry, day)
            workers.start("retention.activity")
            workers.at_rest()
            for topic in ("linkage.identity", "linkage.activity", "linkage.contribution", "research.person"):
                assert table(settings, topic) == {}, topic
            lines = ledger_lines(settings)
            assert len(lines) == 300 + 2 * 400  # identity and activity of each person
            assert verify(lines, ledger_heads(settings)) == []
            said = CliRunner().invoke(app, ["ledger", "verify", "--json"])
            assert (said.exit_code, json.loads(said.stdout)) == (0, {"lines": len(lines), "faults": []})
            assert [workers.stop(name) for name in workers.running()] == [0] * 7
