"""State of one partition of one processor: tables of bytes, an overlay for what is not committed, RocksDB below.

`true` tables are verbatim copies of inputs, or indexes derived from them, and are rebuilt from the inputs. `said`
tables remember where outputs went, and are rebuilt from the processor's changelog topic, whose keys are the table's.
`memory` tables are made at each start from small topics.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import msgpack
from rocksdict import (
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from stream_processors.runtime.records import Inputs

Writes = dict[str, dict[bytes, bytes | None]]
"""Table to key to value; None deletes."""

_CACHE_BYTES = 32 << 20
_CACHE = Cache(_CACHE_BYTES)  # shared by all partitions of a process, so that memory does not grow with them


_DAMAGED = ".damaged"  # beside the folder that it is about: the folder itself may not be writable any more
_DAMAGES = ("Corruption", "IO error: No such file")


class StateFolderError(RuntimeError):
    """A state folder cannot be read or written any more. The message names it and says what to do; RocksDB's own, which
    may repeat a key, stays out."""


@dataclass(frozen=True)
class Table:
    """One table of a processor's state."""

    name: str
    kind: Literal["true", "said", "memory"]
    reserved: tuple[bytes, ...] = ()
    """How keys of rows begin that say nothing of a key of the outputs, such as the clock."""


class Store(Protocol):
    """What is committed. `applied` is the last argument of `apply`, the very object, or None: who remembers something
    of a store can tell by it whether the store has moved since."""

    applied: Writes | None

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Value of each key, in order; None where there is none."""

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys that start with the prefix, with their values, in order of key."""

    def scan_many(self, table: str, prefixes: Sequence[bytes]) -> list[list[tuple[bytes, bytes]]]:
        """`scan` of each prefix, in order; fastest if the prefixes ascend."""

    def apply(self, writes: Writes, position: Position) -> None:
        """All writes and the position, or nothing."""

    def position(self) -> Position:
        """How far the store has followed its inputs."""

    def sweep(self, now_ms: int) -> None:
        """Rewrite the files without what was deleted or replaced: no byte of it is left in them."""

    def close(self) -> None:
        """Release files."""


@dataclass(frozen=True)
class Position:
    """Next offset of each input topic and of the changelog, and when (ms since 1970) it was written."""

    inputs: Mapping[str, int]
    changelog: int = 0
    written_ms: int = 0


History = Callable[[str], Iterable[Inputs]]
"""What was read of a pattern of topics (`identified.*`) in this partition before this batch, as the log has it now."""


def no_history(pattern: str) -> Iterable[Inputs]:  # noqa: ARG001
    """Nothing was read before."""
    return ()


