"""State: what the overlay shows is what will be written, and RocksDB holds what a dict would."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_processors.runtime.state import (
    Ahead,
    Leftovers,
    MemoryStore,
    Position,
    RocksStore,
    StateFolderError,
    Store,
    Table,
    View,
    Writes,
    discard,
    is_damaged,
)

QUICK = settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
TABLES = ("a", "ab")
KEYS = st.binary(max_size=4) | st.sampled_from([b"", b"\x00", b"\xff", b"k", b"k|", b"k|1", b"k|2", b"\xff\xff"])
VALUES = st.none() | st.binary(max_size=6)
WRITES = st.fixed_dictionaries({t: st.dictionaries(KEYS, VALUES, max_size=6) for t in TABLES})
PREFIXES = st.binary(max_size=2) | st.sampled_from([b"", b"k|", b"\xff"])


def shows(
    store: Store, table: str, keys: list[bytes], prefix: bytes
) -> tuple[list[bytes | None], list[tuple[bytes, bytes]]]:
    return store.get_many(table, keys), list(store.scan(table, prefix))


@pytest.fixture(params=["memory", "rocks"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "state")


@QUICK
@given(st.lists(WRITES, max_size=6), st.lists(KEYS, max_size=6), PREFIXES)
def test_rocksdb_holds_what_a_dict_holds(batches: list[Writes], keys: list[bytes], prefix: bytes) -> None:
    with TemporaryDirectory() as folder:
        memory, rocks = MemoryStore(), RocksStore(Path(folder) / "state")
        for i, writes in enumerate(batches):
            position = Position({"topic": i, "other": 2**40}, i, 1_700_000_000_000 + i)
            memory.apply(writes, position)
            rocks.apply(writes, position)
            for table in TABLES:
                assert shows(rocks, table, keys, prefix) == shows(memory, table, keys, prefix)
            assert rocks.position() == memory.position() == position
        rocks.close()
        again = RocksStore(Path(folder) / "state")
        for table in TABLES:
            assert shows(again, table, keys, prefix) == shows(memory, table, keys, prefix)
        assert again.position() == memory.position()
        again.close()


@QUICK
@given(WRITES, WRITES, st.lists(KEYS, max_size=6), PREFIXES)
def test_a_view_shows_the_store_as_it_will_be(before: Writes, then: Writes, keys: list[bytes], prefix: bytes) -> None:
    store, applied = MemoryStore(), MemoryStore()
    for s in (store, applied):
        s.apply(before, Position({}))
    view = View(store, [Table(t, "true") for t in TABLES])
    for table, rows in then.items():
        for key, value in rows.items():
            view.put(table, key, None)  # what is written later counts, whatever was looked at between
            if prefix:
                view.scan_many(table, [prefix], len(prefix))
            view.put(table, key, value)
    applied.apply(then, Position({}))
    for table in TABLES:
        assert view.get_many(table, keys) == applied.get_many(table, keys)
        assert view.scan(table, prefix) == list(applied.scan(table, prefix))
        if prefix:
            assert view.scan_many(table, [prefix], len(prefix)) == [list(applied.scan(table, prefix))]
    assert view.writes == then
    assert shows(store, "a", keys, b"")[0] != [] or not keys


@QUICK
@given(WRITES, WRITES, WRITES, st.lists(KEYS, max_size=6), PREFIXES, st.booleans())
def test_a_store_ahead_shows_what_it_will_hold_before_and_after(
    before: Writes, then: Writes, later: Writes, keys: list[bytes], prefix: bytes, applied: bool
) -> None:
    store, all_applied = MemoryStore(), MemoryStore()
    for s in (store, all_applied):
        s.apply(before, Position({}))
    ahead = Ahead(store, then)
    view = View(ahead, [Table(t, "true") for t in TABLES])
    if applied:  # the broker has committed it meanwhile
        store.apply(then, Position({}))
    all_applied.apply(then, Position({}))
    for table in TABLES:
        assert shows(ahead, table, keys, prefix) == shows(all_applied, table, keys, prefix)
        assert ahead.scan_many(table, [prefix, b""]) == all_applied.scan_many(table, [prefix, b""])
        for key, value in later[table].items():
            view.put(table, key, value)
    all_applied.apply(later, Position({}))
    for table in TABLES:
        assert view.get_many(table, keys) == all_applied.get_many(table, keys)
        assert view.scan(table, prefix) == list(all_applied.scan(table, prefix))
    assert view.base is then, "as if it were applied"


def test_what_is_not_applied_is_not_in_the_store(opened: Store) -> None:
    view = View(opened, [Table("a", "true")])
    view.put("a", b"k", b"v")
    assert list(opened.scan("a", b"")) == []
    opened.apply(view.writes, Position({"t": 1}))
    assert list(opened.scan("a", b"")) == [(b"k", b"v")]


def test_a_scan_sees_new_keys_and_none_of_another_table(opened: Store) -> None:
    opened.apply({"a": {b"x": b"1"}}, Position({}))
    assert list(opened.scan("a", b"")) == [(b"x", b"1")]
    opened.apply({"a": {b"w": b"0"}, "ab": {b"x": b"2"}}, Position({}))
    assert list(opened.scan("a", b"")) == [(b"w", b"0"), (b"x", b"1")]
    assert opened.get_many("ab", [b"w", b"x"]) == [None, b"2"]


def test_looking_for_what_is_gone_does_not_walk_over_all_else_that_is_gone(tmp_path: Path) -> None:
    """Else the cost of a mass deletion grows with its square: 15 minutes for one batch of 15,000 were seen."""
    store = RocksStore(tmp_path / "state")
    keys = [b"%08d|%d" % (i, part) for i in range(50_000) for part in range(2)]
    store.apply({"a": dict.fromkeys(keys, b"x" * 50)}, Position({}))
    began = time.process_time()
    prefixes = [b"%08d|" % i for i in range(0, 50_000, 10)]
    assert sum(map(len, store.scan_many("a", prefixes))) == 10_000
    live = time.process_time() - began
    store.apply({"a": dict.fromkeys(keys, None)}, Position({}))
    began = time.process_time()
    assert store.scan_many("a", prefixes) == [[]] * 5_000
    gone = time.process_time() - began
    store.close()
    assert gone < 20 * live + 1


def test_a_new_store_has_no_position(opened: Store) -> None:
    assert opened.position() == Position({})


_KILLED = """
import os, signal, sys
from pathlib import Path
from stream_processors.runtime.state import Position, RocksStore
store = RocksStore(Path(sys.argv[1]))
for i in range(1, 10_000):
    store.apply({"a": {str(n).encode(): str(i).encode() for n in range(50)}}, Position({"t": i}, i, i))
    if i == 300:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_writes_and_position_survive_a_kill_together(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "state")], check=False)
    store = RocksStore(tmp_path / "state")
    at = store.position().changelog
    assert at == 300
    assert {v for _, v in store.scan("a", b"")} == {str(at).encode()}


