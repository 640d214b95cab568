"""Encodings and statements: what they tell of two persons of one block, and that they tell nothing else."""

from __future__ import annotations

import hashlib
import random
from base64 import b64decode
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_processors.matching.catalogue import load_catalogue
from stream_processors.matching.encodings import ENCODING_BYTES, ENCODING_TEXT, WORD_TEXT, Encoder
from stream_processors.matching.near_model import FIELDS
from stream_processors.matching.normalise import normalise
from stream_processors.matching.tokens import TokenKeys, tokenise
from tests.stream_processors.matching.people import PERSONS, SAM, any_text, people

CATALOGUE = load_catalogue()
KEYS = TokenKeys(bytes(range(32)), 0)
BY_DOB, BY_SECTOR, BY_SOUND = 1, 2, 3
Person = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """What one person has in one block."""

    block: str
    statement: str
    encoding: str

    @property
    def sex(self) -> str:
        return self.statement[:WORD_TEXT]

    @property
    def words(self) -> set[str]:
        return {self.statement[i : i + WORD_TEXT] for i in range(WORD_TEXT, len(self.statement), WORD_TEXT)}

    def bits(self, field: str) -> int:
        """The field's Bloom filter, as a number."""
        widths = [16, 16, 16, 16, 4, 4]
        at = FIELDS.index(field)
        start = sum(widths[:at])
        return int.from_bytes(b64decode(self.encoding)[start : start + widths[at]], "big")


def encoded(*rows: Person, keys: TokenKeys = KEYS) -> list[dict[int, Made]]:
    """Of each person: pass to what it has there."""
    made = Encoder(CATALOGUE, keys).encode(tokenise(normalise(people(*rows)), CATALOGUE, keys))
    return [
        {int(b[0]): Made(b, s, e) for b, s, e in zip(*lists, strict=True)}
        for lists in made.select("blocks", "statements", "encodings").iter_rows()
    ]


def one(row: Person, keys: TokenKeys = KEYS) -> dict[int, Made]:
    return encoded(row, keys=keys)[0]


# What an encoding depends on ------------------------------------------------------------------------------------------


@settings(any_text, max_examples=15)
@given(PERSONS, st.randoms(use_true_random=False))
def test_what_a_person_has_does_not_depend_on_who_else_is_in_the_batch(
    rows: list[dict[str, Any]], shuffle: random.Random
) -> None:
    alone = [one(row) for row in rows]
    assert encoded(*rows) == alone
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    assert encoded(*[rows[i] for i in order]) == [alone[i] for i in order]


def test_persons_who_are_written_alike_have_equal_encodings_in_each_block() -> None:
    other = {"forename": "SAMUEL ", "surname": "o brien smith", "postcode": "se137ab"}
    first, second = encoded(SAM, SAM | other)
    assert first == second
    assert list(first) == [BY_DOB, BY_SECTOR, BY_SOUND]


def test_a_nickname_has_the_encoding_and_the_statement_of_the_formal_name_where_they_meet() -> None:
    formal, nickname = encoded(SAM, SAM | {"forename": "Sam"})
    assert [formal[p] for p in (BY_DOB, BY_SECTOR)] == [nickname[p] for p in (BY_DOB, BY_SECTOR)]
    assert formal[BY_SOUND].block != nickname[BY_SOUND].block  # S540 and S500


def test_encodings_do_not_change_by_accident() -> None:
    """Whoever changes these must raise the catalogue's version: encodings that are live would no longer meet."""
    made = one(SAM)[BY_SECTOR]
    digest = hashlib.sha256(f"{made.statement} {made.encoding}".encode()).hexdigest()[:16]
    assert digest == "44b23150436a6925"


@pytest.mark.parametrize(
    ("what", "keys", "changed", "number"),
    [
        ("another epoch", TokenKeys(bytes(range(32)), 1), {}, BY_SECTOR),
        ("another master key", TokenKeys(bytes(range(1, 33)), 0), {}, BY_SECTOR),
        ("another block of the pass", KEYS, {"postcode": "N1 9GU"}, BY_SECTOR),
        ("another date of birth", KEYS, {"date_of_birth": date(2003, 2, 1)}, BY_DOB),
    ],
)
def test_with_another_key_or_block_names_and_statements_are_others(
    what: str, keys: TokenKeys, changed: Person, number: int
) -> None:
    a, b = one(SAM)[number], one(SAM | changed, keys)[number]
    assert a.block != b.block, what
    assert a.sex != b.sex
    assert a.words.isdisjoint(b.words)
    for field in ("forename", "surname", "sex", "middle_names"):
        assert a.bits(field) != b.bits(field)


def many_persons(random_: random.Random) -> list[Person]:
    """Sixty of whom no two share a block."""
    return [
        {
            "forename": "".join(random_.choices("ABCDEFGHIJKLM", k=random_.randint(3, 9))),
            "surname": "".join(random_.choices("NOPQRSTUVWXYZ", k=random_.randint(3, 9))),
            "date_of_birth": date(1950 + i, 1, 1),
            "postcode": f"SE{i + 10} 7AB",
        }
        for i in range(60)
    ]


