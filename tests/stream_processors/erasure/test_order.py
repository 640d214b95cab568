"""An order is for pseudonymise alone, and for what it was sealed for."""

from __future__ import annotations

from datetime import date

import pytest

from stream_processors.enquiry.person import PersonAsked
from stream_processors.enquiry.seal import SealError, private_key, public_key
from stream_processors.erasure.order import Target, opened, order_row

KEY, OTHER = b"k" * 32, b"o" * 32
PUBLIC = public_key(KEY)
PERSON = PersonAsked(forename="Zq9x", surname="Begum", date_of_birth=date(2001, 2, 3), postcode="SE13 7AB")


@pytest.mark.parametrize("target", [Target("dfe", "A|ä 1"), Target(person=PERSON)], ids=["subject", "person"])
def test_who_it_is_about_is_read_by_the_key_that_it_was_sealed_to(target: Target) -> None:
    row = order_row("o1", "erase", target, "objection", "officer", 1, PUBLIC)
    assert opened("o1", row, [private_key(OTHER), private_key(KEY)]) == target
    assert "Zq9x" not in repr(row) + repr(target)
    with pytest.raises(SealError):
        opened("o1", row, [private_key(OTHER)])
    with pytest.raises(SealError):
        opened("o1", row, [])


def test_it_opens_for_no_other_order_and_no_other_supplier() -> None:
    row = order_row("o1", "erase", Target("dfe", "A1"), "error", "officer", 1, PUBLIC)
    for order_id, other in (("o2", row), ("o1", row | {"supplier": "moj"}), ("o1", row | {"sealed": "AAAA"})):
        with pytest.raises(SealError):
            opened(order_id, other, [private_key(KEY)])


def test_a_person_is_no_subject() -> None:
    row = order_row("o1", "erase", Target(person=PERSON), "error", "officer", 1, PUBLIC)
    with pytest.raises(SealError, match="no subject"):
        opened("o1", row | {"what": "subject"}, [private_key(KEY)])


def test_the_length_says_little() -> None:
    short, long = (order_row("o1", "erase", Target("dfe", "A" * n), "error", "b", 1, PUBLIC)["sealed"] for n in (1, 90))
    assert len(short) == len(long)
