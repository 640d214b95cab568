"""An order to erase: sealed by the operator's command to pseudonymise, which alone can read whom it is about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from stream_processors.enquiry.person import PersonAsked, PersonError
from stream_processors.enquiry.seal import SealError, seal_bytes, unseal_bytes

TOPIC = "governance.erasure"
Action = Literal["preview", "erase", "lift"]
Reason = Literal["objection", "court_order", "error", "withdrawal"]
REASONS: tuple[Reason, ...] = get_args(Reason)
_PAD_TO = 256
_LONGEST_ID = 200


@dataclass(frozen=True)
class Target:
    """Whom an order is about: a subject of one supplier, or a person of all."""

    supplier: str | None = None
    subject: str | None = field(default=None, repr=False)
    person: PersonAsked | None = field(default=None, repr=False)


def order_row(
    order_id: str, action: Action, target: Target, reason: Reason, by: str, ordered_ms: int, public: bytes
) -> dict[str, Any]:
    """A row of `governance.erasure`, whose key is the order's id."""
    if target.person is not None:
        details = target.person.to_bytes()
    else:
        text = json.dumps({"subject": target.subject}, ensure_ascii=False).encode()
        details = text.ljust(-(-len(text) // _PAD_TO) * _PAD_TO)
    return {
        "action": action,
        "what": "person" if target.person is not None else "subject",
        "supplier": target.supplier,
        "reason": reason,
        "by": by,
        "ordered_ms": ordered_ms,
        "sealed": seal_bytes(details, _info(order_id, target.supplier), public),
    }


def opened(order_id: str, row: Mapping[str, Any], private: Sequence[X25519PrivateKey]) -> Target:
    """Whom a row of `governance.erasure` is about.

    Args:
        order_id: its key.
        row: the row.
        private: the keys that it may have been sealed to.

    Raises:
        SealError: no key opens it, or it holds nothing usable.
    """
    fault: SealError | None = None
    for key in private:
        try:
            details = unseal_bytes(row["sealed"], _info(order_id, row["supplier"]), key)
        except SealError as e:
            fault = e
            continue
        return _target(row, details)
    raise fault or SealError("there is no key")


def _target(row: Mapping[str, Any], details: bytes) -> Target:
    if row["what"] == "person":
        try:
            return Target(person=PersonAsked.from_bytes(details))
        except PersonError:
            raise SealError("holds no usable details") from None
    try:
        subject = json.loads(details)["subject"]
    except (ValueError, LookupError, TypeError):
        subject = None
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_ID or row["supplier"] is None:
        raise SealError("holds no subject")
    return Target(row["supplier"], subject)


def _info(order_id: str, supplier: str | None) -> bytes:
    return f"lethe/1/erasure/{supplier or ''}/{order_id}".encode()
