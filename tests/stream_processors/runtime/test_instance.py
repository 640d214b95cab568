"""An instance is a number that nobody else has on this machine, and that comes back after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stream_processors.runtime.instance import Instance, NoInstanceError, Running, running


def test_two_claims_take_two_numbers_and_two_folders(tmp_path: Path) -> None:
    with Instance.claim(tmp_path, "link") as first, Instance.claim(tmp_path, "link") as second:
        assert (first.number, second.number) == (1, 2)
        assert first.folder != second.folder
        assert first.member != second.member


def test_the_lowest_number_that_is_free_comes_back(tmp_path: Path) -> None:
    first = Instance.claim(tmp_path, "link")
    with Instance.claim(tmp_path, "link"):
        first.__exit__(None, None, None)
        with Instance.claim(tmp_path, "link") as again:
            assert (again.number, again.member, again.folder) == (first.number, first.member, first.folder)


def test_processors_do_not_take_each_others_numbers(tmp_path: Path) -> None:
    with Instance.claim(tmp_path, "link") as link, Instance.claim(tmp_path, "join") as join:
        assert link.number == join.number == 1


def test_a_number_that_is_asked_for_and_taken_is_refused(tmp_path: Path) -> None:
    with Instance.claim(tmp_path, "link", 3) as third:
        assert third.number == 3
        with pytest.raises(NoInstanceError):
            Instance.claim(tmp_path, "link", 3)


def test_a_kill_frees_the_number(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from stream_processors.runtime.instance import Instance\n"
        "held = Instance.claim(Path(sys.argv[1]), 'link'); print(held.number, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with Instance.claim(tmp_path, "link") as mine:
            assert mine.number == 2
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with Instance.claim(tmp_path, "link") as mine:
        assert mine.number == 1


def test_state_is_for_its_owner_alone(tmp_path: Path) -> None:
    with Instance.claim(tmp_path, "link") as mine:
        assert mine.folder.stat().st_mode & 0o077 == 0


def test_those_that_run_are_known_with_their_process_until_they_end(tmp_path: Path) -> None:
    with Instance.claim(tmp_path, "link"), Instance.claim(tmp_path, "join"), Instance.claim(tmp_path, "link"):
        mine = os.getpid()
        assert running(tmp_path) == [Running("join", 1, mine), Running("link", 1, mine), Running("link", 2, mine)]
    assert running(tmp_path) == []
