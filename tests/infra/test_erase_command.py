"""`lethe erase`: what it refuses before anything is asked, and clear errors that hold no value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.errors import EXIT_ERROR, EXIT_NOT_UP, EXIT_USAGE
from infra.keys import export_enquiry_key, init_keys
from infra.settings import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    monkeypatch.setenv("LETHE_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("LETHE_REGISTRY", "http://127.0.0.1:1/apis/ccompat/v7")
    return tmp_path


def lethe(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["erase", *arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--supplier", "dfe", "--subject", "Zq9x", "--reason", "boredom"), "--reason must be one of"),
        (("--reason", "error"), "either --supplier and --subject, or --person"),
        (("--supplier", "dfe", "--reason", "error"), "either --supplier and --subject, or --person"),
        (("--person", "p.json", "--subject", "Zq9x", "--reason", "error"), "either --supplier and --subject"),
        (("--supplier", "nobody", "--subject", "Zq9x", "--reason", "error"), "unknown supplier"),
        (("--supplier", "dfe", "--subject", "Zq9x|r1", "--reason", "error"), "no supplier's id"),
        (("--supplier", "dfe", "--subject", " ", "--reason", "error"), "no supplier's id"),
        (("--supplier", "dfe", "--subject", "Zq9x", "--reason", "error", "--by", "b" * 101), "longer than 100"),
    ],
)
def test_wrong_usage(home: Path, arguments: tuple[str, ...], said: str) -> None:  # noqa: ARG001
    code, out = lethe(*arguments)
    assert (code, said in out, "Zq9x" in out) == (EXIT_USAGE, True, False), out


def test_a_person_that_cannot_be_read(home: Path) -> None:
    (home / "p.json").write_text(json.dumps({"forename": "Zq9x", "colour": "red"}))
    code, out = lethe("--person", str(home / "p.json"), "--reason", "error")
    assert (code, "unknown field colour" in out, "Zq9x" in out) == (EXIT_ERROR, True, False)


def test_without_the_public_key(home: Path) -> None:
    code, out = lethe("--supplier", "dfe", "--subject", "-", "--reason", "error", stdin="Zq9x\n")
    assert (code, "lethe keys init" in out, "Zq9x" in out) == (EXIT_ERROR, True, False)
    assert home.exists()


def test_a_stack_that_is_not_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init_keys(Settings())
    export_enquiry_key(Settings())
    monkeypatch.setattr("infra.erasure._CALL_S", 0.5)
    code, out = lethe("--supplier", "dfe", "--subject", "Zq9x", "--reason", "error")
    assert (code, "Zq9x" in out) == (EXIT_NOT_UP, False), out
    assert home.exists()
