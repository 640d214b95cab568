"""State directories: swept, and read row by row for what they must not name any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from stream_processors.runtime.instance import running
from stream_processors.runtime.state import RocksStore

Row = tuple[bytes, bytes]
_ATTEMPTS, _PAUSE_S = 20, 0.25


class StateUnreadableError(OSError):
    """A state directory cannot be opened. It is a cache: it may be removed while its processor is stopped."""


@dataclass(frozen=True)
class StateFolder:
    """The state of one partition. `owned`: a processor that runs has it open, and sweeps it."""

    name: str
    path: Path
    owned: bool


def state_folders(state: Path) -> list[StateFolder]:
    """Every partition's state below `<home>/state`, of every instance that ever ran here."""
    owned = {(r.processor, r.number) for r in running(state)}
    out = []
    for current in sorted(state.glob("*/*/*/CURRENT")):
        path = current.parent
        processor, instance, partition = path.parts[-3:]
        is_owned = instance.isdigit() and (processor, int(instance)) in owned
        out.append(StateFolder(f"state {processor}/{instance}/{partition}", path, is_owned))
    return out


def rows(folder: StateFolder, now_ms: int) -> Iterator[Row]:
    """Its rows: swept first, if nobody has it open; else as they are now. Rows of the store itself are left out.

    Raises:
        StateUnreadableError: it cannot be opened.
    """
    if not folder.owned:
        try:
            store = RocksStore(folder.path)
            store.sweep(now_ms)
            store.close()
        except Exception as e:  # rocksdict has no narrower type
            raise StateUnreadableError(f"{folder.path}: {type(e).__name__}") from None
    database = _read_only(folder.path)
    try:
        for key, value in database.items():
            if not key.startswith(b"\x00"):
                yield key, value
    finally:
        database.close()


def swept_ms(folder: StateFolder) -> int | None:
    """When it was last swept, in ms since 1970.

    Raises:
        StateUnreadableError: it cannot be opened.
    """
    database = _read_only(folder.path)
    try:
        found = database.get(RocksStore.SWEPT)
        return int(found) if found else None
    finally:
        database.close()


def _read_only(path: Path) -> Rdict:
    """As the files are now. Its owner may be replacing them at this moment: then it is tried again."""
    for attempt in range(_ATTEMPTS):
        try:
            return Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
        except Exception as e:  # rocksdict has no narrower type
            if attempt == _ATTEMPTS - 1:
                raise StateUnreadableError(f"{path}: {type(e).__name__}") from None
            time.sleep(_PAUSE_S)
    raise AssertionError
