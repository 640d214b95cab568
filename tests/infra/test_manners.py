"""Every command, found by walking the tree: help with an example, JSON where it prints results, and what to do when the
stack is not up."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from infra.cli import app

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


@pytest.mark.parametrize(
    "arguments",
    [
        ["quarantine", "ls"],
        ["quarantine", "requeue", "--execute"],
        ["replay", "join", "--from-beginning"],
        ["rollout", "ls"],
    ],
    ids=" ".join,
)
def test_a_command_without_its_stack_says_which_brings_it_up(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]  # bound and not listened at: refused
        monkeypatch.setenv("LETHE_HOME", str(tmp_path))
        monkeypatch.setenv("LETHE_BOOTSTRAP", f"127.0.0.1:{port}")
        monkeypatch.setenv("LETHE_REGISTRY", f"http://127.0.0.1:{port}")
        said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 3, said.output
    assert "lethe up" in said.stderr
    assert "Traceback" not in said.output
