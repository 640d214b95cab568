"""Key files: made once, readable by their owner only, one for each processor that needs one.

`pseudonymise` alone reads `token.key`, `publish` alone `research.key`: no process reads both. The control plane reads
the councils' secrets, and everybody may read `enquiry.pub`. Losing a key means that nothing can
be followed or linked any more, which is also how everything is destroyed at the end.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from infra.broker.ports import LOOPBACK
from infra.settings import Settings
from schemas.contracts import UnknownSupplierError, kind_of

TOKEN_KEY = "token.key"  # noqa: S105 - a file's name
RESEARCH_KEY = "research.key"
ENQUIRY_PUBLIC_KEY = "enquiry.pub"
CERTIFICATE_KEY, CERTIFICATE_PUBLIC_KEY = "certificate.key", "certificate.pub"
KEY_BYTES = 32
CA_CERTIFICATE = "ca.crt"


class KeyFileError(RuntimeError):
    """A key file that may not be used. The message says what to do, and never holds a byte of the key."""


@dataclass(frozen=True)
class KeyFile:
    """A key file after `init_keys`; `made` is False where one was there already."""

    path: Path
    made: bool


def token_key(settings: Settings) -> Path:
    """File of the key that tokens and references are made under: for `pseudonymise` alone."""
    return settings.keys / TOKEN_KEY


def research_key(settings: Settings) -> Path:
    """File of the key that pseudonyms are made under: for `publish` alone."""
    return settings.keys / RESEARCH_KEY


def init_keys(settings: Settings) -> list[KeyFile]:
    """Make the key files that are missing: 32 random bytes each, as one line of hex.

    Files have mode 0600, their folder 0700. Never writes to a file that exists.
    """
    settings.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.keys.chmod(0o700)
    return [KeyFile(path, make_key(path)) for path in (token_key(settings), research_key(settings))]


def council_secret(settings: Settings, council: str) -> Path:
    """File of the secret that a council signs its enquiries with: for that council and the control plane."""
    return settings.keys / "councils" / f"{council}.secret"


def enquiry_public_key(settings: Settings) -> Path:
    """File of the public key that enquiries are sealed to: for every council."""
    return settings.keys / ENQUIRY_PUBLIC_KEY


def init_council(settings: Settings, council: str) -> KeyFile:
    """Make the council's secret if it is missing, as `init_keys` makes key files.

    Raises:
        UnknownSupplierError: no council's name.
    """
    if kind_of(council) != "council":
        raise UnknownSupplierError(f"{council} is no council; councils are named council-<code>")
    path = council_secret(settings, council)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    return KeyFile(path, make_key(path))


def init_certificate_key(settings: Settings) -> list[KeyFile]:
    """Make the key that certificates of destruction are signed with, if it is missing, and its public half beside it.

    It opens and links nothing, and stays when all other keys are destroyed.

    Raises:
        KeyFileError: the key is there and may not be used.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path, public = settings.keys / CERTIFICATE_KEY, settings.keys / CERTIFICATE_PUBLIC_KEY
    settings.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = make_key(path)
    seed = read_key(path)[:KEY_BYTES]
    text = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex() + "\n"
    changed = not public.exists() or public.read_text() != text
    if changed:
        public.write_text(text)
        public.chmod(0o644)
    return [KeyFile(path, made), KeyFile(public, changed)]


def export_enquiry_key(settings: Settings) -> KeyFile:
    """Write the public key that belongs to the token key of the leading epoch, as one line of hex, readable by all.

    Raises:
        KeyFileError: the key is missing or may not be used.
    """
    from infra.epochs import epoch_key, load
    from stream_processors.enquiry.seal import public_key

    path = enquiry_public_key(settings)
    text = public_key(read_key(epoch_key(settings, load(settings).leads))).hex() + "\n"
    if path.exists() and path.read_text() == text:
        return KeyFile(path, False)
    path.write_text(text)
    path.chmod(0o644)
    return KeyFile(path, True)


