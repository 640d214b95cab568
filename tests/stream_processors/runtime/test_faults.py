"""Faults: a process dies where it was asked to, at the n-th time, and nowhere else."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from stream_processors.runtime.faults import Faults


def test_nothing_happens_unless_it_is_asked_for() -> None:
    Faults.parse("").reach("committed")
    Faults.parse("taken:1").reach("committed")


@pytest.mark.parametrize(("text", "point", "after"), [("taken", "taken", 1), ("committed:3", "committed", 3)])
def test_a_fault_is_a_point_and_a_count(text: str, point: str, after: int) -> None:
    faults = Faults.parse(text)
    assert (faults.point, faults.after) == (point, after)


@pytest.mark.parametrize("text", ["unheard", "committed:soon", ":1"])
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Faults.parse(text)


def test_the_process_dies_at_the_nth_time() -> None:
    code = (
        "from stream_processors.runtime.faults import Faults\n"
        "f = Faults.parse('committed:3')\n"
        "for i in range(9):\n    print(i, flush=True); f.reach('taken'); f.reach('committed')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split() == ["0", "1", "2"]
