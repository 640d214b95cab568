"""`lethe demo` runs the main job; with a subcommand it runs that, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

import infra.demo
import infra.demo_destruction
import infra.demo_tables
from infra.cli import app


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was called, with its families and seed."""
    calls: list[tuple[Any, ...]] = []

    def main(_settings: object, families: int, seed: int, _console: object) -> infra.demo_tables.Report:
        calls.append(("main", families, seed))
        raise infra.demo.DemoFailedError("differs")

    def destruction(_settings: object, families: int, seed: int, _console: object) -> infra.demo_destruction.Told:
        calls.append(("destruction", families, seed))
        return infra.demo_destruction.Told(ledger_lines=3)

    monkeypatch.setattr(infra.demo, "demo", main)
    monkeypatch.setattr(infra.demo_destruction, "demo_destruction", destruction)
    return calls


def test_without_a_subcommand_it_is_the_main_job(ran: list[tuple[Any, ...]]) -> None:
    said = CliRunner().invoke(app, ["demo", "--families", "7", "--seed", "2"])
    assert (said.exit_code, ran) == (1, [("main", 7, 2)])
    assert "differs" in said.output


def test_the_story_of_destruction_is_a_subcommand(ran: list[tuple[Any, ...]]) -> None:
    said = CliRunner().invoke(app, ["demo", "destruction", "--json"])
    assert (said.exit_code, ran) == (0, [("destruction", 60, 1)])
    assert json.loads(said.stdout)["ledger_lines"] == 3