def read_enquiry_key(settings: Settings) -> bytes:
    """The public key that enquiries are sealed to.

    Raises:
        KeyFileError: it is missing, or is no key.
    """
    path = enquiry_public_key(settings)
    try:
        key = _parsed(path.read_bytes())
    except OSError:
        key = None
    if key is None or len(key) != KEY_BYTES:
        raise KeyFileError(f"{path} is missing or no key; `lethe keys init` makes it where the token key is")
    return key


def credential(settings: Settings, principal: str) -> Path:
    """File of a principal's private key and certificate (PEM): for the processes that act for it."""
    return settings.access / f"{principal}.pem"


def credential_of(settings: Settings) -> Path | None:
    """The file that a client with these settings authenticates by; None where the brokers ask for none.

    Raises:
        KeyFileError: it or the authority's certificate is missing, or others may read it; or the settings would send
            plaintext to another machine.
    """
    if settings.security == "plaintext":
        if any(address.strip().rpartition(":")[0] not in LOOPBACK for address in settings.bootstrap.split(",")):
            raise KeyFileError(
                f"LETHE_SECURITY=plaintext is for loopback only, and LETHE_BOOTSTRAP={settings.bootstrap}"
            )
        return None
    path = credential(settings, settings.principal)
    if not (settings.access / CA_CERTIFICATE).is_file():
        raise KeyFileError(
            f"{settings.access / CA_CERTIFICATE} is missing; `lethe keys init` makes it where the broker runs, "
            "anywhere else it comes with the credential"
        )
    os.close(_opened(path, f"the credential of {settings.principal}; whoever runs the broker hands it out"))
    return path


def hand_out(source: Path, folder: Path) -> Path:
    """Copy a file to a folder (0700 if it is made), readable by its owner only; where it is then.

    Raises:
        OSError: it cannot be written there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / source.name
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(source.read_bytes())
    return path


def make_key(path: Path) -> bool:
    """Write a new key of 32 random bytes as one line of hex, mode 0600; False, and nothing, if the file is there."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)  # ours, and of no use
        raise
    return True


def read_key(path: Path) -> bytes:
    """The key in a file.

    Raises:
        KeyFileError: it is missing, no regular file (a link is none), open to others than its owner, or does
            not hold at least 32 bytes in hex.
    """
    handle = _opened(path, "`lethe keys init` makes it")
    try:
        key = _parsed(os.read(handle, 4096))
    finally:
        os.close(handle)
    if key is None:
        raise KeyFileError(_unfit(path, "does not hold hex"))
    if len(key) < KEY_BYTES:
        raise KeyFileError(_unfit(path, f"is shorter than {KEY_BYTES} bytes"))
    return key


def _opened(path: Path, if_missing: str) -> int:
    """A handle of a regular file that nobody but its owner may read.

    Raises:
        KeyFileError: it is something else, or missing.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyFileError(f"{path} is missing; {if_missing}") from None
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise KeyFileError(_not_regular(path)) from None
        raise KeyFileError(f"{path} cannot be read ({os.strerror(e.errno or 0)})") from None
    found = os.fstat(handle)
    fault = ""
    if not stat.S_ISREG(found.st_mode):
        fault = _not_regular(path)
    elif found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        fault = f"{path} is open to others than its owner; `chmod 600 {path}`"
    if fault:
        os.close(handle)
        raise KeyFileError(fault)
    return handle


def _parsed(text: bytes) -> bytes | None:
    """The bytes that hex stands for, or None; apart, so that no error that quotes the text is ever chained."""
    try:
        return bytes.fromhex(text.strip().decode("ascii"))
    except ValueError:
        return None


def _not_regular(path: Path) -> str:
    return f"{path} is no regular file; put the key itself there, or move it away: `lethe keys init` makes one"


def _unfit(path: Path, fault: str) -> str:
    return f"{path} {fault}; restore it, or, if it was never used, move it away: `lethe keys init` makes one"
