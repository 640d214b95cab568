"""Every command, found by walking the tree: help with an example, JSON where it prints results, and what to do when the
stack is not up."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from infra.cli import app, main

TELL_NOTHING = {
    "up", "down", "provision", "run",  # do something
    "keys init", "keys council", "supplier add", "enclave credential",  # make something
    "dictionary", "monitoring", "evaluate weights",  # print or write a document
    "console",  # serves pages
}  # fmt: skip
"""Commands without results that a program would read."""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Name and command of each leaf."""
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))
    if path and not hasattr(command, "commands"):
        yield " ".join(path), command


ALL = dict(commands(typer.main.get_command(app)))


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"lethe \d+\.\d+\.\d+\n", CliRunner().invoke(app, ["--version"]).output)


def test_the_walk_finds_the_commands() -> None:
    assert {"up", "quarantine requeue", "replay", "publish"} <= ALL.keys()
    assert set(ALL) >= TELL_NOTHING


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_an_example_of_itself(name: str) -> None:
    examples = re.findall(r"(?:Example:|Examples:\n) *(.+)", ALL[name].help or "")
    assert examples, "no example in its help"
    assert all(e.startswith(f"lethe {name}") for e in examples)


@pytest.mark.parametrize("name", ALL)
def test_a_command_says_what_each_option_is(name: str) -> None:
    assert [p.name for p in ALL[name].params if p.name != "help" and not getattr(p, "help", None)] == []


@pytest.mark.parametrize("name", [n for n in ALL if n not in TELL_NOTHING])
def test_a_command_with_results_prints_them_as_json_if_asked(name: str) -> None:
    assert "--json" in {o for p in ALL[name].params for o in p.opts}


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["lethe", "monitoring", "--to", str(tmp_path / "file" / "below")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'file' / 'below'}: Not a directory\n"


NEED_NO_BROKER = {
    "up", "down", "provision", "run", "publish", "console",  # wait for the broker, or are there to bring it up
    "simulate", "dictionary", "monitoring", "risk", "enclave report", "enclave credential",  # read and write files
    "keys init", "keys council", "destruction check-certificate",
    "enquire",  # asks the control plane over HTTP
    "bench", "demo", "demo destruction",  # bring up a stack of their own
    "evaluate pairs", "evaluate febrl4", "evaluate simulated", "evaluate weights", "evaluate effects",
}  # fmt: skip
ARGUMENTS = {
    "clock tick": "--as-of 2020-01-01",
    "compare": "a b",
    "destruction certificate": "--out certificate",
    "enclave sync": "--to enclave",
    "erase": "--supplier dfe --subject A1 --reason objection",
    "keys rotate": "--execute",
    "quarantine requeue": "--execute",
    "replay": "join --from-beginning",
    "rollout retire": "blue",
    "rollout switch": "blue",
    "supplier add": "council-x",
    "trace": "--supplier dfe --subject A1",
}
"""Of commands that need some to begin."""


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation with keys, whose broker and registry are not there: connections are refused."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LETHE_HOME", str(tmp_path))
    assert CliRunner().invoke(app, ["keys", "init"]).exit_code == 0
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # bound and not listened at
        port = s.getsockname()[1]
        monkeypatch.setenv("LETHE_BOOTSTRAP", f"127.0.0.1:{port}")
        monkeypatch.setenv("LETHE_REGISTRY", f"http://127.0.0.1:{port}")
        yield


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("name", [n for n in ALL if n not in NEED_NO_BROKER])
def test_a_command_without_its_stack_says_at_once_which_brings_it_up(name: str) -> None:
    arguments = [*name.split(), *ARGUMENTS.get(name, "").split()]
    began = time.process_time(), time.monotonic()
    said = CliRunner().invoke(app, arguments)
    # What a busy machine takes longer for is processor time; waiting is the rest.
    waited = time.monotonic() - began[1] - (time.process_time() - began[0])
    assert said.exit_code == 3, said.output
    assert "lethe up" in said.stderr
    assert "Traceback" not in said.output
    assert waited < 5, "it tried for long"
