"""Every client of the brokers is configured in one place, so that none goes without its certificate."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[3]
ONE_PLACE = ROOT / "stream_processors" / "runtime" / "kafka.py"


def test_no_module_but_one_names_the_brokers_to_a_client() -> None:
    named = {
        path
        for part in ("infra", "producers", "schemas", "stream_processors")
        for path in (ROOT / part).rglob("*.py")
        if "bootstrap.servers" in path.read_text()
    }
    assert named == {ONE_PLACE}
