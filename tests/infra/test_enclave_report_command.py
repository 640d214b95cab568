from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.simulated_enclave import simulated_enclave
from stream_processors.enclave.report.outcomes import OUTCOMES


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enclave")
    simulated_enclave(folder, 300, 1)
    return folder


def test_the_report_is_written_and_summed_up(tables: Path, tmp_path: Path) -> None:
    code, out, _ = run("enclave", "report", "--from", str(tables), "--to", str(tmp_path / "r"), "--json")
    assert code == 0
    said = json.loads(out)
    assert Path(said["page"]).is_file()
    assert set(said["outcomes"]) == {o.name for o in OUTCOMES}
    assert said["refused"]["effect.custody"] == "threshold"
    code, out, _ = run("enclave", "report", "--from", str(tables), "--to", str(tmp_path / "r"))
    assert code == 0
    assert "threshold (fewer than ten families or people" in out
    assert str(tmp_path / "r" / "index.html") in out.replace("\n", "")


def test_no_tables_and_a_folder_of_others_say_what_to_do(tables: Path, tmp_path: Path) -> None:
    code, _, err = run("enclave", "report", "--from", str(tmp_path), "--to", str(tmp_path / "r"))
    assert code == 1
    assert "lethe enclave sync" in err
    (tmp_path / "mine").write_text("")
    code, _, err = run("enclave", "report", "--from", str(tables), "--to", str(tmp_path))
    assert code == 1
    assert "new or empty folder" in err


def test_evaluate_effects_counts_how_often_the_truth_is_covered() -> None:
    code, out, _ = run("evaluate", "effects", "--families", "150", "--seeds", "2", "--json")
    said = json.loads(out)
    assert code in (0, 1)
    absence = said["contrasts"]["difference in differences"]["unauthorised_absence"]
    assert absence["truth"] == 0.7
    assert absence["seeds"] == 2
