"""A process that outlives the command that starts it, and is only ever stopped if it is still that process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

_SAME_START_S = 2.0  # the boot time that start times are counted from is kept in whole seconds
_STOP_S = 60.0  # the first stop writes a class archive: 5 s of work, more on a busy machine


class Daemon:
    """One process, by the name of its files in `folder`: `<name>.pid` and `<name>.log`.

    Its command line has to contain the folder's path: with the start time, that tells it from a later process that
    was given the same pid.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._pid_file = folder / f"{name}.pid"
        self._child: subprocess.Popen[bytes] | None = None

    def process(self) -> psutil.Process | None:
        """The process, if it is there and not another one."""
        try:
            said = json.loads(self._pid_file.read_text())
            found = psutil.Process(int(said["pid"]))
            if found.status() == psutil.STATUS_ZOMBIE or abs(found.create_time() - said["started"]) > _SAME_START_S:
                return None
            command = found.cmdline()  # empty for a moment while the program is being loaded
            return found if not command or any(str(self._folder) in part for part in command) else None
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None

    def port(self) -> int | None:
        """The port that it was started on; None if it is not there, or was not told one."""
        if self.process() is None:
            return None
        said = json.loads(self._pid_file.read_text()).get("port")
        return None if said is None else int(said)

    def listens(self) -> bool:
        """Whether it has its port: what answers there may be another's, while this one still starts."""
        found, port = self.process(), self.port()
        try:
            sockets = found.net_connections("tcp") if found is not None else []
        except psutil.Error:  # it has ended meanwhile
            return False
        return any(s.status == psutil.CONN_LISTEN and s.laddr and s.laddr.port == port for s in sockets)

    def start(self, command: Sequence[str], port: int | None = None) -> None:
        """Start it, in a session of its own: neither Ctrl-C nor the end of the caller's terminal reaches it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("wb") as out:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self._folder, start_new_session=True
            )
        self._child = child
        started = psutil.Process(child.pid).create_time()
        self._pid_file.write_text(json.dumps({"pid": child.pid, "started": started, "port": port}))

    def stop(self) -> bool:
        """Stop it: politely, after a minute by force. Whether there was anything to stop."""
        found = self.process()
        if found is not None:
            self._end(found)
        if self._child is not None:
            self._child.wait()
            self._child = None
        self._pid_file.unlink(missing_ok=True)
        return found is not None

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        if not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    @staticmethod
    def _end(found: psutil.Process) -> None:
        try:
            found.terminate()
            try:
                found.wait(_STOP_S)
            except psutil.TimeoutExpired:
                found.kill()
                found.wait(_STOP_S)
        except psutil.NoSuchProcess:
            return
