"""The certificate of destruction: one document, signed, as JSON and as a page that says the same.

Its parts are those of NIST SP 800-88 Rev. 1, appendix G: who, which media, how, how it was verified, where it goes, who
validates. Signed with Ed25519 (RFC 8032) over the document as JSON with sorted names and no spaces, in UTF-8. To check
one needs the file and the public key, and nothing of the stack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infra.destruction.proof import Proof

JSON_FILE, PAGE_FILE = "certificate.json", "certificate.html"
ALGORITHM = "Ed25519"
_EMBEDDED = re.compile(r'<script type="application/json" id="certificate">(.*?)</script>', re.S)
_TO_FILL_IN = {"name": "", "title": "", "organisation": "", "location": "", "phone": "", "date": "", "signature": ""}


class CertificateError(ValueError):
    """The file is no certificate, was altered, or was signed with another key."""


def tool() -> str:
    """What made it, with its version."""
    try:
        return f"lethe {version('lethe')}"
    except PackageNotFoundError:
        return "lethe"


def document(proof: Proof, media: Sequence[Mapping[str, Any]], method: Mapping[str, Any]) -> dict[str, Any]:
    """What a certificate says, before it is signed.

    Args:
        proof: proved.
        media: what was destroyed and where: `what`, `holds`, `where`.
        method: `reason`, `by`, `steps` (texts in order), `purged` (records by topic), `keys` (names of destroyed keys).

    Raises:
        ValueError: it was not proved: there is nothing to certify.
    """
    if not proof.proved:
        raise ValueError("not proved")
    found = proof.as_json()
    whole = proof.mode == "nothing left"
    return {
        "title": "Certificate of destruction",
        "format": 1,
        "made_at": datetime.fromtimestamp(proof.at_ms / 1000, UTC).isoformat(timespec="seconds"),
        "scope": "everything: no record is left" if whole else "every record that the ledger names; others are held",
        "person_performing": dict(_TO_FILL_IN),
        "media": {
            "items": [dict(m) for m in media],
            "source": "the installation of Lethe at these places",
            "classification": "personal data, also of special categories; pseudonymised downstream",
            "backed_up": "not known here; see what was not checked",
        },
        "sanitization": {
            "type": "Clear",
            "details": dict(method),
            "tool": tool(),
            "after": "the ledger of destruction and this certificate remain" if whole else "records not due are held",
        },
        "ledger": found["ledger"],
        "verification": {
            "method": "full: every topic, segment, row of state and file at these places was read",
            "mode": proof.mode,
            "looked_at": found["checked"],
            "findings": found["findings"],
            "within_bound": found["pending"],
            "bounds_ms": found["bounds_ms"],
            "still_held": found["held"],
            "not_checked": found["unchecked"],
        },
        "destination": "the machine stays in use; blocks that were freed are written over by its file system",
        "validation": dict(_TO_FILL_IN),
    }


def canonical(doc: Mapping[str, Any]) -> bytes:
    """The bytes that are signed."""
    return json.dumps(doc, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sign(doc: Mapping[str, Any], seed: bytes) -> dict[str, Any]:
    """The certificate: the document and its signature, with a private key of 32 bytes."""
    key = Ed25519PrivateKey.from_private_bytes(seed[:32])
    signature = {
        "algorithm": ALGORITHM,
        "public_key": key.public_key().public_bytes_raw().hex(),
        "value": key.sign(canonical(doc)).hex(),
    }
    return {"document": dict(doc), "signature": signature}


def page(certificate: Mapping[str, Any]) -> str:
    """The certificate as one page without anything from elsewhere; it carries the JSON, which is what is signed."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["count"] = lambda n: f"{n:,}"
    environment.filters["seconds"] = lambda ms: f"{ms / 1000:,.0f} s"
    embedded = json.dumps(certificate, ensure_ascii=False).replace("<", "\\u003c")
    template = environment.get_template("certificate.html.j2")
    return template.render(d=certificate["document"], s=certificate["signature"], embedded=embedded)


def write(certificate: Mapping[str, Any], folder: Path) -> list[Path]:
    """Both files, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for name, text in (
        (JSON_FILE, json.dumps(certificate, indent=1, ensure_ascii=False) + "\n"),
        (PAGE_FILE, page(certificate)),
    ):
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)
        out.append(folder / name)
    return out


def check(text: str, public_key: bytes) -> dict[str, Any]:
    """The document of a certificate, JSON or page, that was signed with the key that belongs to this public key.

    Raises:
        CertificateError: it was not, or was altered since; a page that says anything but the document in it was.
    """
    is_page = text.lstrip().lower().startswith("<!doctype")
    found = _EMBEDDED.search(text) if is_page else None
    try:
        certificate = json.loads(found[1] if found else text)
        doc, signature = certificate["document"], certificate["signature"]
        value, algorithm = bytes.fromhex(signature["value"]), signature["algorithm"]
        named = bytes.fromhex(signature["public_key"])
    except (ValueError, KeyError, TypeError):
        raise CertificateError("this is no certificate") from None
    if algorithm != ALGORITHM or named != public_key:
        raise CertificateError("it was signed with another key than the one that was given")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(value, canonical(doc))
    except (InvalidSignature, ValueError):
        raise CertificateError("the signature does not fit: the document was altered") from None
    if is_page and page(certificate) != text:
        raise CertificateError("the page does not say what was signed, or another version made it: check the JSON")
    return dict(doc)
