"""What `lethe destroy` has done so far, on disk before the next step begins: killed half-way, a second run goes on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from infra.settings import Settings


@dataclass
class Journal:
    """One destruction. `done`: steps by name, in order, with what each has to say; `purged`: records by topic, counted
    before they were deleted; `edition`: the one that was in use when it began."""

    path: Path
    reason: str = ""
    by: str = ""
    began_ms: int = 0
    done: dict[str, str] = field(default_factory=dict)
    purged: dict[str, int] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    edition: str = ""

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """The journal of this installation: the one that is there, or a new one."""
        path = folder(settings) / "journal.json"
        if not path.exists():
            return cls(path)
        return cls(path, **json.loads(path.read_text()))

    def keep(self) -> None:
        """Write it whole or not at all, and have the disk hold it."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        said: dict[str, Any] = {k: v for k, v in asdict(self).items() if k != "path"}
        partial = self.path.with_suffix(".partial")
        with partial.open("w") as file:
            json.dump(said, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)

    def finish(self, step: str, said: str) -> None:
        """Note that a step is done, and what it did."""
        self.done[step] = said
        self.keep()


def folder(settings: Settings) -> Path:
    """Where the journal and the last certificate are: they remain when everything else is gone."""
    return settings.base / "destruction"
