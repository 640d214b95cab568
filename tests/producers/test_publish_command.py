from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from infra.commands import publish as command
from infra.errors import EXIT_ERROR, EXIT_REJECTED
from producers import publisher as publisher_module
from producers.follow import Folder
from producers.publisher import Publisher
from schemas.registry import StaticRegistry
from schemas.rows import from_value
from stream_processors.runtime.account import BATCH_HEADER, record_hashes
from tests.producers.conftest import Cluster
from tests.producers.support import MARK

HEADER = b"subject_id,surname,date_of_birth\n"
TOPIC = "identified.dwp.person"


@pytest.fixture
def lethe(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command against a mock broker: exit code, standard output, standard error."""
    cluster.create(TOPIC)
    cluster.create("governance.batch")
    monkeypatch.setenv("LETHE_BOOTSTRAP", cluster.bootstrap)
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(publisher_module, "Registry", lambda *_: StaticRegistry())
    app = typer.Typer()
    app.command()(command.publish)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.csv"
    path.write_bytes(HEADER + b"a,Smith,2001-01-01\nb,Jones,1900-01-01\n")
    return path


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    path = tmp_path / "dirty.csv"
    path.write_bytes(HEADER + f"a,{MARK},2001-01-01\n,{MARK},\n".encode())
    return path


def test_totals_are_printed_and_the_rows_are_there(lethe: Any, good: Path, cluster: Cluster) -> None:
    code, out, err = lethe("dwp", "person", good)
    assert code == 0
    assert "read 2 = published 2 + rejected 0" in out
    assert "warning: date_of_birth: is a default date: 1" in out
    assert err == ""
    assert {key for _, key, _ in cluster.messages(TOPIC)} == {b"a", b"b"}


def test_publishing_twice_gives_the_same_messages(lethe: Any, good: Path, cluster: Cluster) -> None:
    lethe("dwp", "person", good)
    once = set(cluster.messages(TOPIC))
    lethe("dwp", "person", good)
    assert set(cluster.messages(TOPIC)) == once


def test_json_totals_and_strict(lethe: Any, dirty: Path, good: Path, tmp_path: Path) -> None:
    assert lethe("dwp", "person", dirty)[0] == 0
    code, out, _ = lethe("dwp", "person", dirty, good, "--strict", "--json", "--rejects", tmp_path / "r")
    assert code == EXIT_REJECTED == 4
    first, second = (json.loads(line) for line in out.splitlines())
    assert (first["read"], first["published"], first["rejected"]) == (2, 1, 1)
    assert (second["file"], second["warnings"]["date_of_birth"]) == ("good.csv", {"is a default date": 1})
    assert second["warnings"]["postcode"] == {"has no column": 1}
    assert first["rejects"].startswith(str(tmp_path / "r/dwp/person/dirty.csv."))
    assert MARK not in Path(first["rejects"]).read_text() + out


def test_unusable_files_do_not_keep_the_others_back(lethe: Any, good: Path, tmp_path: Path, cluster: Cluster) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_bytes(b"subject_id,shoe_size\na,7\n")
    code, out, err = lethe("dwp", "person", tmp_path / "none.csv", wrong, tmp_path, good)
    assert code == EXIT_ERROR == 1
    assert "none.csv: there is no such file" in err
    assert "wrong.csv: unknown column: shoe_size" in err
    assert "is a directory" in err
    assert "read 2" in out
    assert len(cluster.messages(TOPIC)) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nobody", "person", "x.csv"], 1, "known are council-<code>, dfe, moj, dwp, health"),
        (["dwp", "shoes", "x.csv"], 1, "it has person, benefit, employment"),
        (["dwp", "person"], 2, "name a file"),
        (["dwp", "person", "--follow", "/nowhere"], 1, "no such folder"),
        (["dwp"], 2, "DATASET"),
    ],
)
def test_what_is_wrong_on_the_command_line(lethe: Any, arguments: list[str], code: int, says: str) -> None:
    found, _, err = lethe(*arguments)
    assert found == code
    assert says in err


def test_no_topic_and_no_broker(lethe: Any, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = lethe("council-new", "person", good)
    assert (code, "`lethe supplier add council-new`" in err) == (1, True)
    monkeypatch.setenv("LETHE_BOOTSTRAP", "127.0.0.1:1")
    code, _, err = lethe("dwp", "person", good, "--wait", "1")
    assert (code, "waiting for Kafka" in err, "`lethe up`" in err) == (3, True, True)


def test_remove_deletes_only_what_is_wholly_published(lethe: Any, good: Path, dirty: Path) -> None:
    assert lethe("dwp", "person", good, dirty, "--remove")[0] == 0
    assert (good.exists(), dirty.exists()) == (False, True)


def test_following_takes_each_content_once_across_restarts(
    lethe: Any, good: Path, dirty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "one.csv").write_bytes(good.read_bytes())
    (folder / "copy.csv").write_bytes(good.read_bytes())
    (folder / "bad.csv").write_bytes(b"shoe\n")
    (folder / "half.csv.part").write_bytes(HEADER)

    def two_rounds() -> None:
        rounds = iter(range(3))

        def sleep(_: float) -> None:
            if next(rounds) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr("infra.commands.publish.time.sleep", sleep)

    monkeypatch.setattr(command, "Folder", lambda path: Folder(path, settled_seconds=0))
    two_rounds()
    code, out, err = lethe("dwp", "person", "--follow", folder, "--json")
    assert code == 0
    assert [json.loads(line)["file"] for line in out.splitlines()] == ["copy.csv"]
    assert "bad.csv: no column is known" in err
    (folder / "two.csv").write_bytes(dirty.read_bytes())
    two_rounds()
    _, out, err = lethe("dwp", "person", "--follow", folder, "--json")
    assert [json.loads(line)["file"] for line in out.splitlines()] == ["two.csv"]
    assert "bad.csv" not in err
    assert (folder / "one.csv").exists()


def test_help_has_examples_and_exit_codes(lethe: Any) -> None:
    _, out, _ = lethe("--help")
    assert "lethe publish council-northam person families.csv" in out
    assert "Exit codes" in out


def batches(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """What is announced, as the compacted topic has it."""
    registry, found = StaticRegistry(), dict[str, dict[str, Any]]()
    for _, k, v in cluster.messages("governance.batch"):
        if v is None:
            found.pop(k.decode(), None)
        else:
            found[k.decode()] = from_value("governance.batch", v, registry)
    return found


def carried(cluster: Cluster, topic: str) -> dict[str, list[tuple[int, bytes, bytes | None]]]:
    """Partition, key and value of a topic's records, by the publication that they carry."""
    found: dict[str, list[tuple[int, bytes, bytes | None]]] = {}
    for m in cluster.records(topic):
        found.setdefault(dict(m.headers() or ())[BATCH_HEADER].hex(), []).append((m.partition(), m.key(), m.value()))
    return found


def test_a_file_announces_itself_with_its_control_totals_and_where_its_records_lie(
    lethe: Any, good: Path, dirty: Path, cluster: Cluster
) -> None:
    assert lethe("dwp", "person", good, dirty)[0] == 0
    by_read = {(b["published"], b["rejected"]): (k, b) for k, b in batches(cluster).items()}
    assert set(by_read) == {(2, 0), (1, 1)}
    key, first = by_read[2, 0]
    second = by_read[1, 1][1]
    assert key == f"dwp|person|{first['batch_id']}"
    assert first["read"] == 2
    assert first["warnings"] == 5  # a default date, and four columns that are not there
    assert sum(first["ends"]) - sum(first["starts"]) == 2
    assert second["starts"] == first["ends"]


def test_the_same_file_again_is_the_same_batch(lethe: Any, good: Path, cluster: Cluster) -> None:
    lethe("dwp", "person", good)
    lethe("dwp", "person", good)
    assert len(batches(cluster)) == 1


def test_records_that_come_from_no_file_are_announced_at_the_end(cluster: Cluster) -> None:
    cluster.create(TOPIC)
    cluster.create("governance.batch")
    with Publisher("dwp", "person", settings=cluster.settings, schemas=StaticRegistry()) as publisher:
        publisher.publish({"subject_id": "a"})
        publisher.tombstone("b")
    (batch,) = batches(cluster).values()
    assert (batch["read"], batch["published"], batch["rejected"]) == (2, 2, 0)


def test_two_publishers_of_a_dataset_at_once_are_told_apart(cluster: Cluster) -> None:
    cluster.create(TOPIC)
    cluster.create("governance.batch")
    made = [Publisher("dwp", "person", settings=cluster.settings, schemas=StaticRegistry()) for _ in range(2)]
    with made[0] as one, made[1] as other:
        for i in range(9):
            (one if i % 3 else other).publish({"subject_id": f"s{i}"})
            one.flush()
            other.flush()
        assert {b["open"] for b in batches(cluster).values()} == {True}
    said, found = batches(cluster), carried(cluster, TOPIC)
    assert sorted(b["published"] for b in said.values()) == [3, 6]
    for batch in said.values():
        mine = found[batch["publication"]]
        assert not batch["open"]
        assert batch["counts"] == [sum(p == at for p, _, _ in mine) for at in range(len(batch["counts"]))]
        for at, digest in enumerate(batch["digests"]):
            here = [(k, v) for p, k, v in mine if p == at]
            total = record_hashes([k for k, _ in here], [v for _, v in here]).sum()
            assert digest == f"{int(total):016x}"


def test_a_publisher_that_ends_before_its_time_leaves_its_batch_open(cluster: Cluster) -> None:
    cluster.create(TOPIC)
    cluster.create("governance.batch")

    def interrupted() -> None:
        with Publisher("dwp", "person", settings=cluster.settings, schemas=StaticRegistry()) as publisher:
            publisher.publish({"subject_id": "a"})
            publisher.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (batch,) = batches(cluster).values()
    assert (batch["open"], batch["published"]) == (True, 0)
