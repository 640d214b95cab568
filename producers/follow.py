"""Files that arrive in a folder: each taken once, when it is whole, across restarts.

A file is whole when its size and time have stayed the same for `SETTLED_SECONDS` and its name is not one that
writers give to unfinished files (`.name`, `name~`, `name.part`, `name.partial`, `name.tmp`: rename it when
done, and it is taken at once after that time). It counts as taken by its content, not its name: a copy is not
taken again, an amended file is. Files are looked for by polling: notifications do not work on network shares,
where such folders lie.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producers.readers import READERS

SETTLED_SECONDS = 2.0
_UNFINISHED = ("~", ".part", ".partial", ".tmp", ".filepart", ".crdownload")


class Ledger:
    """The digests of the files taken, one JSON line each, on disk when `add` returns. Names files, no rows.

    A line cut short by a crash is passed over: its file is taken again, which changes nothing downstream.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken: set[str] = set()
        self._whole = True
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            self._whole = not text or text.endswith("\n")
            self._taken.update(_digests(text))

    def __contains__(self, digest: str) -> bool:
        return digest in self._taken

    def add(self, digest: str, entry: dict[str, Any]) -> None:
        """Remember a file by the digest of its content."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        line = json.dumps({"digest": digest, **entry}) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line if self._whole else "\n" + line)
            file.flush()
            os.fsync(file.fileno())
        self._whole = True
        self._taken.add(digest)


def _digests(text: str) -> Iterator[str]:
    for line in text.splitlines():
        try:
            yield str(json.loads(line)["digest"])
        except (ValueError, KeyError, TypeError):
            continue


@dataclass(frozen=True)
class _Seen:
    size: int
    changed_ns: int
    since: float


class Folder:
    """What has arrived in a folder. Ask again and again; each state of a file is handed out once."""

    def __init__(self, path: Path, settled_seconds: float = SETTLED_SECONDS) -> None:
        self._path = path
        self._settled = settled_seconds
        self._seen: dict[Path, _Seen] = {}
        self._handed: dict[Path, tuple[int, int]] = {}

    def arrived(self, now: float) -> list[Path]:
        """Files that are whole and not handed out yet, or changed since; by name. `now`: seconds, monotonic.

        Raises:
            OSError: the folder cannot be read (now).
        """
        out, still = [], {}
        for path, size, changed in self._files():
            if self._handed.get(path) == (size, changed):
                continue
            seen = self._seen.get(path)
            if seen is None or (seen.size, seen.changed_ns) != (size, changed):
                seen = _Seen(size, changed, now)
            if now - seen.since >= self._settled:
                self._handed[path] = (size, changed)
                out.append(path)
            else:
                still[path] = seen
        self._seen = still
        return sorted(out)

    def again(self, path: Path) -> None:
        """Hand the file out once more: it could not be dealt with now."""
        self._handed.pop(path, None)

    def _files(self) -> Iterator[tuple[Path, int, int]]:
        for path in self._path.iterdir():
            name = path.name.lower()
            if name.startswith(".") or name.endswith(_UNFINISHED) or path.suffix.lower() not in READERS:
                continue
            try:
                if path.is_file():
                    status = path.stat()
                    yield path, status.st_size, status.st_mtime_ns
            except OSError:
                continue  # gone again
