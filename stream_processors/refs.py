"""Keyed references: how a subject, a record, a person and a family are named downstream. Only the owner of a key can
make one.

HMAC-SHA256 (RFC 2104) truncated to 128 bits, 32 lower-case hex digits. Parts are joined by a unit separator.
"""

from __future__ import annotations

import hashlib

import polars as pl
import polars_hash  # noqa: F401  (registers the chash namespace)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

REF_WIDTH = 32
_SEPARATOR = "\x1f"


def derive(master: bytes, purpose: str) -> str:
    """A key for one purpose, as 64 hex digits, by HKDF-SHA256 (RFC 5869) from a master key of 32 bytes."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(master).hex()


def keyed(text: pl.Expr, key: str) -> pl.Expr:
    """128-bit HMAC of a String column as 32 hex digits; null stays null."""
    hashed: pl.Expr = text.chash.hmac_sha256(key=key)  # type: ignore[attr-defined]
    return hashed.str.slice(0, REF_WIDTH)


def ref_hash(ref: str) -> str:
    """A reference's SHA-256, as 32 hex digits: for governance, where it names nobody to whom the reference is not
    known. References are keyed hashes themselves, so none can be guessed."""
    return hashlib.sha256(f"lethe/1/ref-hash/{ref}".encode()).hexdigest()[:REF_WIDTH]


class Refs:
    """References made with the token key: subjects, records and families."""

    def __init__(self, token_key: bytes) -> None:
        self._subject = derive(token_key, "lethe/1/subject-ref")
        self._record = derive(token_key, "lethe/1/record-ref")
        self._family = derive(token_key, "lethe/1/family-ref")

    def subject(self, supplier: str, subject_id: pl.Expr) -> pl.Expr:
        """Reference of a supplier's subject."""
        return keyed(_joined(pl.lit(supplier), subject_id), self._subject)

    def record(self, supplier: str, dataset: str, subject_id: pl.Expr, record_id: pl.Expr) -> pl.Expr:
        """Reference of a supplier's record; a person record has an empty record id."""
        return keyed(_joined(pl.lit(supplier), pl.lit(dataset), subject_id, record_id), self._record)

    def family(self, supplier: str, family_id: pl.Expr) -> pl.Expr:
        """Reference of a council's family."""
        return keyed(_joined(pl.lit(supplier), family_id), self._family)


class ResearchIds:
    """Pseudonyms for one recipient, under the research key alone."""

    def __init__(self, research_key: bytes) -> None:
        self._person = derive(research_key, "lethe/1/research-person")
        self._family = derive(research_key, "lethe/1/research-family")

    def person(self, person_ref: pl.Expr) -> pl.Expr:
        """Pseudonym of a person."""
        return keyed(person_ref, self._person)

    def family(self, family_ref: pl.Expr) -> pl.Expr:
        """Pseudonym of a family; null stays null."""
        return keyed(family_ref, self._family)


def _joined(*parts: pl.Expr) -> pl.Expr:
    return pl.concat_str(parts, separator=_SEPARATOR)
