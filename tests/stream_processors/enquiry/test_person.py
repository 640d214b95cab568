"""Who is asked about, from a file: what is taken, and errors that name the field and never show a value."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from stream_processors.enquiry.person import PersonAsked, PersonError, frame_of, read_person

AYSHA = PersonAsked("Aysha", None, "Begum-Khan", date(2001, 2, 3), "F", "SE13 7AB")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "p.json",
            '{"forename": "Aysha", "surname": "Begum-Khan", "date_of_birth": "2001-02-03", "sex": "F", '
            '"postcode": "SE13 7AB"}',
        ),
        ("p.csv", "forename,surname,date_of_birth,sex,postcode\nAysha,Begum-Khan,03/02/2001,F,SE13 7AB\n"),
        (
            "p.CSV",
            "\ufeffforename,middle_names,surname,date_of_birth,sex,postcode\nAysha,,Begum-Khan,20010203,F,SE13 7AB",
        ),
    ],
)
def test_one_person_is_read(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert read_person(path) == AYSHA


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.json", '{"forename": "Zebedee", "nhs_number": "1"}', "nhs_number"),
        ("p.json", '{"forename": 7}', "forename"),
        ("p.json", '{"date_of_birth": "Zebedee"}', "date_of_birth"),
        ("p.json", '{"surname": "' + "Zebedee" * 40 + '"}', "surname"),
        ("p.json", "Zebedee", "JSON object"),
        ("p.json", "[" * 50_000, "JSON object"),
        ("p.csv", "forename\nZebedee\nZebedee\n", "2 rows"),
        ("p.csv", "forename\n", "0 rows"),
        ("p.csv", "forename\nZebedee,Zebedee\n", "more cells"),
        ("p.csv", "forename\n" + "Zebedee" * 20_000, "too large"),
    ],
)
def test_what_cannot_be_used_is_refused_without_a_value(name: str, content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(PersonError, match=said) as refused:
        read_person(path)
    assert "Zebedee" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PersonError, match=r"nobody\.json"):
        read_person(tmp_path / "nobody.json")


def test_the_length_says_nothing_of_the_names() -> None:
    short, long = PersonAsked("Al"), PersonAsked("Maximiliana Bartholomea", None, "Featherstonehaugh")
    assert len(short.to_bytes()) == len(long.to_bytes()) == 256
    assert PersonAsked.from_bytes(long.to_bytes()) == long


def test_no_repr_shows_a_value() -> None:
    assert "Aysha" not in repr(AYSHA)


def test_the_columns_are_those_that_the_pipeline_normalises() -> None:
    assert frame_of([AYSHA]).columns == ["forename", "middle_names", "surname", "date_of_birth", "sex", "postcode"]
