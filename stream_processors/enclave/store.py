"""One DuckDB file: the tables, and in the same transactions how far the topic has been read.

DuckDB marks deleted rows and leaves their bytes in the file ("Reclaiming space" in its manual), so a file with removed
rows is *swept*: what lives is copied to a new file, which takes the old one's place. The copy is by rows, so nothing
that was deleted is in it.
"""

# ruff: noqa: S608  (names in the SQL are the contract's, and never of a record)

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa

from stream_processors.enclave import tables
from stream_processors.enclave.changes import Changes
from stream_processors.enclave.tables import quoted

FILE = "enclave.duckdb"
_NEW = "enclave.duckdb.new"
_LAYOUT = 1  # of the schema `sync`; another number makes the next sync rebuild


class FileInUseError(RuntimeError):
    """Another process has the DuckDB file open."""


@dataclass(frozen=True)
class Position:
    """How far the file has come.

    `topic_id`: of the topic that was read. `offsets`: next offset by partition. `as_of_ms`: a time, in ms since 1970,
    up to which every deletion is in the file. `unswept`: rows were removed since the last sweep.
    `tombstones`, `refused`: counted since the file was made.
    """

    topic_id: str = ""
    offsets: Mapping[int, int] = field(default_factory=dict)
    as_of_ms: int = 0
    unswept: bool = False
    tombstones: int = 0
    refused: int = 0


def _nothing(_: str) -> None:
    pass


