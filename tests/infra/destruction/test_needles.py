"""The search finds a text in any of its forms, anywhere, also across the pieces that a file is read in."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from infra.commands.destruction import asked_of
from infra.destruction import needles
from infra.destruction.needles import Needles, Search, read_needles
from infra.settings import Settings

NEEDLES = Needles({"surname": ["Quuxbegum"], "postcode": ["SE13 7QX"]})


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"\x00\xffQuuxbegum\x02", "surname"),
        (b"QUUXBEGUM", "surname"),
        (b"SE137QX", "postcode"),
        ("Quuxbegum".encode("utf-16-le"), "surname"),
        (base64.b64encode(b"a Quuxbegum b"), "surname"),
        (b"Quuxbegum".hex().encode(), "surname"),
    ],
)
def test_every_form_is_found(content: bytes, field: str) -> None:
    assert set(NEEDLES.in_bytes([b"nothing", content])[1]) == {field}


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_bytes_around_it_do_not_hide_it_and_do_not_look_like_it(before: bytes, after: bytes) -> None:
    hidden, plain = NEEDLES.in_bytes([before + b"Quuxbegum" + after, before + after])
    assert hidden["surname"]
    assert bool(plain) == any(form in before + after for form in NEEDLES.field_of)


def test_a_file_is_searched_across_its_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needles, "_PIECE", 7)
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10 + b"Quuxbegum" + b"y" * 10)
    assert set(NEEDLES.in_file(path)) == {"surname"}
    path.write_bytes(b"Quuxbe gum" * 4)
    assert NEEDLES.in_file(path) == Counter()


def test_a_search_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    hits: list[str] = []
    search = Search(NEEDLES, lambda where, _: hits.append(where))
    search.add("here", b"Quuxbegum")
    search.add("there", b"nobody")
    assert hits == [], "gathered first"
    monkeypatch.setattr(needles, "_PIECE", 1)
    search.add("over there", b"SE13 7QX")
    search.flush()
    assert hits == ["here", "over there"]


def test_texts_come_as_json_by_field_or_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_text(json.dumps({"surname": ["A", "B"]}))
    assert read_needles(path) == {"surname": ["A", "B"]}
    path.write_text("A\n\n B \n")
    assert read_needles(path) == {"text": ["A", "B"]}
    path.write_text('{"surname": 3')
    with pytest.raises(ValueError, match="is no list of texts"):
        read_needles(path)


def test_a_file_with_holes_is_searched_where_it_has_data(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(50 << 20)
        file.write(b"Quuxbegum")
        file.truncate(100 << 20)
    assert set(NEEDLES.in_file(path)) == {"surname"}
    path.write_bytes(b"")
    os.truncate(path, 10 << 20)
    assert NEEDLES.in_file(path) == Counter()


def test_a_persons_file_is_a_list_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "person.json"
    path.write_text(json.dumps({"surname": "Quuxbegum", "postcode": "SE13 7QX", "sex": None}))
    assert read_needles(path) == {"surname": ["Quuxbegum"], "postcode": ["SE13 7QX"]}


def test_a_file_of_which_nothing_would_be_looked_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_text("short\n")
    with pytest.raises(typer.Exit):
        asked_of(Settings(home=tmp_path), path, False, None, None, None)
