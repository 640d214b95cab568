"""Which instance of a processor this process is: the lowest number whose lock on this machine is free.

The number names the group membership, the transactional id and the state folder, so a process that is killed and
started again finds all three; the kernel frees the lock with the process. A suspended process keeps its lock, and its
replacement takes the next number.
"""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

_MOST = 1_000


class NoInstanceError(RuntimeError):
    """The instance that was asked for is running already, or too many are."""


@dataclass
class Instance:
    """One running copy of a processor. `folder` holds its state, a folder per partition."""

    processor: str
    number: int
    folder: Path
    _lock: IO[bytes]

    @property
    def member(self) -> str:
        """Name of the membership: unique among all that run, and the same after a restart."""
        return f"{self.processor}-{socket.gethostname()}-{self.number}"

    @classmethod
    def claim(cls, state: Path, processor: str, number: int | None = None) -> Instance:
        """Take the given number, or the lowest free one.

        Raises:
            NoInstanceError: it is taken.
        """
        for n in range(1, _MOST) if number is None else [number]:
            folder = folder_of(state, processor, n)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (folder / "lock").open("ab")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())
            lock.flush()
            return cls(processor, n, folder, lock)
        raise NoInstanceError(f"{processor}: instance {number if number else ''} is running already on this machine")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()


@dataclass(frozen=True)
class Running:
    """A processor that runs on this machine."""

    processor: str
    number: int
    pid: int


def folder_of(state: Path, processor: str, number: int) -> Path:
    """What an instance keeps: its lock, its state, and where it answers."""
    return state / processor / str(number)


def running(state: Path) -> list[Running]:
    """Every instance whose process holds its lock, by processor and number.

    Looks at who has the file open, and does not try the lock: an instance that starts at that moment would miss it.
    """
    out = []
    for lock in sorted(state.glob("*/*/lock")):
        try:
            pid = int(lock.read_text() or 0)
            held = pid and any(Path(f.path) == lock for f in psutil.Process(pid).open_files())
        except (psutil.Error, OSError, ValueError):
            continue
        if held:
            out.append(Running(lock.parent.parent.name, int(lock.parent.name), pid))
    return out
