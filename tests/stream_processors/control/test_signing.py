"""A request is its council's if whoever signed it knew the council's secret; every part of it is signed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stream_processors.control.signing import Request, authentic, signed

SECRET = b"s" * 32
ID = "0123456789abcdef" * 2
ASKED = signed(ID, "council-northam", 1_000, "c2VhbGVk", SECRET)


def test_it_is_the_councils() -> None:
    assert ASKED.well_formed
    assert authentic(ASKED, SECRET)


@pytest.mark.parametrize(
    "changed",
    [
        replace(ASKED, enquiry_id="f" * 32),
        replace(ASKED, council="council-southam"),
        replace(ASKED, asked_ms=1_001),
        replace(ASKED, sealed="c2VhbGVE"),
        replace(ASKED, mac="0" * 64),
        replace(ASKED, mac=""),
        replace(ASKED, council="council-northam\n" + ID, enquiry_id=""),
    ],
)
def test_it_is_not_if_anything_differs(changed: Request) -> None:
    assert not authentic(changed, SECRET)


def test_it_is_not_under_another_secret_or_none() -> None:
    assert not authentic(ASKED, b"t" * 32)
    assert not authentic(ASKED, None)
    assert not authentic(signed(ID, "council-northam", 1_000, "c2VhbGVk", b"\x00" * 32), None), "none is no secret"


@pytest.mark.parametrize(
    "changed",
    [{"enquiry_id": "x"}, {"enquiry_id": ID.upper()}, {"mac": "g" * 64}, {"sealed": ""}, {"sealed": "A" * 9_000}],
)
def test_what_is_malformed_is_not_looked_at(changed: dict[str, str]) -> None:
    assert not replace(ASKED, **changed).well_formed  # type: ignore[arg-type]