class Store:
    """The file, open for writing: nobody else can have it open meanwhile. Every method leaves it consistent.

    `reach` is called with the name of each step, for tests that kill.
    """

    def __init__(
        self,
        folder: Path,
        memory_mb: int = 512,
        reach: Callable[[str], None] = _nothing,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Open the file, or make it.

        Raises:
            FileInUseError: another process has it open.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder, self.path = folder, folder / FILE
        self._reach = reach
        self._config = {
            "memory_limit": f"{memory_mb}MB",
            "threads": "2",
            "preserve_insertion_order": "false",
            "temp_directory": str(folder / "spill"),
            **(config or {}),
        }
        _remove(folder / _NEW)  # of a sweep that was cut short
        self.unusable: str | None = None
        """Why a file that was there has been made anew."""
        if not self.path.exists():
            self._make()
        try:
            self._connection = self._open()
        except duckdb.Error:  # the file is a copy of the topic: one that is damaged is made anew, never repaired
            self.unusable = "the file that was there could not be read"
            self._renew()
        if not self._fits():
            self.unusable = "the file that was there is of another version"
            self.connection.close()
            self._renew()
        self.position = self._read_position()

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The open file."""
        return self._connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def rebuild(self) -> None:
        """Begin anew: an empty file in place of the one that cannot be trusted any more, Parquet copies gone."""
        self.connection.close()
        self._renew()
        self.position = self._read_position()

    def _renew(self) -> None:
        for old in (self.path, *(self.folder / "parquet").glob("*")):
            _remove(old)
        self._make()
        self._connection = self._open()

    def begin(self, topic_id: str, partitions: Sequence[int], as_of_ms: int) -> None:
        """Note on an empty file which topic is read, and since when."""
        self.position = Position(topic_id, dict.fromkeys(partitions, 0), as_of_ms)
        self._transaction(lambda: None, self.position)

    def apply(self, changes: Changes, offsets: Mapping[int, int]) -> int:
        """Take changes and the offsets after them, in one transaction. Returns the persons whose rows were removed."""
        was = self.position
        removed = 0

        def write() -> None:
            nonlocal removed
            removed = tables.apply(self.connection, changes.upserts, changes.gone)

        self._transaction(
            write,
            lambda: Position(
                was.topic_id,
                {**was.offsets, **offsets},
                was.as_of_ms,
                was.unswept or removed > 0,
                was.tombstones + changes.tombstones,
                was.refused + len(changes.refused),
            ),
        )
        return removed

    def caught_up(self, as_of_ms: int) -> None:
        """Note that every record from before that time has been taken in."""
        p = self.position
        new = Position(p.topic_id, p.offsets, as_of_ms, p.unswept, p.tombstones, p.refused)
        self._transaction(lambda: None, new)

    def _transaction(self, write: Callable[[], None], position: Position | Callable[[], Position]) -> None:
        self.connection.execute("BEGIN")
        try:
            write()
            self._reach("written")
            new = position() if callable(position) else position
            self._write_position(new)
            self._reach("positioned")
            self.connection.execute("COMMIT")
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.position = new
        self._reach("committed")

    def sweep(self) -> None:
        """Copy what lives to a new file and put it in place of the old one, if rows were removed since the last time.

        A crash leaves the old file or the new one, and no third.
        """
        if not self.position.unswept:
            return
        new = self.folder / _NEW
        _remove(new)
        self.connection.execute(f"ATTACH '{str(new).replace(chr(39), chr(39) * 2)}' AS swept")
        tables.create(self.connection, catalog="swept")
        _make_sync(self.connection, "swept")
        for name in [t.name for t in tables.tables()]:
            order = " ORDER BY person_id" if name == tables.PERSONS else ""
            self.connection.execute(f"INSERT INTO swept.{quoted(name)} SELECT * FROM {quoted(name)}{order}")
        p = self.position
        swept = Position(p.topic_id, p.offsets, p.as_of_ms, False, p.tombstones, p.refused)
        self._write_position(swept, "swept.")
        self._reach("copied")
        self.connection.execute("CHECKPOINT swept")
        self.connection.execute("DETACH swept")
        self.connection.execute("CHECKPOINT")
        self.connection.close()
        _remove(self.folder / f"{FILE}.wal")
        _synced(new)
        self._reach("before_rename")
        new.replace(self.path)
        _synced(self.folder)
        self._reach("renamed")
        self._connection = self._open()
        self.position = self._read_position()

    def export_parquet(self) -> list[Path]:
        """Write every table to `parquet/<table>.parquet`, each in place of the last one."""
        folder = self.folder / "parquet"
        folder.mkdir(exist_ok=True, mode=0o700)
        out = []
        for name in [*(t.name for t in tables.tables()), tables.FAMILIES]:
            path, new = folder / f"{name}.parquet", folder / f"{name}.parquet.new"
            self.connection.execute(
                f"COPY {quoted(name)} TO '{str(new).replace(chr(39), chr(39) * 2)}' (FORMAT parquet, COMPRESSION zstd)"
            )
            new.chmod(0o600)
            new.replace(path)
            out.append(path)
        for stray in set(folder.glob("*")) - set(out):
            _remove(stray)
        return out

    def has_parquet(self) -> bool:
        """Whether Parquet copies were asked for before."""
        return (self.folder / "parquet").is_dir()

    def remove_parquet(self) -> None:
        """Remove the Parquet copies."""
        for old in (self.folder / "parquet").glob("*"):
            _remove(old)
        if self.has_parquet():
            (self.folder / "parquet").rmdir()

    def counts(self) -> dict[str, int]:
        """Rows of each table."""
        names = [*(t.name for t in tables.tables()), tables.FAMILIES]
        each = ", ".join(f"(SELECT count(*) FROM {quoted(n)})" for n in names)
        (row,) = self.connection.execute(f"SELECT {each}").fetchall()
        return dict(zip(names, map(int, row), strict=True))

    # The file.

    def _make(self) -> None:
        connection = duckdb.connect(str(self.path), config=dict(self._config))
        self.path.chmod(0o600)
        connection.execute("BEGIN")
        tables.create(connection)
        _make_sync(connection)
        connection.execute("COMMIT")
        connection.close()

    def _open(self) -> duckdb.DuckDBPyConnection:
        try:
            return duckdb.connect(str(self.path), config=dict(self._config))
        except duckdb.IOException as e:
            if "lock" in str(e).lower():
                raise FileInUseError(
                    f"{self.path} is open in another process: a sync waits until nobody reads it"
                ) from None
            raise

    def _fits(self) -> bool:
        """Whether the file is as this code makes it; else it is rebuilt from the topic."""
        try:
            found = self.connection.execute(
                "SELECT table_name, column_name, data_type FROM duckdb_columns() "
                "WHERE NOT internal AND schema_name = 'main' ORDER BY table_name, column_index"
            ).fetchall()
            layout = self.connection.execute("SELECT layout FROM sync.state").fetchall()
        except duckdb.Error:
            return False
        wanted = [(t.name, c.name, c.type) for t in sorted(tables.tables(), key=lambda t: t.name) for c in t.columns]
        return layout == [(_LAYOUT,)] and [f for f in found if f[0] != tables.FAMILIES] == wanted

    def _read_position(self) -> Position:
        (row,) = self.connection.execute(
            "SELECT topic_id, as_of_ms, unswept, tombstones, refused FROM sync.state"
        ).fetchall()
        offsets = self.connection.execute("SELECT partition, next_offset FROM sync.offsets").fetchall()
        return Position(row[0], dict(offsets), row[1], row[2], row[3], row[4])

    def _write_position(self, p: Position, catalog: str = "") -> None:
        c = self.connection
        c.execute(f"DELETE FROM {catalog}sync.state")
        c.execute(
            f"INSERT INTO {catalog}sync.state VALUES (?, ?, ?, ?, ?, ?)",
            [_LAYOUT, p.topic_id, p.as_of_ms, p.unswept, p.tombstones, p.refused],
        )
        c.execute(f"DELETE FROM {catalog}sync.offsets")
        rows = pa.table({"p": pa.array(p.offsets.keys(), pa.int32()), "o": pa.array(p.offsets.values(), pa.int64())})
        c.register("lethe_offsets", rows)
        c.execute(f"INSERT INTO {catalog}sync.offsets SELECT * FROM lethe_offsets")
        c.unregister("lethe_offsets")


def _make_sync(connection: duckdb.DuckDBPyConnection, catalog: str | None = None) -> None:
    prefix = f"{catalog}." if catalog else ""
    connection.execute(f"CREATE SCHEMA {prefix}sync")
    connection.execute(
        f"CREATE TABLE {prefix}sync.state (layout INTEGER, topic_id VARCHAR, as_of_ms BIGINT, unswept BOOLEAN, "
        "tombstones BIGINT, refused BIGINT)"
    )
    connection.execute(f"INSERT INTO {prefix}sync.state VALUES (?, '', 0, false, 0, 0)", [_LAYOUT])
    connection.execute(f"CREATE TABLE {prefix}sync.offsets (partition INTEGER, next_offset BIGINT)")


def _remove(path: Path) -> None:
    """A file and its write-ahead log."""
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)


def _synced(path: Path) -> None:
    """Have the disk hold what was written, before anything is said of it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
