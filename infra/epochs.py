"""Which key epochs are in force: `epochs.json` beside the key files, written by `lethe keys rotate` alone.

Epoch 1 is made under `token.key`, epoch n under a key of its own, `token-<n>.key`, so that a key that others may have
seen is of no use for what comes after it. References stay under `token.key` for ever: research ids hang on them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from infra.keys import KeyFileError, make_key, read_key, token_key
from infra.settings import Settings
from stream_processors.epochs import Epochs, label
from stream_processors.matching.tokens import TokenKeys

MANIFEST = "epochs.json"


class Stage(StrEnum):
    """How far a rotation is; each is complete before the next begins, and none is gone back from."""

    steady = "steady"
    adding = "adding"
    leading = "leading"
    retiring = "retiring"


WHAT: Mapping[Stage, str] = {
    Stage.steady: "one epoch",
    Stage.adding: "subjects are said under the new epoch besides; the old one decides",
    Stage.leading: "the new epoch decides; subjects are still said under both",
    Stage.retiring: "subjects are said under the new epoch alone; the old one's tokens are taken back",
}


@dataclass(frozen=True)
class Manifest:
    """leads: the epoch that decides. also: the one beside it. checks: of each epoch whose key is held, what tells that
    its file holds the right key and nothing else about it."""

    leads: int
    also: int | None
    checks: Mapping[int, str]

    @property
    def stage(self) -> Stage:
        """What follows from the numbers."""
        if self.also is None:
            return Stage.retiring if len(self.checks) > 1 else Stage.steady
        return Stage.adding if self.also > self.leads else Stage.leading

    @property
    def label(self) -> str:
        """As in the version of what pseudonymise says."""
        return label(self.leads, self.also)

    @property
    def leaving(self) -> int | None:
        """The epoch that will be gone in the end."""
        return min(self.checks) if len(self.checks) > 1 else None

    def after(self, new: str | None = None) -> Manifest:
        """The manifest of the next stage; `new`: the check of the new key, where one begins.

        Raises:
            ValueError: a rotation begins and there is no new key.
        """
        newest, oldest = max(self.checks), min(self.checks)
        match self.stage:
            case Stage.steady:
                if new is None:
                    raise ValueError("a rotation needs a new key")
                return replace(self, also=newest + 1, checks={**self.checks, newest + 1: new})
            case Stage.adding:
                return replace(self, leads=newest, also=oldest)
            case Stage.leading:
                return replace(self, also=None)
            case Stage.retiring:
                return replace(self, checks={newest: self.checks[newest]})


def manifest_file(settings: Settings) -> Path:
    """Where the manifest lies. No secret is in it."""
    return settings.keys / MANIFEST


def epoch_key(settings: Settings, epoch: int) -> Path:
    """File of an epoch's key: for `pseudonymise` alone."""
    return token_key(settings) if epoch == 1 else settings.keys / f"token-{epoch}.key"


def load(settings: Settings) -> Manifest:
    """The manifest; without one, keys were never rotated.

    Raises:
        KeyFileError: it cannot be read, or the key of the first epoch is missing.
    """
    path = manifest_file(settings)
    try:
        told = json.loads(path.read_text())
        checks = {int(epoch): str(check) for epoch, check in told["checks"].items()}
        found = Manifest(int(told["leads"]), None if told["also"] is None else int(told["also"]), checks)
        if {found.leads, found.also or found.leads} <= set(checks) and len(checks) <= 2:
            return found
    except FileNotFoundError:
        return Manifest(1, None, {1: check_of(TokenKeys(read_key(token_key(settings)), 1))})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise KeyFileError(f"{path} is no manifest of key epochs; restore it: `lethe keys rotate` wrote it")


def save(settings: Settings, manifest: Manifest) -> None:
    """Put a manifest in the place of the one before, all of it or nothing."""
    path = manifest_file(settings)
    told = {"leads": manifest.leads, "also": manifest.also, "checks": manifest.checks}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=MANIFEST)  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(told, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def epochs(settings: Settings) -> Epochs:
    """Keys of the epochs in force.

    Raises:
        KeyFileError: a key file is missing or may not be used, or holds another key than the manifest says.
    """
    manifest = load(settings)
    masters = {epoch: _master(settings, epoch, check) for epoch, check in manifest.checks.items()}
    keys = {epoch: TokenKeys(master, epoch) for epoch, master in masters.items()}
    also = keys[manifest.also] if manifest.also is not None else None
    return Epochs(keys[manifest.leads], also, tuple(masters[e] for e in sorted(masters, reverse=True)))


def new_key(settings: Settings, epoch: int) -> str:
    """Make the key of an epoch, unless a rotation that was cut short has made it; returns its check."""
    path = epoch_key(settings, epoch)
    make_key(path)
    return check_of(TokenKeys(read_key(path), epoch))


def destroy_keys(settings: Settings, manifest: Manifest) -> None:
    """Remove key files of epochs before those of the manifest, also if an earlier run was cut short before it did. The
    first epoch's stays: references are made under it."""
    for path in settings.keys.glob("token-*.key"):
        number = path.stem.removeprefix("token-")
        if number.isdigit() and int(number) < min(manifest.checks):
            path.unlink()


def check_of(keys: TokenKeys) -> str:
    """64 bits derived from a key, for telling it from others; nothing follows from them about the key."""
    return keys.derive("check")[:16]


def _master(settings: Settings, epoch: int, check: str) -> bytes:
    path = epoch_key(settings, epoch)
    master = read_key(path)
    if check_of(TokenKeys(master, epoch)) != check:
        raise KeyFileError(f"{path} is not the key that epoch {epoch} began with; restore the right one")
    return master
