"""A worker that may not start says so at once, whatever else is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import typer

from infra.errors import EXIT_ERROR
from infra.keys import init_keys
from infra.settings import Settings
from infra.worker import work


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["pseudonymise", "publish"])
@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [(None, 0o600, "lethe keys init"), (b"short", 0o600, "lethe keys init"), (b"k" * 64, 0o644, "chmod 600")],
)
def test_a_key_that_is_missing_short_or_open_to_others_is_refused_without_waiting_for_the_registry(
    name: str,
    content: bytes | None,
    mode: int,
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nowhere = Settings(home=tmp_path, bootstrap="127.0.0.1:1", registry="http://127.0.0.1:1")
    if content is not None:
        keys = tmp_path / "keys"
        keys.mkdir(mode=0o700)
        for file in ("token.key", "research.key"):
            (keys / file).write_bytes(content)
            (keys / file).chmod(mode)
    with pytest.raises(typer.Exit) as ended:
        work(name, nowhere)
    assert ended.value.exit_code == EXIT_ERROR
    said = capsys.readouterr().err
    assert complaint in said
    assert "kkkk" not in said


def test_the_last_line_names_who_ended_first_and_why_the_others_did(tmp_path: Path) -> None:
    env = os.environ | {
        "LETHE_HOME": str(tmp_path),
        "LETHE_BOOTSTRAP": "127.0.0.1:1",
        "LETHE_REGISTRY": "http://127.0.0.1:1",
    }
    command = [sys.executable, "-m", "infra.cli", "run", "join", "publish"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_ERROR
    assert "lethe keys init" in done.stderr, "publish has no key, and says so"
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: publish ended by itself (exit code 1), so the others were stopped")


def test_no_processor_is_left_behind_when_what_watches_it_is_killed(tmp_path: Path) -> None:
    init_keys(Settings(home=tmp_path))
    env = os.environ | {
        "LETHE_HOME": str(tmp_path),
        "LETHE_BOOTSTRAP": "127.0.0.1:1",
        "LETHE_REGISTRY": "http://127.0.0.1:1",
    }
    above = subprocess.Popen([sys.executable, "-m", "infra.worker", "route", "join"], env=env)
    whole = psutil.Process(above.pid)
    children: list[psutil.Process] = []
    while len(children) < 2:
        assert above.poll() is None
        children = whole.children()
    assert [c for c in children if c.is_running()] == children
    above.kill()
    above.wait()
    assert psutil.wait_procs(children, timeout=10)[1] == []
