"""The manifest of key epochs: what a rotation writes, stage by stage, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.epochs import Manifest, Stage, destroy_keys, epoch_key, epochs, load, manifest_file, new_key, save
from infra.keys import KeyFileError, export_enquiry_key, init_keys, read_enquiry_key, read_key, token_key
from infra.settings import Settings
from stream_processors.enquiry.seal import public_key

BEGUN = Manifest(1, None, {1: "a" * 16})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(home=tmp_path / "home")
    init_keys(found)
    return found


def begun(settings: Settings) -> Manifest:
    """A rotation that has reached its first stage."""
    manifest = load(settings).after(new_key(settings, 2))
    save(settings, manifest)
    return manifest


def test_a_rotation_goes_through_three_stages_and_never_back() -> None:
    found = [BEGUN]
    for new in ("b" * 16, None, None, None, "c" * 16):
        found.append(found[-1].after(new))
    assert [(m.stage, m.label, set(m.checks), m.leaving) for m in found] == [
        (Stage.steady, "1", {1}, None),
        (Stage.adding, "1+2", {1, 2}, 1),
        (Stage.leading, "2+1", {1, 2}, 1),
        (Stage.retiring, "2", {1, 2}, 1),
        (Stage.steady, "2", {2}, None),
        (Stage.adding, "2+3", {2, 3}, 2),
    ]
    with pytest.raises(ValueError, match="new key"):
        BEGUN.after()


def test_without_a_manifest_tokens_are_made_under_the_token_key(settings: Settings) -> None:
    found = epochs(settings)
    assert (found.label, found.opens) == ("1", (read_key(token_key(settings)),))


def test_each_epoch_has_a_key_of_its_own(settings: Settings) -> None:
    first = epochs(settings).leads
    begun(settings)
    found = epochs(settings)
    assert found.label == "1+2"
    assert found.also is not None
    assert found.leads.derive("x") == first.derive("x") != found.also.derive("x")
    assert (epoch_key(settings, 2).stat().st_mode & 0o777) == 0o600
    assert read_key(epoch_key(settings, 2)) != read_key(token_key(settings))
    assert read_key(epoch_key(settings, 2)).hex() not in manifest_file(settings).read_text()


def test_a_rotation_that_was_cut_short_before_its_manifest_keeps_the_key_that_it_made(settings: Settings) -> None:
    assert new_key(settings, 2) == new_key(settings, 2)


def test_enquiries_are_sealed_to_the_epoch_that_leads(settings: Settings) -> None:
    adding = begun(settings)
    export_enquiry_key(settings)
    assert read_enquiry_key(settings) == public_key(read_key(token_key(settings)))
    save(settings, adding.after())
    assert export_enquiry_key(settings).made
    assert read_enquiry_key(settings) == public_key(read_key(epoch_key(settings, 2)))
    assert epochs(settings).opens == (read_key(epoch_key(settings, 2)), read_key(token_key(settings)))


def test_the_key_of_an_epoch_that_is_gone_is_removed_and_the_first_stays(settings: Settings) -> None:
    manifest = begun(settings).after().after().after()
    destroy_keys(settings, manifest)
    assert token_key(settings).exists()
    assert epoch_key(settings, 2).exists()
    new_key(settings, 3)
    destroy_keys(settings, replace(manifest, leads=3, checks={3: "c"}))
    assert sorted(p.name for p in settings.keys.glob("token*")) == ["token-3.key", "token.key"]


@pytest.mark.parametrize("wrong", ["missing", "another"])
def test_a_key_that_is_not_the_one_that_the_epoch_began_with_is_refused(settings: Settings, wrong: str) -> None:
    begun(settings)
    epoch_key(settings, 2).unlink()
    if wrong == "another":
        new_key(settings, 2)
    with pytest.raises(KeyFileError, match=r"token-2\.key"):
        epochs(settings)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"leads": 1}',
        '{"leads": 1, "also": null, "checks": {}}',
        '{"leads": 1, "also": 2, "checks": {"1": "a"}}',
        '{"leads": "x", "also": null, "checks": {"1": "a"}}',
        '{"leads": 1, "also": null, "checks": {"1": "a", "2": "b", "3": "c"}}',
    ],
)
def test_a_manifest_that_says_nothing_possible_is_refused(settings: Settings, text: str) -> None:
    manifest_file(settings).write_text(text)
    with pytest.raises(KeyFileError, match="manifest"):
        load(settings)


def test_a_manifest_comes_back_as_it_was_saved(settings: Settings) -> None:
    save(settings, BEGUN.after("b" * 16))
    assert load(settings) == BEGUN.after("b" * 16)
    assert [p.name for p in settings.keys.iterdir() if "epochs" in p.name] == ["epochs.json"]


def test_rotate_does_nothing_unless_it_is_told_to(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(settings.home))
    before = sorted(p.name for p in settings.keys.iterdir())
    done = CliRunner().invoke(app, ["keys", "rotate"])
    assert done.exit_code == 0
    assert "Nothing was done" in done.output
    assert all(stage in done.output for stage in ("adding", "leading", "retiring"))
    told = json.loads(CliRunner().invoke(app, ["keys", "rotate", "--json"]).output)
    assert (told["stage"], told["leads"], told["new_epoch"]) == ("steady", 1, 2)
    assert sorted(p.name for p in settings.keys.iterdir()) == before


def test_keys_that_are_not_there_are_made_by_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_HOME", str(tmp_path / "nowhere"))
    for words in (["keys", "rotate"], ["keys", "rotate", "--execute"], ["keys", "status"]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 1, words
        assert "lethe keys init" in done.output