class View:
    """A store seen through the writes of a step that is not committed yet."""

    def __init__(
        self,
        store: Store,
        tables: Sequence[Table],
        partition: int = 0,
        forgotten: Table | None = None,
        history: History = no_history,
    ) -> None:
        """`forgotten`: a table that looks empty but for its reserved rows and what is written through this view."""
        self._store = store if forgotten is None else _Forgetful(store, forgotten)
        self.partition = partition
        self.history = history
        self.removed: dict[bytes, bytes] = {}
        """Rows that this batch has ended: from `absorb` to `settle`."""
        self.read_at: Mapping[str, int] = {}
        """The broker's time (ms since 1970) of the last record of each topic in this batch, heartbeats included."""
        self.base = store.applied
        self.writes: Writes = {t.name: {} for t in tables}
        self._groups: dict[tuple[str, int], tuple[dict[bytes, list[bytes]], list[int]]] = {}
        self.refused: dict[bytes, str] = {}
        """Keys of this batch that a guard refused, with the class of the error: from `absorb` to `settle`."""
        self.changes: dict[tuple[str, str | None, str], int] = {}
        """How many records came, changed and went, by supplier, dataset and what: from `absorb` to `settle`."""
        self.unpacked: dict[bytes, dict[bytes, bytes]] = {}
        """Values that `absorb` has written, before they were packed: `settle` need not unpack them."""

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Value of each key, in order; None where there is none."""
        return _seen_through(self.writes[table], keys, lambda below: self._store.get_many(table, below))

    def scan(self, table: str, prefix: bytes, most: int | None = None) -> list[tuple[bytes, bytes]]:
        """Keys that start with the prefix, with their values, in order of key; of so many the first that there are at
        most, and no more are looked at."""
        rows = self._store.scan(table, prefix)
        mine = {k: v for k, v in self.writes[table].items() if k.startswith(prefix)}
        return list(islice(_merged(rows, mine), most))

    def scan_many(self, table: str, prefixes: Sequence[bytes], width: int) -> list[list[tuple[bytes, bytes]]]:
        """`scan` for many prefixes of one width in bytes (a whole leading part of the keys), in order."""
        mine, grouped = self.writes[table], self._grouped(table, width)
        out = self._store.scan_many(table, prefixes)
        if grouped:
            for i, prefix in enumerate(prefixes):
                if changed := grouped.get(prefix):
                    out[i] = list(_merged(out[i], {key: mine[key] for key in changed}))
        return out

    def _grouped(self, table: str, width: int) -> Mapping[bytes, list[bytes]]:
        """Keys that were written, by so many leading bytes. A key that was written once stays written, so each call
        looks at those alone that came after the last."""
        groups, seen = self._groups.setdefault((table, width), ({}, [0]))
        mine = self.writes[table]
        for key in islice(mine, seen[0], None):
            groups.setdefault(key[:width], []).append(key)
        seen[0] = len(mine)
        return groups

    def put(self, table: str, key: bytes, value: bytes | None) -> None:
        """Set a value; None deletes."""
        self.writes[table][key] = value

    def put_many(self, table: str, rows: Mapping[bytes, bytes | None]) -> None:
        """Set many."""
        self.writes[table].update(rows)


class _Forgetful:
    """A store to look at, of which one table looks empty but for its reserved rows."""

    def __init__(self, store: Store, forgotten: Table) -> None:
        self._store, self._table = store, forgotten
        self.applied = store.applied

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        found = self._store.get_many(table, keys)
        if table != self._table.name:
            return found
        return [v if k.startswith(self._table.reserved) else None for k, v in zip(keys, found, strict=True)]

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows = self._store.scan(table, prefix)
        return rows if table != self._table.name else (r for r in rows if r[0].startswith(self._table.reserved))

    def scan_many(self, table: str, prefixes: Sequence[bytes]) -> list[list[tuple[bytes, bytes]]]:
        if table != self._table.name:
            return self._store.scan_many(table, prefixes)
        return [list(self.scan(table, prefix)) for prefix in prefixes]

    def apply(self, writes: Writes, position: Position) -> None:
        raise NotImplementedError("only to look at")

    def position(self) -> Position:
        return self._store.position()

    def close(self) -> None:
        """It is not ours to close."""


class Ahead:
    """A store to look at as it will be once `writes` are applied, and is after. Meanwhile they may be applied."""

    def __init__(self, store: Store, writes: Writes) -> None:
        self._store, self._writes = store, writes
        self.applied: Writes | None = writes
        self._starting: dict[tuple[str, int], dict[bytes, dict[bytes, bytes | None]]] = {}

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Store`."""
        return _seen_through(self._writes.get(table) or {}, keys, lambda below: self._store.get_many(table, below))

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `Store`."""
        changed = self._changed(table, prefix)
        rows = self._store.scan(table, prefix)
        return _merged(rows, changed)

    def scan_many(self, table: str, prefixes: Sequence[bytes]) -> list[list[tuple[bytes, bytes]]]:
        """See `Store`."""
        found = self._store.scan_many(table, prefixes)
        if self._writes.get(table):
            for i, prefix in enumerate(prefixes):
                if changed := self._changed(table, prefix):
                    found[i] = list(_merged(found[i], changed))
        return found

    def apply(self, writes: Writes, position: Position) -> None:
        """Not here."""
        raise NotImplementedError("only to look at")

    def position(self) -> Position:
        """Of the store, without the writes."""
        return self._store.position()

    def sweep(self, now_ms: int) -> None:
        """Not here."""
        raise NotImplementedError("only to look at")

    def close(self) -> None:
        """It is not ours to close."""

    def _changed(self, table: str, prefix: bytes) -> Mapping[bytes, bytes | None]:
        """Writes under a prefix, found by an index of all that are under prefixes of its width."""
        width = len(prefix)
        index = self._starting.get((table, width))
        if index is None:
            index = self._starting[table, width] = _by_prefix(self._writes.get(table) or {}, width)
        return index.get(prefix, {})


def _seen_through(
    writes: Mapping[bytes, bytes | None],
    keys: Sequence[bytes],
    held: Callable[[Sequence[bytes]], list[bytes | None]],
) -> list[bytes | None]:
    """Value of each key: what is written, or else what is held below."""
    below = [k for k in keys if k not in writes] if writes else keys
    if len(below) == len(keys):
        return held(keys)
    if not below:
        return [writes[k] for k in keys]
    found = dict(zip(below, held(below), strict=True))
    return [writes[k] if k in writes else found[k] for k in keys]


def _by_prefix(writes: Mapping[bytes, bytes | None], width: int) -> dict[bytes, dict[bytes, bytes | None]]:
    out: dict[bytes, dict[bytes, bytes | None]] = {}
    for key, value in writes.items():
        out.setdefault(key[:width], {})[key] = value
    return out


def _merged(
    rows: Iterable[tuple[bytes, bytes]], changed: Mapping[bytes, bytes | None]
) -> Iterator[tuple[bytes, bytes]]:
    """Rows in order of key with what was written over them, without looking further ahead than one."""
    if not changed:
        yield from rows
        return
    written = deque(sorted(changed))
    for row in rows:
        while written and written[0] <= row[0]:
            key = written.popleft()
            value = changed[key]
            if value is not None:
                yield key, value
        if row[0] not in changed:
            yield row
    for key in written:
        value = changed[key]
        if value is not None:
            yield key, value


class MemoryStore:
    """A store in a dict, for the brokerless driver."""

    def __init__(self) -> None:
        self.applied: Writes | None = None
        self._tables: dict[str, dict[bytes, bytes]] = {}
        self._ordered: dict[str, list[bytes]] = {}
        self._position = Position({})

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Store`."""
        rows = self._tables.get(table, {})
        return [rows.get(k) for k in keys]

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `Store`."""
        rows = self._tables.get(table, {})
        keys = self._ordered.get(table)
        if keys is None:
            keys = self._ordered[table] = sorted(rows)
        found = []
        for i in range(bisect_left(keys, prefix), len(keys)):
            if not keys[i].startswith(prefix):
                break
            found.append((keys[i], rows[keys[i]]))
        return iter(found)

    def scan_many(self, table: str, prefixes: Sequence[bytes]) -> list[list[tuple[bytes, bytes]]]:
        """See `Store`."""
        return [list(self.scan(table, prefix)) for prefix in prefixes]

    def apply(self, writes: Writes, position: Position) -> None:
        """See `Store`."""
        self.applied = writes
        for table, rows in writes.items():
            held = self._tables.setdefault(table, {})
            if rows:
                self._ordered.pop(table, None)
            for key, value in rows.items():
                if value is None:
                    held.pop(key, None)
                else:
                    held[key] = value
        self._position = position

    def position(self) -> Position:
        """See `Store`."""
        return self._position

    def sweep(self, now_ms: int) -> None:
        """See `Store`."""

    def close(self) -> None:
        """See `Store`."""


class RocksStore:
    """A store in RocksDB, one folder per partition. Writes and position go in one atomic batch with a write-ahead
    log."""

    _POSITION = b"\x00position"
    SWEPT = b"\x00swept"
    """Row that says when the folder was last swept, in ms since 1970."""

    def __init__(self, path: Path) -> None:
        """Open or make the folder.

        Raises:
            Exception: another process holds it, or it is damaged (the caller discards it: state is a cache).
        """
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(8 << 20)
        options.set_max_write_buffer_number(2)
        options.set_max_background_jobs(1)
        options.set_keep_log_file_num(2)
        options.set_max_open_files(256)
        # The manifest names the first and the last key of every file there was: begun anew at each change, of those
        # that there are.
        options.set_max_manifest_file_size(1)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(_CACHE)
        blocks.set_bloom_filter(10, False)
        # Most keys that are looked up are new. Filters over the memtable and outside of the shared cache say so in
        # 1.5 us instead of 4.4; they take 10 bits a key.
        blocks.set_cache_index_and_filter_blocks(False)
        options.set_memtable_prefix_bloom_ratio(0.1)
        options.set_memtable_whole_key_filtering(True)
        options.set_block_based_table_factory(blocks)
        self._db = Rdict(str(path), options)
        self.applied: Writes | None = None

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Store`."""
        if not keys:
            return []
        prefix = table.encode() + b"\x00"
        with self._watched():
            found: list[bytes | None] = self._db.get([prefix + k for k in keys])
        return found

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `Store`."""
        head = table.encode() + b"\x00"
        return self._rows(head + prefix, len(head))

    def scan_many(self, table: str, prefixes: Sequence[bytes]) -> list[list[tuple[bytes, bytes]]]:
        """See `Store`."""
        head = table.encode() + b"\x00"
        return [list(self._rows(head + prefix, len(head))) for prefix in prefixes]

    def _rows(self, start: bytes, skip: int) -> Iterator[tuple[bytes, bytes]]:
        # Bounded: a cursor walks over what was deleted, one by one, to the next live row. Where much was deleted and
        # not yet merged away, that took 24 ms a prefix of 4 rows; bounded, it takes 6 us.
        options = ReadOptions()
        options.set_iterate_upper_bound(_after(start))
        with self._watched():
            cursor = self._db.iter(options)
            cursor.seek(start)
            while cursor.valid():
                yield cursor.key()[skip:], cursor.value()
                cursor.next()
            cursor.status()  # a cursor ends at a damaged block as it ends at the last key

    def apply(self, writes: Writes, position: Position) -> None:
        """See `Store`."""
        batch = WriteBatch(raw_mode=True)
        for table, rows in writes.items():
            prefix = table.encode() + b"\x00"
            for key, value in rows.items():
                if value is None:
                    batch.delete(prefix + key)
                else:
                    batch.put(prefix + key, value)
        batch.put(self._POSITION, msgpack.packb([dict(position.inputs), position.changelog, position.written_ms]))
        with self._watched():
            self._db.write(batch)
        self.applied = writes

    def position(self) -> Position:
        """See `Store`."""
        with self._watched():
            packed = self._db.get(self._POSITION)
        if packed is None:
            return Position({})
        inputs, changelog, written_ms = msgpack.unpackb(packed)
        return Position(inputs, changelog, written_ms)

    def sweep(self, now_ms: int) -> None:
        """See `Store`. Memtable and log go to a file, all files are merged into new ones, and the manifest is begun
        anew twice, since each still lists the files before its own first change. Costs a copy of what lives."""
        merge = CompactOptions()
        merge.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        with self._watched():
            self._db.flush(True)
            self._db.compact_range(None, None, merge)
            for _ in range(2):
                self._db.put(self.SWEPT, b"%d" % now_ms)
                self._db.flush(True)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """What RocksDB cannot do says which folder it is about. One that is damaged is marked, and whoever opens it
        next discards it."""
        try:
            yield
        except Exception as e:  # rocksdict has no narrower type
            if str(e).startswith(_DAMAGES):
                _mark(self.path).touch()
                advice = "it is damaged; start the processor again: it discards the folder and rebuilds it from Kafka"
            else:
                advice = f"it cannot be read or written ({type(e).__name__}); is the disk full, or gone?"
            raise StateFolderError(f"{self.path}: {advice}") from None

    def close(self) -> None:
        """See `Store`. Of a damaged folder nothing more is written."""
        try:
            self._db.close()
        except Exception:
            if not is_damaged(self.path):
                raise


def is_damaged(path: Path) -> bool:
    """Whether a state folder was found damaged while it was in use."""
    return _mark(path).exists()


def damaged_folders(state: Path) -> list[Path]:
    """Those below `<home>/state` that were, in order."""
    return sorted(mark.with_suffix("") for mark in state.glob(f"*/*/*{_DAMAGED}"))


def _mark(path: Path) -> Path:
    return path.with_name(path.name + _DAMAGED)


def _after(prefix: bytes) -> bytes:
    """The first key after all that start with a prefix, which has a byte that is not 255: a table's name."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1])


def discard(path: Path) -> None:
    """Remove a state folder: it is a cache, and what it held is rebuilt from Kafka."""
    shutil.rmtree(path, ignore_errors=True)
    _mark(path).unlink(missing_ok=True)


class Leftovers:
    """What partitions leave behind in an instance's folder when they go to another: removed when it has lain there for
    so long. Until then a partition that comes back finds it."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds
        self._since: dict[int, float] = {}

    def remove(self, now: float, mine: Collection[int]) -> list[int]:
        """Remove what is due, and say which. `now`: of a monotonic clock, in seconds; `mine`: partitions that are
        here."""
        there = {int(f.name) for f in self._folder.iterdir() if f.is_dir() and f.name.isdigit()}
        self._since = {number: self._since.get(number, now) for number in there - set(mine)}
        due = sorted(number for number, since in self._since.items() if now - since >= self._seconds)
        for number in due:
            discard(self._folder / str(number))
            del self._since[number]
        return due
