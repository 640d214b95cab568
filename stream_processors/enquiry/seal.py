"""Sealed enquiries: whoever carries one, pseudonymise alone can read it.

HPKE (RFC 9180), base mode: X25519, HKDF-SHA256, ChaCha20-Poly1305. The private key is derived from the token key, so
nobody who may not hold that can open an enquiry; the public key is a file that anybody may read.
"""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from stream_processors.enquiry.person import PersonAsked, PersonError
from stream_processors.refs import derive

MOST_SEALED = 8_192
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class SealError(ValueError):
    """Nothing that this key opens, or nothing usable in it. The message never holds a value."""


def private_key(token_key: bytes) -> X25519PrivateKey:
    """The key that opens enquiries: for pseudonymise alone."""
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(derive(token_key, "lethe/1/enquiry-seal")))


def public_key(token_key: bytes) -> bytes:
    """The 32 bytes that enquiries are sealed to: for anybody."""
    return private_key(token_key).public_key().public_bytes_raw()


def seal(person: PersonAsked, council: str, enquiry_id: str, public: bytes) -> str:
    """The person's details, for this enquiry of this council only, in base64."""
    return seal_bytes(person.to_bytes(), _info(council, enquiry_id), public)


def seal_bytes(text: bytes, info: bytes, public: bytes) -> str:
    """Any text, bound to what `info` says it is for, in base64."""
    return base64.b64encode(_SUITE.encrypt(text, X25519PublicKey.from_public_bytes(public), info=info)).decode()


def unseal_bytes(sealed: str, info: bytes, private: X25519PrivateKey) -> bytes:
    """What `seal_bytes` sealed.

    Raises:
        SealError: it was sealed for another key or with another info, or was changed.
    """
    if len(sealed) > MOST_SEALED:
        raise SealError("too long")
    try:
        return _SUITE.decrypt(base64.b64decode(sealed, validate=True), private, info=info)
    except (InvalidTag, ValueError, binascii.Error) as e:
        raise SealError(f"does not open ({type(e).__name__})") from None


def unseal(sealed: str, council: str, enquiry_id: str, private: X25519PrivateKey) -> PersonAsked:
    """What was sealed.

    Raises:
        SealError: it was sealed for another key, council or enquiry, was changed, or holds no usable details.
    """
    try:
        return PersonAsked.from_bytes(unseal_bytes(sealed, _info(council, enquiry_id), private))
    except PersonError as e:
        raise SealError(f"does not open ({type(e).__name__})") from None


def _info(council: str, enquiry_id: str) -> bytes:
    return f"lethe/1/enquiry/{council}/{enquiry_id}".encode()
