"""The oldest deletion that the cleaner has not come to, by the checkpoint that it keeps."""

from __future__ import annotations

from pathlib import Path

from infra.destruction.waiting import CHECKPOINT, Waiting, deletions
from tests.infra.destruction.test_segments import batch

HEART = b"__heartbeat__"


def broker(data: Path, checkpoint: str = "") -> Path:
    for name, content in (
        ("linkage.link-0", [(0, 10, b"a", b"1"), (1, 20, b"a", None), (2, 30, b"b", None)]),
        ("linkage.link-1", [(0, 25, b"c", None)]),
        ("state.join-0", [(0, 5, HEART, None), (1, 6, b"k", b"v")]),
        ("governance.alert-0", [(0, 1, b"x", None)]),
    ):
        (data / name).mkdir(parents=True)
        (data / name / "00000000000000000000.log").write_bytes(batch(content))
    (data / CHECKPOINT).write_text(checkpoint)
    return data


def test_a_deletion_waits_until_the_checkpoint_is_past_it(tmp_path: Path) -> None:
    none = deletions(broker(tmp_path / "a"))
    assert none.waiting == (Waiting("linkage.link", 2, 20),)
    some = deletions(broker(tmp_path / "b", "0\n2\nlinkage.link 0 2\nlinkage.link 1 1\n"))
    assert some.waiting == (Waiting("linkage.link", 1, 30),)
    done = deletions(broker(tmp_path / "c", "0\n2\nlinkage.link 0 3\nlinkage.link 1 1\n"))
    assert (done.waiting, done.unread) == ((), 0)


def test_what_there_is_no_time_for_and_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    data = broker(tmp_path)
    assert deletions(data, seconds=-1).unread == 3
    (data / "state.join-0" / "00000000000000000000.log").write_bytes(b"\1" * 100)
    assert deletions(data).unread == 1
    assert deletions(tmp_path / "nowhere").waiting == ()
