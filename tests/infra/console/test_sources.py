"""What the console reads of an installation's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import held
from infra.console.sources import ClusterSources
from infra.destruction import certificate
from infra.destruction.journal import Journal
from infra.settings import Settings


def test_the_ledger_page_shows_the_certificate_that_destroy_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    monkeypatch.setattr(held, "ledger_lines", lambda _: [])
    monkeypatch.setattr(held, "ledger_heads", lambda _: {})
    journal = Journal.open(settings)
    journal.keep()
    (journal.path.parent / certificate.JSON_FILE).write_text("{}")
    assert ClusterSources(settings).ledger().certificates == [certificate.JSON_FILE]
