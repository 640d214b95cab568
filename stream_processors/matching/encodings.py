"""Encodings: what near matches compare instead of clear text, and statements: what may contradict a link.

An encoding holds a Bloom filter for each field (Schnell, Bachteler and Reiher, BMC Medical Informatics and Decision
Making 9:41, 2009): pairs of letters of the names, parts of the date of birth and of the postcode, each setting a few
bits. Alike values share bits, so that a Dice coefficient tells how alike they are. Which bits a feature sets depends
on a secret key **and on the block**: encodings of different blocks have nothing in common that could be compared, and
whoever counts frequencies sees one block at a time (docs/adr/0009-near-matches.md).

A statement is the sex and the words of the forenames as 32-bit keyed hashes, salted by the block in the same way.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from stream_processors.matching.catalogue import Catalogue, Pass
from stream_processors.matching.components import COMPONENTS, canonical_forenames
from stream_processors.matching.near_model import FIELDS
from stream_processors.matching.siphash import Words, siphash
from stream_processors.matching.tokens import TOKEN_HEX_DIGITS, TokenKeys

Rows = npt.NDArray[np.int64]

WIDE_BITS, NARROW_BITS = 128, 32
"""Of the first four of `FIELDS`, and of the others."""
ENCODING_BYTES = (4 * WIDE_BITS + 2 * NARROW_BITS) // 8
ENCODING_TEXT = ENCODING_BYTES * 4 // 3
"""Characters of an encoding in base64; it needs no padding, so that many can be read as one text."""
WORD_TEXT = 8
"""Hex digits of each word of a statement."""

_WIDTH = {name: WIDE_BITS if i < 4 else NARROW_BITS for i, name in enumerate(FIELDS)}
_START = {name: sum(_WIDTH[f] for f in FIELDS[:i]) for i, name in enumerate(FIELDS)}
_BITS = 8 * ENCODING_BYTES


@dataclass(frozen=True)
class Features:
    """Features of many rows: the row, a number that stands for the feature, its field, and how many bits it sets."""

    row: Rows
    code: Words
    field: str
    bits: int


class Encoder:
    """Makes encodings and statements under keys of one epoch.

    One secret for each pass and purpose, by HKDF; of it and the block's token comes the block's own key, by SipHash.
    """

    def __init__(self, catalogue: Catalogue, keys: TokenKeys, encodings: bool = True) -> None:
        """`encodings` False: statements alone, for those who may not hold encodings."""
        self._encodings = encodings
        self._secrets = {p.number: _secret(keys, p) for p in catalogue.passes}
        self._passes = {p.number: p for p in catalogue.passes}

    def encode(self, normalised: pl.DataFrame) -> pl.DataFrame:
        """Add encodings and statements to rows of `tokenise`; rows, their order and other columns stay as they are.

        Adds, both List(String) and never null, one text for each of the row's `blocks`, in their order: `encodings` (72
        bytes in base64; none at all if encodings are off) and `statements` (8 hex digits for the sex, zeros if it is
        not stated, and 8 for each word of the forenames).
        """
        blocks = normalised["blocks"].explode().drop_nulls()
        counts = normalised["blocks"].list.len().to_numpy()
        number = blocks.str.head(-TOKEN_HEX_DIGITS - 1).cast(pl.Int64).to_numpy()
        rows = np.repeat(np.arange(normalised.height), counts)
        salts = _salts(blocks)
        stated = _stated(normalised)
        found = _Found(features(normalised)) if self._encodings else None
        statements = np.empty(len(rows), object)
        filters = np.zeros((len(rows), ENCODING_BYTES), np.uint8)
        for p, (k0, k1) in self._secrets.items():
            at = np.flatnonzero(number == p)
            if not len(at):
                continue
            key0, key1 = block_keys(k0, k1, salts[at])
            place = np.full(normalised.height, -1)
            place[rows[at]] = np.arange(len(at))
            statements[at] = _say(stated, place, key0, key1)
            if found is not None:
                filters[at] = _set(found.of(self._passes[p]), place, key0, key1)
        texts = pa.array(statements, pa.large_string())
        none = np.zeros_like(counts)
        encoded = _texts(filters) if self._encodings else pa.array([], pa.large_string())
        return normalised.with_columns(
            pl.Series("statements", _listed(texts, counts)),
            pl.Series("encodings", _listed(encoded, counts if self._encodings else none)),
        )


def block_keys(k0: int, k1: int, salts: Words) -> tuple[Words, Words]:
    """The key of each block, from a pass's secret and the two words of the block's token."""
    n = len(salts)
    first, second = np.tile(salts[:, 0], 2), np.tile(salts[:, 1], 2)
    which = np.repeat(np.array([0, 1], np.uint64), n)
    made = siphash(np.full(2 * n, k0, np.uint64), np.full(2 * n, k1, np.uint64), first, second, which)
    return made[:n], made[n:]


def told_apart(found: list[Features], of: Pass) -> list[Features]:
    """Features without the date of birth where all of a block share it: it would tell nobody apart."""
    return [f for f in found if f.field != "date_of_birth" or "dob" not in of.block]


@dataclass(frozen=True)
class _Laid:
    """Features of many rows, one after the other: which bits they set, but for the key."""

    row: Rows
    code: Words
    start: npt.NDArray[np.int32]
    mask: npt.NDArray[np.uint16]
    bits: npt.NDArray[np.int8]


def _laid(found: list[Features]) -> _Laid:
    sizes = [len(f.row) for f in found]

    def each(values: list[int], type_: type[np.generic]) -> npt.NDArray[Any]:
        return np.repeat(np.array(values, type_), sizes)

    return _Laid(
        np.concatenate([f.row for f in found]) if found else np.empty(0, np.int64),
        np.concatenate([f.code for f in found]) if found else np.empty(0, np.uint64),
        each([_START[f.field] for f in found], np.int32),
        each([_WIDTH[f.field] - 1 for f in found], np.uint16),
        each([f.bits for f in found], np.int8),
    )


class _Found:
    """Features as the passes take them, laid out once."""

    def __init__(self, found: list[Features]) -> None:
        self._found = found
        self._laid: dict[bool, _Laid] = {}

    def of(self, p: Pass) -> _Laid:
        told = told_apart(self._found, p)
        key = len(told) == len(self._found)
        if key not in self._laid:
            self._laid[key] = _laid(told)
        return self._laid[key]


def bloom(found: list[Features], place: Rows, key0: Words, key1: Words) -> npt.NDArray[np.uint8]:
    """Bloom filters (uint8, one row of `ENCODING_BYTES` for each key): `place` is where a feature's row goes, or -1."""
    return _set(_laid(found), place, key0, key1)


