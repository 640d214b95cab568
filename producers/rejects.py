"""The rejects file of a supplier file: line, field and reason of what was refused, never a value."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TextIO

_LONGEST_NAME = 150  # file systems stop at 255 bytes


def rejects_path(folder: Path, supplier: str, dataset: str, file: Path, digest: str) -> Path:
    """`<folder>/<supplier>/<dataset>/<file name>.<digest8>.rejects.csv`: the same for the same file."""
    name = file.name.encode(errors="replace").decode()
    return folder / supplier / dataset / f"{name[:_LONGEST_NAME]}.{digest[:8]}.rejects.csv"


class RejectsFile:
    """Written beside its place and put there when it is whole. There is none where nothing was refused.

    One line for each bad field: a row with two of them has two.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._file: TextIO | None = None

    @property
    def path(self) -> Path | None:
        """Where it is, or will be; None as long as nothing was refused."""
        return self._path if self._file else None

    def add(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Line (from 1), field (empty: the row as a whole) and reason of each bad field."""
        for row in rows:
            if self._file is None:
                self._file = self._open()
            csv.writer(self._file).writerow(row)

    def _open(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        file = os.fdopen(descriptor, "w", newline="", encoding="utf-8")
        csv.writer(file).writerow(("line", "field", "reason"))
        return file

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._partial.replace(self._path)
        elif kind is None:
            self._path.unlink(missing_ok=True)  # of a run under older rules
