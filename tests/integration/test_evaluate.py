"""`lethe evaluate --through-kafka`: the figures that a real broker and real processes give are the brokerless ones."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.cli import app

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
HEADER = "subject_id,forename,surname,date_of_birth,sex,postcode\n"
TIMES = ("seconds", "link_seconds")


def files(folder: Path, people: int) -> list[str]:
    """People with and without mistakes; the department has two records of every third, and of one who is nobody."""
    cohort, department, truth = [HEADER], [HEADER], ["department_subject_id,cohort_subject_id\n"]
    for i in range(people):
        surname, born, home = (
            f"Whit{'abcdefghij'[i % 10]}field",
            f"19{60 + i % 40}-0{1 + i % 9}-1{i % 10}",
            f"SE{i} 1AA",
        )
        cohort.append(f"c{i},Mary,{surname},{born},F,{home}\n")
        department.append(f"d{i},{('Mary', 'Marie', '')[i % 3]},{surname},{born if i % 5 else ''},F,{home}\n")
        truth.append(f"d{i},c{i}\n")
        if i % 3 == 0:
            department.append(f"e{i},MARY,{surname[:-1]},{born},,{home}\n")
            truth.append(f"e{i},c{i}\n")
    department.append("f,Jack,Obscure,1950-01-01,M,ZZ1 1ZZ\n")
    truth.append("f,\n")
    out = []
    for name, lines in (("cohort", cohort), ("department", department), ("truth", truth)):
        path = folder / f"{name}.csv"
        path.write_text("".join(lines))
        out += [f"--{name}", str(path)]
    return out


def evaluated(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["evaluate", "pairs", "--json", *words])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return {k: v for k, v in found.items() if k not in TIMES}


def test_a_broker_gives_the_same_figures_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    words = [*files(tmp_path, 60), "--many-to-one"]
    through = evaluated(*words, "--through-kafka")
    assert through == evaluated(*words)
    assert through["overall"]["links"] > 60
    assert list(tmp_path.glob("lethe-evaluate*")) == []