@settings(deadline=None, max_examples=25)
@given(
    st.randoms(use_true_random=False),
    st.binary(min_size=32, max_size=32),
    st.sampled_from(["epoch", "master key", "block"]),
)
def test_encodings_of_different_blocks_share_bits_by_chance_only(
    random_: random.Random, master: bytes, what: str
) -> None:
    """One person's names in two blocks: the bits in common are as many as random filters of that many bits have.

    Of n and m random bits of 128, nm/128 are expected in common, with a variance of nm/128 (1 - n/128) (1 - m/128)
    128/127. The sum over 60 persons and two fields is within five standard deviations of what is expected.
    """
    persons = many_persons(random_)
    other = {"epoch": TokenKeys(master, 1), "master key": TokenKeys(master + b"x", 0)}.get(what)
    before = encoded(*persons, keys=TokenKeys(master, 0))
    after = encoded(*persons, keys=other) if other else before
    expected = variance = common = 0.0
    for a, b in zip(before, after, strict=True):
        mine, theirs = a[BY_SECTOR], b[BY_SOUND if what == "block" else BY_SECTOR]
        for field in ("forename", "surname"):
            x, y = mine.bits(field), theirs.bits(field)
            n, m = x.bit_count(), y.bit_count()
            common += (x & y).bit_count()
            expected += n * m / 128
            variance += n * m / 128 * (1 - n / 128) * (1 - m / 128) * 128 / 127
    assert abs(common - expected) < 5 * variance**0.5


# What is in an encoding -----------------------------------------------------------------------------------------------


def test_every_field_of_a_whole_person_sets_bits_but_the_date_of_birth_that_all_of_a_block_share() -> None:
    made = one(SAM)
    empty = {number: [f for f in FIELDS if not made[number].bits(f)] for number in made}
    assert empty == {BY_DOB: ["date_of_birth"], BY_SECTOR: [], BY_SOUND: []}


@pytest.mark.parametrize(
    ("missing", "field", "left"),
    [
        ("forename", "forename", [BY_DOB, BY_SECTOR]),
        ("surname", "surname", [BY_DOB, BY_SECTOR]),
        ("date_of_birth", "date_of_birth", [BY_SECTOR, BY_SOUND]),
        ("postcode", "postcode", [BY_DOB, BY_SOUND]),
        ("middle_names", "middle_names", [BY_DOB, BY_SECTOR, BY_SOUND]),
        ("sex", "sex", [BY_DOB, BY_SECTOR, BY_SOUND]),
    ],
)
def test_what_is_missing_sets_no_bits_and_changes_no_others(missing: str, field: str, left: list[int]) -> None:
    whole, made = one(SAM), one(SAM | {missing: None})
    assert list(made) == left
    for number in left:
        assert made[number].bits(field) == 0
        assert [made[number].bits(f) for f in FIELDS if f != field] == [
            whole[number].bits(f) for f in FIELDS if f != field
        ]


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        ("forename", {"forename": "S"}),
        ("middle_names", {"middle_names": "P I"}),
        ("date_of_birth", {"date_of_birth": date(1900, 1, 1)}),
        ("sex", {"sex": "X"}),
        ("postcode", {"postcode": "ZZ99 3VZ"}),
        ("surname", {"surname": "not known"}),
    ],
)
def test_initials_default_values_and_blanks_set_no_bits(field: str, raw: Person) -> None:
    made = one(SAM | raw)
    assert made
    assert {m.bits(field) for m in made.values()} == {0}


def test_alike_names_share_most_bits_and_others_few() -> None:
    first, typo, other = (m[BY_DOB] for m in encoded(SAM, SAM | {"surname": "O'Brian-Smith"}, SAM | {"surname": "Lee"}))
    assert 2 * (first.bits("surname") & typo.bits("surname")).bit_count() > 0.7 * (
        first.bits("surname").bit_count() + typo.bits("surname").bit_count()
    )
    assert (first.bits("surname") & other.bits("surname")).bit_count() < 0.5 * other.bits("surname").bit_count()


def test_forename_and_surname_set_the_same_bits_for_the_same_name_so_that_exchanged_names_can_be_seen() -> None:
    (made,) = encoded(SAM | {"forename": "Grant", "surname": "Grant"})
    assert made[BY_DOB].bits("forename") == made[BY_DOB].bits("surname") != 0


# Statements -----------------------------------------------------------------------------------------------------------

NO_SEX = "0" * WORD_TEXT


@pytest.mark.parametrize(
    ("forename", "middle_names", "words"),
    [
        ("Samuel", None, 1),
        ("Samuel", "Peter Ian", 3),
        ("Samuel", "P", 1),
        ("Samuel", "Samuel", 1),
        ("Anne Marie", None, 3),  # and ANNEMARIE
        ("Annemarie", None, 1),
        ("S", None, 0),
        ("S", "Peter", 1),
        ("J P", None, 0),  # two initials are no word
        ("J P", "R", 0),
        (None, None, 0),
        (None, "Peter", 0),  # the forename may be any
    ],
)
def test_a_statement_has_a_word_for_each_forename_and_initials_state_nothing(
    forename: str | None, middle_names: str | None, words: int
) -> None:
    made = one(SAM | {"forename": forename, "middle_names": middle_names})[BY_DOB]
    assert len(made.statement) == WORD_TEXT * (1 + words)
    assert made.sex != NO_SEX