def _set(found: _Laid, place: Rows, key0: Words, key1: Words) -> npt.NDArray[np.uint8]:
    bits = np.zeros((len(key0), _BITS), np.uint8)
    flat = bits.reshape(-1)
    # All features are hashed at once: a call has its price, and the batch of a quiet hour holds a person or two.
    at = place[found.row]
    here = np.flatnonzero(at >= 0)
    if len(here) < len(at):
        found = _Laid(*(getattr(found, f.name)[here] for f in fields(_Laid)))
        at = at[here]
    parts = siphash(key0[at], key1[at], found.code).astype("<u8", copy=False).view("<u2").reshape(-1, 4)
    start = at * _BITS + found.start
    for i in range(int(found.bits.max(initial=0))):
        sets = slice(None) if i == 0 else np.flatnonzero(found.bits > i)
        flat[start[sets] + (parts[sets, i] & found.mask[sets])] = 1
    return np.packbits(bits, axis=1)


def _secret(keys: TokenKeys, p: Pass) -> tuple[int, int]:
    derived = keys.derive(f"encoding/{p.number}/{'+'.join(p.block)}")
    return int(derived[:16], 16), int(derived[16:32], 16)


def _salts(blocks: pl.Series) -> Words:
    """The two words of each block's token, as rows."""
    joined = bytes.fromhex("".join(blocks.str.tail(TOKEN_HEX_DIGITS).to_list()))
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


