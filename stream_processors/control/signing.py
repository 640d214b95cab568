"""Whose enquiry it is: HMAC-SHA256 (RFC 2104) under a secret that one council and the control plane share."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Any

ID = re.compile(r"[0-9a-f]{32}")
_NOBODYS = b"\x00" * 32
_LONGEST_SEALED = 8_192
_MAC = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Request:
    """A council's question. enquiry_id: 32 random hex digits, also the nonce; asked_ms: the council's clock."""

    enquiry_id: str
    council: str
    asked_ms: int
    sealed: str
    mac: str

    @property
    def well_formed(self) -> bool:
        """Whether it is worth looking at."""
        return bool(
            ID.fullmatch(self.enquiry_id)
            and _MAC.fullmatch(self.mac)
            and 0 < len(self.sealed) <= _LONGEST_SEALED
            and len(self.council) <= 64
        )

    @property
    def row(self) -> dict[str, Any]:
        """As a row of `governance.enquiry`, whose key is the id."""
        return {"council": self.council, "asked_ms": self.asked_ms, "sealed": self.sealed, "mac": self.mac}


def signed(enquiry_id: str, council: str, asked_ms: int, sealed: str, secret: bytes) -> Request:
    """A request as the council's side makes it."""
    return Request(enquiry_id, council, asked_ms, sealed, _mac(enquiry_id, council, asked_ms, sealed, secret))


def authentic(request: Request, secret: bytes | None) -> bool:
    """Whether whoever signed the request knew the council's secret; False if the council has none.

    Takes as long either way, and compares in constant time.
    """
    wanted = _mac(request.enquiry_id, request.council, request.asked_ms, request.sealed, secret or _NOBODYS)
    return hmac.compare_digest(wanted.encode(), request.mac.encode()) and secret is not None


def _mac(enquiry_id: str, council: str, asked_ms: int, sealed: str, secret: bytes) -> str:
    # None of the parts can hold a line end: id, number and base64 have none, and a council's name is checked.
    message = "\n".join(["lethe-enquiry-1", council, enquiry_id, str(asked_ms), sealed]).encode()
    return hmac.digest(secret, message, "sha256").hex()
