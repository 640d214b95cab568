"""Key files: made once, never overwritten, and refused unless they are private."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.commands.keys import keys_app
from infra.keys import (
    KEY_BYTES,
    KeyFileError,
    export_enquiry_key,
    init_council,
    init_keys,
    read_enquiry_key,
    read_key,
    research_key,
    token_key,
)
from infra.settings import Settings
from schemas.contracts import UnknownSupplierError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_two_different_keys_are_made_for_their_owner_only(settings: Settings) -> None:
    assert [k.made for k in init_keys(settings)] == [True, True]
    assert mode(settings.keys) == 0o700
    for path in (token_key(settings), research_key(settings)):
        assert mode(path) == 0o600
        assert len(path.read_text().splitlines()) == 1
        assert len(read_key(path)) == KEY_BYTES
    assert read_key(token_key(settings)) != read_key(research_key(settings))


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(settings: Settings, mask: int) -> None:
    before = os.umask(mask)
    try:
        init_keys(settings)
    finally:
        os.umask(before)
    assert (mode(settings.keys), mode(token_key(settings))) == (0o700, 0o600)


def test_what_exists_is_never_written_to(settings: Settings) -> None:
    init_keys(settings)
    kept = read_key(token_key(settings))
    research_key(settings).unlink()
    assert [(k.path.name, k.made) for k in init_keys(settings)] == [("token.key", False), ("research.key", True)]
    assert read_key(token_key(settings)) == kept


def test_a_folder_that_was_open_is_closed(settings: Settings) -> None:
    settings.keys.mkdir(parents=True, mode=0o755)
    settings.keys.chmod(0o755)
    init_keys(settings)
    assert mode(settings.keys) == 0o700


def write(path: Path, text: str | bytes, permissions: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(permissions)
    return path


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"token\.key is missing; `lethe keys init`"):
        read_key(tmp_path / "token.key")


@pytest.mark.parametrize("permissions", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644])
def test_a_key_that_others_can_get_at_says_chmod(tmp_path: Path, permissions: int) -> None:
    path = write(tmp_path / "k", "ab" * 32, permissions)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        read_key(path)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "5ec4e7" * 10, "5ec4e7zz" * 8, "5ec4e7" * 10 + "5ec", b"\xff" * 64, "5ec4e7é" * 8],
)
def test_a_key_that_is_short_or_not_hex_is_refused_without_a_byte_of_it(tmp_path: Path, text: str | bytes) -> None:
    path = write(tmp_path / "k", text)
    with pytest.raises(KeyFileError, match="lethe keys init") as failed:
        read_key(path)
    assert "5ec4e7" not in str(failed.value)
    assert failed.value.__context__ is None, "an error about the text would quote it"


def test_only_a_regular_file_is_a_key(tmp_path: Path) -> None:
    real = write(tmp_path / "real", "ab" * 32)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "folder", "pipe"):
        with pytest.raises(KeyFileError, match="no regular file"):
            read_key(tmp_path / name)
    assert read_key(real) == b"\xab" * 32


def test_the_command_says_what_it_made_and_what_it_kept(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(settings.home))
    first = CliRunner().invoke(keys_app, ["init"])
    again = CliRunner().invoke(keys_app, ["init"])
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert first.output.count("made ") == 5
    assert again.output.count("kept ") == 5
    for path in (token_key(settings), research_key(settings)):
        assert path.read_text().strip() not in first.output + again.output


def test_a_council_gets_a_secret_of_its_own(settings: Settings) -> None:
    one, two = init_council(settings, "council-northam"), init_council(settings, "council-southam")
    assert (mode(one.path), mode(one.path.parent)) == (0o600, 0o700)
    assert read_key(one.path) != read_key(two.path)
    assert not init_council(settings, "council-northam").made


@pytest.mark.parametrize("name", ["dfe", "council-", "council-../token", "northam"])
def test_nobody_else_gets_one(settings: Settings, name: str) -> None:
    with pytest.raises(UnknownSupplierError):
        init_council(settings, name)


def test_the_public_key_follows_the_token_key(settings: Settings) -> None:
    init_keys(settings)
    assert export_enquiry_key(settings).made
    first = read_enquiry_key(settings)
    assert not export_enquiry_key(settings).made
    token_key(settings).unlink()
    init_keys(settings)
    assert export_enquiry_key(settings).made
    assert read_enquiry_key(settings) != first


def test_a_public_key_that_is_missing_says_who_makes_it(settings: Settings) -> None:
    with pytest.raises(KeyFileError, match="lethe keys init"):
        read_enquiry_key(settings)
