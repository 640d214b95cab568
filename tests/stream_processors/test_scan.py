"""scan: identifiers are found by their shape and check character, and what merely resembles them is not."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from producers.simulator import ids
from stream_processors.scan import Canaries, identifiers, scan


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AB123456C", "ni_number"),
        ("AB 12 34 56 C", "ni_number"),
        ("ab123456c", "ni_number"),
        ("\x12AB123456C\x00", "ni_number"),
        ("DB123456C", None),
        ("AB123456E", None),
        ("XAB123456C", None),
        ("H801200001001", "upn"),
        ("A801200001001", None),
        ("9434765919", "nhs_number"),
        ("943 476 5919", "nhs_number"),
        ("943-476-5919", "nhs_number"),
        ("9434765918", None),
        ("99434765919", None),
        ("SE13 7AB", "postcode"),
        ("se137ab", "postcode"),
        ("M1 1AE", "postcode"),
        ("EC1A 1BB", "postcode"),
        ("GIR 0AA", "postcode"),
        ("E01003235", None),
        ("SE13", None),
        ("2001-03-04", "date"),
        ("04/03/2001", "date"),
        ("4.3.2001", "date"),
        ("4 March 2001", "date"),
        ("4th Mar 2001", "date"),
        ("20010304", "date"),
        ("04032001", "date"),
        ("2001-03-01", None),
        ("2001-13-04", None),
        ("E01012002", None),
        ("anna.smith@example.org", "email"),
        ("anna@localhost", None),
        ("07700 900123", "phone"),
        ("+44 7700 900123", "phone"),
        ("020 7946 0958", "phone"),
        ("0123", None),
        ("participant", None),
        ("0123456789abcdef0123456789abcdef", None),
    ],
)
def test_shapes(text: str, kind: str | None) -> None:
    assert set(identifiers(text.encode())) == ({kind} if kind else set())


def test_every_id_that_the_simulator_gives_is_found() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    for kind, made in (
        ("upn", ids.upns(rng, 300)),
        ("nhs_number", ids.nhs_numbers(rng, 300)),
        ("ni_number", ids.insurance_numbers(rng, 300)),
    ):
        assert [i for i in made if not identifiers(i.encode())[kind]] == []


def test_a_wrong_check_character_is_no_identifier() -> None:
    rng = np.random.Generator(np.random.PCG64(2))
    upns = ids.upns(rng, 200).to_list()
    wrong = [("A" if u[0] != "A" else "B") + u[1:] for u in upns]
    assert [u for u in wrong if identifiers(u.encode())["upn"]] == []


def test_pseudonyms_by_the_thousand_look_like_nothing() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    content = b"".join(b"\x40" + rng.bytes(16).hex().encode() + b"\x00\x02" for _ in range(20_000))
    assert identifiers(content) == {}


def test_a_canary_is_found_in_every_form_and_nothing_else_is() -> None:
    canaries = Canaries({"surname": ["Zqxjkv Smith"], "postcode": ["SE13 7AB"]})
    for content in (
        b"..Zqxjkv Smith..",
        b"zqxjkv smith",
        b"ZQXJKVSMITH",
        "Zqxjkv Smith".encode("utf-16-le"),
        b"Zqxjkv Smith"[::-1],
        b"Zqxjkv Smith".hex().encode(),
        base64.b64encode(b"Zqxjkv Smith and more"),
        base64.b64encode(b".Zqxjkv Smith and more"),
        base64.b64encode(b"..Zqxjkv Smith and more"),
    ):
        assert set(canaries.found(content)) == {"surname"}, content
    assert set(canaries.found(b"at SE137AB.")) == {"postcode"}
    assert canaries.found(b"Smith, Zqxjkv") == {}


def test_keys_values_and_headers_are_looked_at() -> None:
    canaries = Canaries({"surname": ["Zqxjkv"]})
    found = scan([(b"Zqxjkv", b"AB123456C", [("name", b"SE13 7AB"), ("zqxjkv", b"")]), (None, None, [])], canaries)
    assert found == {"key.canary.surname": 1, "value.ni_number": 1, "header.postcode": 1, "header.canary.surname": 1}
