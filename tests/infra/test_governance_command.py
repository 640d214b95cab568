"""`lethe operations`: the latest last, as many as asked for, in short lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.commands import governance


def operation(number: int) -> dict[str, Any]:
    return {
        "operation_id": f"{number:032x}",
        "kind": "quarantine_requeue",
        "state": "done",
        "begun_ms": 1_700_000_000_000 + number,
        "by": "A. Operator",
        "reason": "the supplier's fix is in",
        "what": json.dumps({"suppliers": ["dfe"], "rate": None}),
        "done": 1_000 + number,
        "skipped": 3,
    }


@pytest.fixture(autouse=True)
def thirty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(governance, "_rows", lambda *_: [operation(i) for i in range(30)])


@pytest.mark.parametrize(
    ("options", "first", "count"), [([], 10, 20), (["--limit", "3"], 27, 3), (["--limit", "99"], 0, 30)]
)
def test_the_latest_come_last_and_as_many_as_asked_for(options: list[str], first: int, count: int) -> None:
    found = json.loads(CliRunner().invoke(app, ["operations", "--json", *options]).stdout)
    assert [r["operation_id"] for r in found] == [operation(i)["operation_id"] for i in range(first, first + count)]
    assert found[0]["what"] == {"suppliers": ["dfe"], "rate": None}


def test_an_operation_is_told_in_short_lines_its_id_first() -> None:
    shown = CliRunner().invoke(app, ["operations", "--limit", "1"]).stdout
    assert shown.splitlines() == [
        "0000000000000000000000000000001d quarantine requeue, done",
        "  2023-11-14 22:13:20Z by A. Operator: the supplier's fix is in",
        "  suppliers dfe; 1,029 done, 3 left",
        "29 earlier ones are not shown: --limit 30",
    ]
