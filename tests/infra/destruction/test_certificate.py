"""A certificate says what was proved, is signed, and shows any change; its page says nothing that was not signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from infra.cli import app
from infra.destruction.certificate import CertificateError, check, document, page, sign, write
from infra.destruction.proof import Pending, Proof

SEED = bytes(range(32))
PUBLIC = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
METHOD = {
    "reason": "end </script> of the programme & <b>more</b>",
    "by": "operator",
    "steps": ["expire: done", "keys: destroyed"],
    "purged": {"identified.dfe.person": 3},
    "keys": ["token.key"],
}


def proof() -> Proof:
    found = Proof("nothing left", 1_700_000_000_000, unchecked=["backups"])
    found.ledger = {
        "lines": 12_345,
        "destroyed": [{"supplier": "dfe", "dataset": "absence", "reason": "hard_stop", "records": 12_345}],
        "heads": [{"chain": "activity-0", "lines": 12_345, "digest": "ab" * 32}],
    }
    found.saw("records on disk", 9)
    found.pending.append(Pending("linkage.link-0", 2, 1, 2))
    return found


def certificate() -> dict[str, Any]:
    media = [{"what": "state", "holds": "what processors remember", "where": "/srv/state"}]
    return sign(document(proof(), media, METHOD), SEED)


def test_what_is_not_proved_is_not_certified() -> None:
    found = proof()
    found.find("left", "state/join/1/0", 3)
    with pytest.raises(ValueError, match="not proved"):
        document(found, [], METHOD)


def test_json_and_page_are_valid_and_say_the_same() -> None:
    made = certificate()
    assert check(json.dumps(made, indent=3), PUBLIC) == check(page(made), PUBLIC) == made["document"]


def test_the_page_shows_counts_heads_places_for_names_and_what_was_not_checked() -> None:
    text = page(certificate())
    for shown in ("12,345", "ab" * 32, "hard stop", "backups", "Who validates", "Signature", "token.key", "/srv/state"):
        assert shown in text, shown
    assert "<b>more</b>" not in text.partition("<script")[0], "escaped"
    assert "http" not in text.replace("http-equiv", ""), "nothing from elsewhere"


def _altered(made: dict[str, Any], change: str) -> str:
    text = json.dumps(made)
    assert change in text
    return text.replace(change, change[::-1] if change != "12345" else "12344")


@pytest.mark.parametrize("change", ["12345", "activity-0", "backups", "operator", "2023-11-14"])
def test_a_change_of_anything_shows(change: str) -> None:
    with pytest.raises(CertificateError, match="altered"):
        check(_altered(certificate(), change), PUBLIC)


def test_a_page_that_shows_something_else_than_what_was_signed_is_refused() -> None:
    text = page(certificate())
    shown = text.replace('<td class="n">12,345</td>', '<td class="n">12,346</td>', 1)
    assert shown != text
    with pytest.raises(CertificateError, match="does not say"):
        check(shown, PUBLIC)


def test_another_key_and_what_is_no_certificate_are_refused() -> None:
    with pytest.raises(CertificateError, match="another key"):
        check(json.dumps(certificate()), bytes(32))
    for text in ("", "{}", "[1]", "<!doctype html><p>valid</p>", '{"document": {}, "signature": {"value": "zz"}}'):
        with pytest.raises(CertificateError, match="no certificate"):
            check(text, PUBLIC)


def test_the_command_checks_without_any_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("LETHE_BOOTSTRAP", "127.0.0.1:1")
    paths = write(certificate(), tmp_path / "out")
    (tmp_path / "certificate.pub").write_text(PUBLIC.hex() + "\n")

    def run(file: Path, key: str) -> tuple[int, str]:
        said = CliRunner().invoke(app, ["destruction", "check-certificate", str(file), "--public-key", key])
        return said.exit_code, said.output

    for path in paths:
        code, text = run(path, str(tmp_path / "certificate.pub"))
        assert code == 0, text
        assert "12,345 lines" in text
    assert run(paths[0], "00" * 32)[0] == 1
    assert run(paths[0], "no hex")[0] == 2
    assert run(tmp_path / "missing.json", PUBLIC.hex())[0] == 2
    paths[0].write_text(_altered(certificate(), "operator"))
    assert run(paths[0], PUBLIC.hex())[0] == 1