_CODE = pl.col("clean_postcode")
_POSTCODE = {
    **{
        name: (COMPONENTS[name](), 48 + i, bits)
        for i, (name, bits) in enumerate((("postcode", 1), ("sector", 2), ("district", 2), ("area", 3)))
    },
    **{f"from the start {i}": (_CODE.str.slice(i, 1), 56 + i, 1) for i in range(4)},
    **{f"from the end {i}": (_CODE.str.slice(-1 - i, 1), 60 + i, 1) for i in range(3)},
}
"""The postcode and its wider and wider parts, and its characters counted from both ends: text, domain, bits."""

# Features -------------------------------------------------------------------------------------------------------------


def features(normalised: pl.DataFrame) -> list[Features]:
    """What sets bits in each row of `normalise`: nothing where a component is missing."""
    values = normalised.select(
        std_forename=COMPONENTS["std_forename"](),
        surname=COMPONENTS["surname"](),
        **{name: _base36(part) for name, (part, _, _) in _POSTCODE.items()},
    )
    made = [
        _pairs_of_letters(values["std_forename"], "forename"),
        _pairs_of_letters(values["surname"], "surname"),
        *_date(normalised["clean_dob"]),
        *(_known(values[name].to_numpy(), domain, bits) for name, (_, domain, bits) in _POSTCODE.items()),
    ]
    words = normalised.select(pl.int_range(pl.len()).alias("row"), word=pl.col("clean_middle_names").str.split(" "))
    middle = words.explode("word").drop_nulls("word").filter(pl.col("word").str.len_bytes() > 1)
    made.append(Features(middle["row"].to_numpy(), _codes(middle["word"], 1), "middle_names", 2))
    sex = normalised.select(pl.int_range(pl.len()).alias("row"), "clean_sex").drop_nulls("clean_sex")
    made.append(Features(sex["row"].to_numpy(), _codes(sex["clean_sex"], 2), "sex", 2))
    return made


def _pairs_of_letters(names: pl.Series, field: str) -> Features:
    """Two neighbouring letters each, the edges of the name among them. Equal in both names, so that names that were
    exchanged can be seen."""
    there = names.is_not_null()
    rows = np.flatnonzero(there.to_numpy())
    padded = "_" + names.filter(there) + "_"
    lengths = padded.str.len_bytes().to_numpy().astype(np.int64)
    if not len(lengths):
        return Features(rows, np.empty(0, np.uint64), field, 2)
    letters = np.frombuffer(padded.str.join("").item().encode(), np.uint8).astype(np.uint64)
    inside = np.ones(len(letters), bool)
    inside[np.cumsum(lengths) - 1] = False
    first = np.flatnonzero(inside)
    code = letters[first] << np.uint64(8) | letters[first + 1]
    return Features(np.repeat(rows, lengths - 1), code, field, 2)


