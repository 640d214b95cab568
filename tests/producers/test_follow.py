from __future__ import annotations

from pathlib import Path

from producers.follow import Folder, Ledger


def test_a_file_is_taken_when_it_has_stopped_growing(tmp_path: Path) -> None:
    folder = Folder(tmp_path, settled_seconds=2)
    file = tmp_path / "a.csv"
    file.write_text("x")
    assert folder.arrived(0) == []
    file.write_text("xy")
    assert folder.arrived(1) == []
    assert folder.arrived(2.5) == []
    assert folder.arrived(3) == [file]
    assert folder.arrived(9) == []


def test_a_file_that_changes_later_is_taken_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path, settled_seconds=0)
    file = tmp_path / "a.jsonl"
    file.write_text("x")
    assert folder.arrived(0) == [file]
    file.write_text("xyz")
    assert folder.arrived(1) == [file]
    folder.again(file)
    assert folder.arrived(2) == [file]


def test_unfinished_and_other_files_are_left(tmp_path: Path) -> None:
    for name in (".a.csv", "a.csv~", "a.csv.part", "a.tmp", "notes.txt", "a.csv.filepart"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.csv").mkdir()
    assert Folder(tmp_path, settled_seconds=0).arrived(0) == []


def test_the_ledger_survives_a_restart_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "taken.jsonl"
    ledger = Ledger(path)
    ledger.add("d1", {"file": "a.csv"})
    with path.open("a") as file:
        file.write('{"digest": "d2", "fi')
    again = Ledger(path)
    assert "d1" in again
    assert "d2" not in again
    again.add("d3", {})
    assert all(d in Ledger(path) for d in ("d1", "d3"))