@pytest.mark.parametrize("sex", [None, "X", ""])
def test_a_sex_that_is_not_stated_is_zeros(sex: str | None) -> None:
    made = one(SAM | {"sex": sex})
    assert {m.sex for m in made.values()} == {NO_SEX}
    assert {m.words == one(SAM)[n].words for n, m in made.items()} == {True}


@pytest.mark.parametrize(
    ("a", "b", "in_common"),
    [
        ({"forename": "Anne Marie"}, {"forename": "Annemarie"}, True),
        ({"forename": "Anne-Marie"}, {"forename": "Marie"}, True),
        ({"forename": "Bill"}, {"forename": "William"}, True),
        ({"forename": "Peter", "middle_names": "John"}, {"forename": "John"}, True),
        ({"forename": "Peter", "middle_names": "Jack"}, {"forename": "Jack", "middle_names": "Peter"}, True),
        ({"forename": "Jack"}, {"forename": "Grace"}, False),
        ({"forename": "Jack", "middle_names": "A"}, {"forename": "Alfie"}, False),
        ({"forename": "Jack", "middle_names": "Lee"}, {"forename": "Grace", "middle_names": "Ann"}, False),
    ],
)
def test_two_who_may_be_one_person_have_a_word_in_common(a: Person, b: Person, in_common: bool) -> None:
    plain = SAM | {"middle_names": None}
    first, second = (m[BY_DOB] for m in encoded(plain | a, plain | b))
    assert (not first.words.isdisjoint(second.words)) is in_common


def test_a_word_is_no_sex_and_a_sex_is_no_word() -> None:
    first, second = (m[BY_DOB] for m in encoded(SAM | {"forename": "F", "sex": "M"}, SAM | {"forename": "M F"}))
    assert first.sex == second.sex
    assert first.sex not in first.words | second.words


# What goes out --------------------------------------------------------------------------------------------------------


def test_texts_have_the_widths_that_they_say() -> None:
    made = one(SAM).values()
    assert {len(m.encoding) for m in made} == {ENCODING_TEXT} == {96}
    assert {len(b64decode(m.encoding, validate=True)) for m in made} == {ENCODING_BYTES} == {72}
    assert all(set(m.statement) <= set("0123456789abcdef") for m in made)


def test_with_encodings_off_there_are_none_and_statements_are_the_same() -> None:
    tokenised = tokenise(normalise(people(SAM, {}, SAM | {"sex": None})), CATALOGUE, KEYS)
    off = Encoder(CATALOGUE, KEYS, encodings=False).encode(tokenised)
    assert off["encodings"].to_list() == [[], [], []]
    assert off["statements"].to_list() == Encoder(CATALOGUE, KEYS).encode(tokenised)["statements"].to_list()


def test_who_has_no_block_has_neither() -> None:
    assert encoded({}, SAM, {"forename": "Zoe"})[::2] == [{}, {}]


def test_no_rows() -> None:
    made = Encoder(CATALOGUE, KEYS).encode(tokenise(normalise(people()), CATALOGUE, KEYS))
    assert made.height == 0
    assert made.schema["encodings"] == made.schema["statements"] == pl.List(pl.String)


def test_other_columns_stay_as_they_are() -> None:
    tokenised = tokenise(normalise(people(SAM, {})), CATALOGUE, KEYS)
    made = Encoder(CATALOGUE, KEYS).encode(tokenised)
    assert made.drop("encodings", "statements").equals(tokenised)


def test_there_is_no_clear_text_and_no_hash_without_a_key_inside() -> None:
    values = ["SAMUEL", "PETER", "IAN", "OBRIENSMITH", "SE137AB", "2001-02-03", "20010203", "OBRIEN", "SMITH"]
    for made in one(SAM).values():
        inside = b64decode(made.encoding) + bytes.fromhex(made.statement) + made.encoding.encode()
        for value in values:
            for text in (value.encode(), value.lower().encode(), value.title().encode()):
                assert text not in inside
                for name in ("md5", "sha1", "sha256", "blake2b"):
                    digest = hashlib.new(name, text).digest()
                    assert digest[:4] not in bytes.fromhex(made.statement)
                    assert digest[-4:] not in bytes.fromhex(made.statement)


def test_a_filter_is_neither_full_nor_nearly_empty() -> None:
    """A full one would find everybody alike; one with few bits would tell little."""
    filled = np.array([[made.bits(f).bit_count() for f in FIELDS[:4]] for made in one(SAM).values()])
    assert filled.max() < 64
    assert filled[:, [0, 1, 3]].min() >= 8
