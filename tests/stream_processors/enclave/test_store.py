"""The file: equal to the compacted topic whatever happens, and without a byte of what was deleted."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_processors.enclave.store import FILE, FileInUseError, Store
from stream_processors.runtime.driver import Log
from tests.examples import examples
from tests.stream_processors.enclave.support import (
    Row,
    bytes_of,
    compacted,
    framed,
    held,
    ordered,
    person_id,
    record,
    take,
)
from tests.stream_processors.tables import decoded

PARTITIONS = 3
POINTS = ("written", "positioned", "committed", "copied", "before_rename", "renamed")


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Enclave:
    """A store that can be killed at a point: what is left is what lay on the disk at that moment."""

    folder: Path
    logs: list[Log] = field(default_factory=lambda: [Log() for _ in range(PARTITIONS)])
    kill_at: str = ""
    images: int = 0

    def reach(self, point: str) -> None:
        if point == self.kill_at:
            self.images += 1
            self.image = self.folder.with_name(f"{self.folder.name}-{self.images}")
            shutil.copytree(self.folder, self.image)
            raise Killed

    def put(self, n: int, row: Row | None) -> None:
        """A record, or a tombstone, of person n."""
        person = person_id(n)
        self.logs[n % PARTITIONS].append(person.encode(), framed(row) if row else None, 0)

    def sync(self, most: int = 10_000, kill_at: str = "", finish: bool = True) -> bool:
        """Take what is there, and sweep; False if it was killed on the way."""
        self.kill_at = kill_at
        try:
            with Store(self.folder, reach=self.reach) as store:
                if not store.position.topic_id:
                    store.begin("topic", range(PARTITIONS), 1)
                while take(store, self.logs, most) and finish:
                    pass
                if finish:
                    store.sweep()
        except Killed:
            self.folder = self.image
            return False
        finally:
            self.kill_at = ""
        return True

    def held(self) -> dict[str, Row]:
        with Store(self.folder) as store:
            return held(store.connection)

    def topic(self) -> dict[str, Row]:
        return {p: ordered(r) for p, r in compacted(self.logs, lambda v: decoded("research.person", v)).items()}


STEP = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 11), st.integers(0, 10_000)),
    st.tuples(st.just("delete"), st.integers(0, 11), st.just(0)),
    st.tuples(st.just("sync"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("kill"), st.integers(1, 4), st.sampled_from(POINTS)),
    st.tuples(st.just("compact"), st.just(0), st.just(0)),
)


@settings(max_examples=examples(10), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEP, min_size=4, max_size=30))
def test_the_tables_equal_the_compacted_topic_after_any_upserts_deletions_kills_and_resumes(steps: list) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as folder:
        enclave = Enclave(Path(folder, "enclave"))
        for step, n, detail in steps:
            match step:
                case "put":
                    enclave.put(n, record(random.Random(detail), person_id(n)))
                case "delete":
                    enclave.put(n, None)
                case "sync":
                    enclave.sync(n, finish=bool(detail))
                case "kill":
                    enclave.sync(n, kill_at=str(detail))
                case "compact":
                    for log in enclave.logs:
                        log.compact(drop_tombstones=False)
        assert enclave.sync()
        assert enclave.held() == enclave.topic()


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_each_step_loses_and_doubles_nothing(point: str, tmp_path: Path) -> None:
    enclave = Enclave(tmp_path / "enclave")
    rng = random.Random(7)
    for n in range(30):
        enclave.put(n, record(rng, person_id(n)))
    enclave.sync()
    for n in range(0, 30, 2):
        enclave.put(n, record(rng, person_id(n)) if n % 3 else None)
    assert not enclave.sync(kill_at=point), "it was killed"
    assert enclave.sync()
    assert enclave.held() == enclave.topic()
    assert sorted(p.name for p in enclave.folder.iterdir() if p.is_file()) == [FILE]


def test_no_byte_of_a_deleted_or_replaced_person_is_left_after_a_sweep(tmp_path: Path) -> None:
    enclave = Enclave(tmp_path / "enclave")
    rng = random.Random(3)
    rows = {n: record(rng, person_id(n)) | {"family_id": person_id(n + 10_000)} for n in range(3_000)}
    for n, row in rows.items():
        enclave.put(n, row)
    enclave.sync()
    before = bytes_of(enclave.folder)
    deleted, replaced = range(0, 3_000, 10), range(5, 3_000, 10)
    searchable = [n for n in deleted if person_id(n).encode() in before]
    families = [n for n in replaced if person_id(n + 10_000).encode() in before]
    assert len(searchable) > 250, "the search finds what is there"
    assert len(families) > 250, "the search finds what is there"
    for n in deleted:
        enclave.put(n, None)
    for n in replaced:
        enclave.put(n, rows[n] | {"family_id": person_id(n + 20_000)})
    enclave.sync(finish=False)
    assert any(person_id(n).encode() in bytes_of(enclave.folder) for n in searchable), "DuckDB leaves them by itself"
    enclave.sync()
    after = bytes_of(enclave.folder)
    assert [n for n in searchable if person_id(n).encode() in after] == []
    assert [n for n in families if person_id(n + 10_000).encode() in after] == []
    assert sum(person_id(n).encode() in after for n in range(1, 3_000, 10)) > 250, "those that live are there"
    assert enclave.held() == enclave.topic()


def test_a_sweep_that_was_cut_short_is_done_by_the_next_sync(tmp_path: Path) -> None:
    enclave = Enclave(tmp_path / "enclave")
    enclave.put(1, record(random.Random(1), person_id(1)))
    enclave.sync()
    enclave.put(1, None)
    assert not enclave.sync(kill_at="copied")
    assert person_id(1).encode() in bytes_of(enclave.folder)
    assert enclave.sync()
    assert person_id(1).encode() not in bytes_of(enclave.folder)


def test_parquet_copies_hold_the_tables_and_lose_what_is_deleted(tmp_path: Path) -> None:
    enclave = Enclave(tmp_path / "enclave")
    for n in range(20):
        enclave.put(n, record(random.Random(n), person_id(n)))
    enclave.sync()
    for gone in (None, 4):
        if gone is not None:
            enclave.put(gone, None)
            enclave.sync()
        with Store(enclave.folder) as store:
            paths = store.export_parquet()
            for path in paths:
                of_table = store.connection.execute(f'SELECT * FROM "{path.stem}" ORDER BY ALL').fetchall()
                of_file = duckdb.connect().execute(f"SELECT * FROM read_parquet('{path}') ORDER BY ALL").fetchall()
                assert of_file == of_table, path.stem
    assert person_id(4).encode() not in bytes_of(enclave.folder)
    with Store(enclave.folder) as store:
        store.remove_parquet()
        assert not store.has_parquet()


def test_a_file_of_another_layout_or_a_damaged_one_is_begun_anew(tmp_path: Path) -> None:
    enclave = Enclave(tmp_path / "enclave")
    enclave.put(1, record(random.Random(1), person_id(1)))
    for spoil, why in (
        (lambda path: duckdb.connect(str(path)).execute("ALTER TABLE persons DROP COLUMN sex").close(), "version"),
        (lambda path: path.write_bytes(b"no database" * 1000), "could not be read"),
        (lambda path: path.write_bytes(b""), "could not be read"),
    ):
        enclave.sync()
        spoil(enclave.folder / FILE)
        with Store(enclave.folder) as store:
            assert store.position.topic_id == ""
            assert why in str(store.unusable)
        enclave.sync()
        assert enclave.held() == enclave.topic()


def test_a_file_that_is_open_elsewhere_is_said_to_be(tmp_path: Path) -> None:
    Store(tmp_path).connection.close()
    path = str(tmp_path / FILE)
    reader = f"import duckdb; c = duckdb.connect({path!r}, read_only=True); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", reader], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(FileInUseError, match="another process"):
            Store(tmp_path)
        process.communicate(b"\n")
    Store(tmp_path).connection.close()


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    with Store(tmp_path / "new") as store:
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
        assert store.path.stat().st_mode & 0o777 == 0o600
