"""A sealed enquiry opens for the owner of the token key, for that enquiry of that council, and for nobody else."""

from __future__ import annotations

import base64
from datetime import date

import pytest

from stream_processors.enquiry.person import PersonAsked
from stream_processors.enquiry.seal import SealError, private_key, public_key, seal, unseal

KEY = b"t" * 32
PERSON = PersonAsked("Aysha", None, "Begum", date(2001, 2, 3), "F", "SE13 7AB")
SEALED = seal(PERSON, "council-northam", "e1", public_key(KEY))


def test_it_opens_for_the_owner_of_the_token_key() -> None:
    assert unseal(SEALED, "council-northam", "e1", private_key(KEY)) == PERSON


def test_it_shows_nothing_of_the_person() -> None:
    assert b"Aysha" not in base64.b64decode(SEALED)
    assert seal(PERSON, "council-northam", "e1", public_key(KEY)) != SEALED, "two of one person look different"


@pytest.mark.parametrize(
    ("sealed", "council", "enquiry", "key"),
    [
        (SEALED, "council-southam", "e1", KEY),
        (SEALED, "council-northam", "e2", KEY),
        (SEALED, "council-northam", "e1", b"u" * 32),
        (SEALED[:-8] + "AAAAAAA=", "council-northam", "e1", KEY),
        (SEALED[:40], "council-northam", "e1", KEY),
        ("not base64!", "council-northam", "e1", KEY),
        ("", "council-northam", "e1", KEY),
        ("A" * 10_000, "council-northam", "e1", KEY),
    ],
    ids=["council", "enquiry", "key", "changed", "cut", "no base64", "empty", "long"],
)
def test_it_opens_for_nothing_else(sealed: str, council: str, enquiry: str, key: bytes) -> None:
    with pytest.raises(SealError) as refused:
        unseal(sealed, council, enquiry, private_key(key))
    assert refused.value.__cause__ is None