def test_a_folder_has_one_owner_and_can_be_discarded(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "state")
    with pytest.raises(Exception, match=r"(?i)lock"):
        RocksStore(tmp_path / "state")
    store.apply({"a": {b"k": b"v"}}, Position({"t": 1}))
    store.close()
    discard(tmp_path / "state")
    assert RocksStore(tmp_path / "state").position() == Position({})


@pytest.fixture
def damaged(tmp_path: Path) -> RocksStore:
    """A store that was whole when it was opened, and whose files have changed since."""
    folder = tmp_path / "7"
    store = RocksStore(folder)
    store.apply({"a": {b"secret-%d" % i: b"v" * 50 for i in range(2_000)}}, Position({"t": 1}))
    store.sweep(1)
    store.close()
    store = RocksStore(folder)
    for file in folder.glob("*.sst"):
        with file.open("r+b") as f:
            f.write(b"\x00" * (file.stat().st_size // 2))
    return store


@pytest.mark.parametrize(
    "read",
    [
        lambda s: s.get_many("a", [b"secret-1"]),
        lambda s: list(s.scan("a", b"secret-1")),
        lambda s: s.scan_many("a", [b"secret-1"]),
        lambda s: s.sweep(2),
    ],
    ids=["get_many", "scan", "scan_many", "sweep"],
)
def test_a_folder_that_is_damaged_in_use_is_named_and_discarded_by_whoever_opens_it_next(
    damaged: RocksStore, read: Callable[[RocksStore], object]
) -> None:
    with pytest.raises(StateFolderError) as found:
        read(damaged)
    assert str(damaged.path) in str(found.value)
    assert "secret" not in str(found.value)
    assert is_damaged(damaged.path)
    damaged.close()
    discard(damaged.path)
    assert not is_damaged(damaged.path)
    assert not damaged.path.exists()


def test_after_a_sweep_no_file_holds_a_byte_of_what_was_deleted_or_replaced(tmp_path: Path) -> None:
    """Also not the keys at the ends of files, which RocksDB's manifest names."""
    store = RocksStore(tmp_path)
    rows: dict[bytes, bytes | None] = {b"middle%d" % i: b"value" * 20 for i in range(3_000)}
    store.apply(
        {"a": {**rows, b"aa-first-gone": b"x", b"zz-last-gone": b"value-gone", b"k": b"old-gone"}}, Position({})
    )
    store.sweep(1)  # now they are in files
    store.apply({"a": {b"aa-first-gone": None, b"zz-last-gone": None, b"k": b"new"}}, Position({"t": 1}))

    def held() -> set[str]:
        return {p.name for p in tmp_path.iterdir() if b"-gone" in p.read_bytes()}

    assert held()
    store.sweep(2)
    assert held() == set()
    assert list(store.scan("a", b"k")) == [(b"k", b"new")]
    assert len(list(store.scan("a", b"middle"))) == 3_000
    assert store.position() == Position({"t": 1})
    store.close()
    assert RocksStore(tmp_path).position() == Position({"t": 1})


def test_what_a_partition_leaves_behind_is_removed_when_it_has_lain_for_long_enough(tmp_path: Path) -> None:
    for name in ("0", "1", "2", "faust"):
        (tmp_path / name).mkdir()
    leftovers = Leftovers(tmp_path, 10)
    assert leftovers.remove(100, {0, 1, 2}) == []
    assert leftovers.remove(200, {0}) == [], "they have just gone"
    assert leftovers.remove(205, {0, 2}) == [], "one has come back"
    assert leftovers.remove(209, {0}) == []
    assert leftovers.remove(210, {0}) == [1]
    assert leftovers.remove(219, {0}) == [2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "faust"]