def _date(born: pl.Series) -> list[Features]:
    """Year, month and day, what they are as digits, and day and month whichever is which."""
    rows = np.flatnonzero(born.is_not_null().to_numpy())
    known = born.drop_nulls().dt
    year, month, day = (part.to_numpy().astype(np.int64) for part in (known.year(), known.month(), known.day()))
    parts = [
        (year, 2), (month, 2), (day, 2), (year // 10, 1), (year % 10, 1),
        (month // 10, 1), (month % 10, 1), (day // 10, 1), (day % 10, 1),
    ]  # fmt: skip
    made = [_numbered(rows, value, 16 + i, "date_of_birth", bits) for i, (value, bits) in enumerate(parts)]
    return made + [_numbered(rows, value, 32, "date_of_birth", 1) for value in (month, day)]


def _base36(text: pl.Expr) -> pl.Expr:
    """Letters and digits, at most ten, as a number; leading zeros count. -1 for none."""
    known = pl.when(text != "").then(text)
    return (known.str.to_integer(base=36) * 16 + known.str.len_bytes().cast(pl.Int64)).fill_null(-1)


def _known(numbers: Rows, domain: int, bits: int) -> Features:
    rows = np.flatnonzero(numbers >= 0)
    return _numbered(rows, numbers[rows], domain, "postcode", bits)


def _numbered(rows: Rows, value: Rows, domain: int, field: str, bits: int) -> Features:
    """Numbers below 2**57 of one domain; the domain keeps a month of 3 from a day of 3."""
    return Features(rows, value.astype(np.uint64) | np.uint64(domain << 57), field, bits)


def _codes(words: pl.Series, domain: int) -> Words:
    """A number for each word, the same on every machine; worked out once for each distinct word."""
    if not len(words):
        return np.empty(0, np.uint64)
    distinct = words.unique()
    made = [hashlib.blake2b(w.encode(), digest_size=8, salt=bytes([domain])).digest() for w in distinct]
    numbers = pl.Series(np.frombuffer(b"".join(made), "<u8"), dtype=pl.UInt64)
    return words.replace_strict(distinct, numbers, return_dtype=pl.UInt64).to_numpy()


# Statements -----------------------------------------------------------------------------------------------------------


def _stated(normalised: pl.DataFrame) -> pl.DataFrame:
    """row, code (UInt64), sex (Boolean): what each row states, the sex first.

    Forenames by words and as one word, each in its standard form; an initial states nothing, nor do several (J P).
    Nobody is contradicted by ANNE MARIE who is written ANNEMARIE. Without a forename nothing but the sex is stated: it
    may be any.
    """
    row = pl.int_range(pl.len(), dtype=pl.Int64).alias("row")
    standard = canonical_forenames()
    forename = pl.col("clean_forename")
    one_word = pl.when(forename.str.contains("[A-Z]{2}")).then(forename.str.replace_all(" ", "", literal=True))
    words = (
        normalised.select(
            row,
            word=pl.concat_list(
                forename.str.split(" "),
                pl.concat_list(one_word.fill_null("")),
                pl.col("clean_middle_names").fill_null("").str.split(" "),
            ),
        )
        .explode("word")
        .drop_nulls("word")
        .filter(pl.col("word").str.len_bytes() > 1)
        .with_columns(pl.col("word").replace(list(standard), list(standard.values())))
        .unique(["row", "word"], maintain_order=True)
    )
    sex = normalised.select(row, "clean_sex").drop_nulls("clean_sex")
    return pl.concat(
        [
            sex.select("row", code=_series(sex["clean_sex"], 2), sex=pl.lit(True)),
            words.select("row", code=_series(words["word"], 3), sex=pl.lit(False)),
        ]
    ).sort("row", maintain_order=True)


def _series(words: pl.Series, domain: int) -> pl.Series:
    return pl.Series(_codes(words, domain), dtype=pl.UInt64) if len(words) else pl.Series([], dtype=pl.UInt64)


def _say(stated: pl.DataFrame, place: Rows, key0: Words, key1: Words) -> list[str]:
    """The statement of each key's row."""
    at = place[stated["row"].to_numpy()]
    here = at >= 0
    at = at[here]
    hashed = siphash(key0[at], key1[at], stated["code"].to_numpy()[here]).astype(">u4")
    hashed[hashed == 0] = 1  # 0 says that nothing is stated
    sex = stated["sex"].to_numpy()[here]
    first = np.zeros(len(key0), ">u4")
    first[at[sex]] = hashed[sex]
    order = np.argsort(at[~sex], kind="stable")
    words, counts = hashed[~sex][order].tobytes().hex(), np.bincount(at[~sex], minlength=len(key0)) * WORD_TEXT
    heads = first.tobytes().hex()
    ends = np.cumsum(counts)
    return [
        heads[WORD_TEXT * i : WORD_TEXT * (i + 1)] + words[end - count : end]
        for i, (end, count) in enumerate(zip(ends.tolist(), counts.tolist(), strict=True))
    ]


def _texts(filters: npt.NDArray[np.uint8]) -> pa.LargeStringArray:
    """Each filter in base64. They are of one width, so that they are one text that is cut up."""
    text = b64encode(filters.tobytes())
    offsets = np.arange(len(filters) + 1, dtype=np.int64) * ENCODING_TEXT
    return pa.LargeStringArray.from_buffers(len(filters), pa.py_buffer(offsets), pa.py_buffer(text))


def _listed(texts: pa.Array, counts: npt.NDArray[np.integer]) -> pa.LargeListArray:
    """Texts as lists of so many each."""
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return pa.LargeListArray.from_arrays(pa.array(ends), texts)
