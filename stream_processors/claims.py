"""What `link` claims of the candidates of whole blocks: a pure function of the candidates, by arrays and not by person.

The cohort is the spine: its subjects that share a strict token in pass 1 are one person, named by the smallest subject
reference; later passes take the person that the candidate carries. A department's subject takes the strictest match key
that finds anyone, and if none does, the near matches: one person and it is linked, several and it is ambiguous. Of two
subjects of one supplier that claim one person the strictly stricter wins; a tie links neither. A person whom a supplier
claimed in an earlier pass is closed to its other subjects. Whoever states another sex and no forename in common is not
found. A token that more subjects of one council share than its match key allows (a default value, a hostel's postcode)
is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from stream_processors.matching.catalogue import Catalogue, near_label
from stream_processors.matching.encodings import WORD_TEXT
from stream_processors.matching.near import evident, stacked
from stream_processors.matching.near_model import PassWeights
from stream_processors.matching.tokens import TOKEN_HEX_DIGITS, TOKEN_TAIL

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

OUTCOMES = ("waiting", "linked", "ambiguous", "contested")
_WAITING, _LINKED, _AMBIGUOUS, _CONTESTED = range(4)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NOBODY = -1
_PAIRS_AT_ONCE = 1_000_000
_COHORT = "cohort"


@dataclass(frozen=True)
class Rules:
    """Match keys in force, by rank (0 the strictest): ids, whether strict, and how many subjects of one council may
    share a token. near: of each pass that has near matches, its weights; their rank comes after all keys."""

    ids: tuple[str, ...]
    strict: Bools
    most: Ints
    near: Mapping[int, PassWeights]


@dataclass(frozen=True)
class Claimed:
    """rows: one for each candidate, as `claims_of` says; a table, or a frame from `claims`. crowded: blocks and their
    tokens that were over their limit, and so not used."""

    rows: Any
    crowded: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Pairs:
    """Departments' rows, the cohort's rows that they may be, and the rank of the evidence."""

    department: Ints
    cohort: Ints
    rank: Ints

    def where(self, keep: Bools) -> _Pairs:
        return _Pairs(self.department[keep], self.cohort[keep], self.rank[keep])


@dataclass(frozen=True)
class Near:
    """Rows of departments and of the cohort, and the evidence (bits) that they are one person, at or above the floor of
    their pass. Pairs of a department's row are all there or none is."""

    department: Ints
    cohort: Ints
    bits: npt.NDArray[np.float64]


NO_NEAR = Near(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class _Entries:
    """Tokens of candidates: the row, the rank of the match key, and a number for what is equal in one block."""

    row: Ints
    rank: Ints
    group: Ints

    def where(self, keep: Bools) -> _Entries:
        return _Entries(self.row[keep], self.rank[keep], self.group[keep])


@dataclass(frozen=True)
class _Codes:
    """Columns of the candidates as numbers. person: what the candidate carries, or `_NOBODY`. claims, claiming: how
    many suppliers have claimed each, and which they are."""

    block: Ints
    number: Ints
    cohort: Bools
    supplier: Ints
    suppliers: tuple[str, ...]
    claiming: Ints
    claims: Ints
    subject: Ints
    person: Ints
    refs: pa.Array

    def key(self, person: Ints, row: Ints) -> Ints:
        """A number for a person of a row's block and the row's supplier."""
        return (self.block[row] * len(self.refs) + person) * len(self.suppliers) + self.supplier[row]


def rules_of(catalogue: Catalogue) -> Rules:
    """The rules that a catalogue makes."""
    keys = catalogue.enabled
    near = {p.number: p for p in catalogue.near.passes} if catalogue.near else {}
    return Rules(
        tuple(k.id for k in keys),
        np.array([k.strict for k in keys], bool),
        np.array([k.max_persons for k in keys], np.int64),
        near,
    )


def claims(candidates: pl.DataFrame, rules: Rules, near: Near | None = None) -> Claimed:
    """`claims_of` for a frame: strings as String, lists as List; rows as a frame."""
    made = claims_of(candidates.to_arrow(), rules, near)
    return Claimed(pl.DataFrame(made.rows), made.crowded)


def claims_of(table: pa.Table, rules: Rules, near: Near | None = None) -> Claimed:
    """What is claimed of each candidate of whole blocks, the rows of one block together.

    Args:
        table: columns block (`<pass>:<anything>`), subject, supplier, role, person_ref (String), home, epoch, leading
            (Int32), expires_on (Date), tokens (List of `<match key>:<32 hex digits>`), claimed (List of String),
            statement, encoding (String). Tokens of match keys that are not in force are not looked at.
        near: what is known of near matches; without it, encodings are compared.

    Returns:
        Same rows, same order: supplier, role, expires_on, home, epoch, leading as given; outcome (String), person_ref
        and match_key (String, null unless linked; match_key is `cohort` for the spine), claimed (List of String: of the
        spine, the suppliers that claim the person in this block).
    """
    of = _coded(table)
    entries = _entries(table["tokens"], of, rules)
    spine, over = _within_limits(entries.where(of.cohort[entries.row]), of, rules)
    person = _persons(of, spine.where(rules.strict[spine.rank]))
    closed = _closed(of, person)
    statements = table["statement"].to_pylist()
    pairs = _allowed(_meet(entries.where(~of.cohort[entries.row]), spine), of, person, closed, statements)
    if rules.near:
        near = near or _near_pairs(pairs, table["encoding"], of, rules)
        pairs = _with_near(pairs, near, of, person, closed, statements, rules)
    best = np.full(len(of.block), np.iinfo(np.int64).max)
    np.minimum.at(best, pairs.department, pairs.rank)
    pairs = pairs.where(pairs.rank == best[pairs.department])
    outcome = np.full(len(of.block), _WAITING, np.int8)
    least, greatest = np.full(len(of.block), len(of.refs)), np.full(len(of.block), _NOBODY)
    np.minimum.at(least, pairs.department, person[pairs.cohort])
    np.maximum.at(greatest, pairs.department, person[pairs.cohort])
    outcome[greatest > least] = _AMBIGUOUS
    lone = np.flatnonzero(least == greatest)
    outcome[lone] = np.where(_wins(of.key(least[lone], lone), best[lone]), _LINKED, _CONTESTED)
    linked = np.where(outcome == _LINKED, least, np.where(of.cohort, person, _NOBODY))
    outcome[of.cohort] = _LINKED
    labels = (*rules.ids, *(near_label(number) for number in sorted(rules.near)), _COHORT)
    label = np.where(of.cohort, len(labels) - 1, np.where(outcome == _LINKED, best, _NOBODY))
    rows = pa.table(
        {
            "supplier": table["supplier"],
            "role": table["role"],
            "expires_on": table["expires_on"],
            "outcome": _words(OUTCOMES, outcome),
            "person_ref": of.refs.take(_or_null(linked)),
            "match_key": _words(labels, label),
            "claimed": _claimed(of, person, lone, least),
            "home": table["home"],
            "epoch": table["epoch"],
            "leading": table["leading"],
        }
    )
    return Claimed(rows, _told(over, table, rules))


def spine_of(table: pa.Table) -> pa.Table:
    """`claims_of` for cohort candidates that carry their persons, while no department's subject is in their blocks:
    then each stands for itself, and what else is in its block does not matter."""
    none = pa.ListArray.from_arrays(pa.array(np.zeros(len(table) + 1, np.int32)), pa.array([], pa.string()))
    return pa.table(
        {
            "supplier": table["supplier"],
            "role": table["role"],
            "expires_on": table["expires_on"],
            "outcome": pa.repeat(pa.scalar(OUTCOMES[_LINKED]), len(table)),
            "person_ref": table["person_ref"],
            "match_key": pa.repeat(pa.scalar(_COHORT), len(table)),
            "claimed": none,
            "home": table["home"],
            "epoch": table["epoch"],
            "leading": table["leading"],
        }
    )


def _coded(candidates: pa.Table) -> _Codes:
    block = _encoded(candidates["block"])
    passes = [int(name.partition(":")[0]) for name in block.dictionary.to_pylist()]
    refs = pc.unique(pa.concat_arrays([_flat(candidates["subject"]), _flat(candidates["person_ref"])])).drop_null()
    refs = refs.take(pc.sort_indices(refs))
    names = pa.concat_arrays([_flat(candidates["supplier"]), _flat(candidates["claimed"]).flatten()])
    supplier = _encoded(names)
    codes = block.indices.to_numpy().astype(np.int64)
    return _Codes(
        block=codes,
        number=np.array(passes, np.int64)[codes],
        cohort=_flat(pc.equal(candidates["role"], "cohort")).to_numpy(zero_copy_only=False),
        supplier=supplier.indices.to_numpy()[: len(codes)].astype(np.int64),
        claiming=supplier.indices.to_numpy()[len(codes) :].astype(np.int64),
        claims=_lengths(candidates["claimed"]),
        suppliers=tuple(supplier.dictionary.to_pylist()),
        subject=_places(candidates["subject"], refs),
        person=_places(candidates["person_ref"], refs),
        refs=refs,
    )


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _encoded(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    return pc.dictionary_encode(_flat(column) if isinstance(column, pa.ChunkedArray) else column)


def _places(column: pa.ChunkedArray, of: pa.Array) -> Ints:
    """Where each value stands in an array of values; `_NOBODY` for a null."""
    return np.asarray(pc.index_in(_flat(column), of).fill_null(_NOBODY).to_numpy().astype(np.int64), np.int64)


def _lengths(column: pa.ChunkedArray) -> Ints:
    return np.asarray(pc.list_value_length(_flat(column)).to_numpy(zero_copy_only=False).astype(np.int64), np.int64)


def _entries(tokens: pa.ChunkedArray, of: _Codes, rules: Rules) -> _Entries:
    """Tokens of the match keys in force. Half of a token's 128 bits tell it apart: among a million of a batch, the
    chance that any two others are taken for equal is 3 in 100 million."""
    flat = _flat(tokens).flatten()
    row = np.repeat(np.arange(len(of.block)), _lengths(tokens))
    octets = flat.cast(pa.large_binary())
    labels = pc.binary_slice(octets, 0, -TOKEN_TAIL)
    rank = pc.index_in(labels, pa.array(rules.ids, labels.type)).fill_null(_NOBODY).to_numpy().astype(np.int64)
    hexes = _joined(pc.binary_slice(octets, -TOKEN_HEX_DIGITS, -TOKEN_HEX_DIGITS // 2))
    half = np.frombuffer(bytes.fromhex(hexes.decode()), "<u8")
    same = half + (of.block[row] * len(rules.ids) + rank).astype(np.uint64) * _GOLDEN
    group = pc.dictionary_encode(pa.array(same)).indices.to_numpy().astype(np.int64)
    # Most tokens are nobody else's, and connect nobody.
    return _Entries(row, rank, group).where((rank >= 0) & (np.bincount(group)[group] > 1))


def _joined(values: pa.LargeBinaryArray) -> bytes:
    """What an array holds, one after the other; none is null."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return b""
    ends = np.frombuffer(offsets, np.int64)
    low, high = ends[values.offset], ends[values.offset + len(values)]
    return bytes(data.slice(int(low), int(high - low)).to_pybytes())


def _within_limits(spine: _Entries, of: _Codes, rules: Rules) -> tuple[_Entries, _Entries]:
    """The spine's tokens without those that too many subjects of one council share, and one entry of each of these."""
    shared = np.flatnonzero(np.bincount(spine.group)[spine.group] > 1) if len(spine.group) else spine.group
    each = spine.group[shared] * len(of.suppliers) + of.supplier[spine.row[shared]]
    _, first, counts = np.unique(each, return_index=True, return_counts=True)
    first = shared[first]
    over = first[counts > rules.most[spine.rank[first]]]
    if not len(over):
        return spine, spine.where(np.zeros(len(spine.group), bool))
    groups, at = np.unique(spine.group[over], return_index=True)
    crowded = np.zeros(len(spine.group), bool)
    crowded[over[at]] = True
    return spine.where(~np.isin(spine.group, groups)), spine.where(crowded)


def _told(entries: _Entries, table: pa.Table, rules: Rules) -> tuple[tuple[str, str], ...]:
    """Block and token of entries; a candidate has one token of a match key."""
    out = []
    for row, rank in zip(entries.row.tolist(), entries.rank.tolist(), strict=True):
        name = rules.ids[rank]
        token = next(t for t in table["tokens"][row].as_py() if t[:-TOKEN_TAIL] == name)
        out.append((table["block"][row].as_py(), token))
    return tuple(out)


def _persons(of: _Codes, strict: _Entries) -> Ints:
    """Person of each cohort candidate: what it carries, or else the smallest subject among those that strict tokens
    connect; `_NOBODY` for departments.

    Connected components by repeated minimum over shared tokens; a chain of n subjects takes at most n rounds.
    """
    person = np.where(of.cohort, np.where(of.person == _NOBODY, of.subject, of.person), _NOBODY)
    strict = strict.where(of.person[strict.row] == _NOBODY)
    _, group, counts = np.unique(strict.group, return_inverse=True, return_counts=True)
    shared = counts[group] > 1
    row, group = strict.row[shared], group[shared]
    while len(row):
        least = np.full(len(counts), len(of.refs))
        np.minimum.at(least, group, person[row])
        nearer = person.copy()
        np.minimum.at(nearer, row, least[group])
        if (nearer == person).all():
            break
        person = nearer
    return person


def _closed(of: _Codes, person: Ints) -> Ints:
    """`_Codes.key` of the persons and suppliers that an earlier pass has brought together."""
    row = np.repeat(np.arange(len(of.block)), of.claims)
    return np.asarray((of.block[row] * len(of.refs) + person[row]) * len(of.suppliers) + of.claiming, np.int64)


def _meet(departments: _Entries, spine: _Entries) -> _Pairs:
    """Pairs that share a token."""
    rows = spine.row[np.argsort(spine.group, kind="stable")]
    groups = 1 + max(spine.group.max(initial=-1), departments.group.max(initial=-1))
    counts = np.bincount(spine.group, minlength=groups)
    start, count = (np.cumsum(counts) - counts)[departments.group], counts[departments.group]
    return _Pairs(np.repeat(departments.row, count), rows[_ranges(start, count)], np.repeat(departments.rank, count))


def _ranges(start: Ints, count: Ints) -> Ints:
    """start[0], start[0] + 1... `count[0]` of them, and so on."""
    before = np.cumsum(count) - count
    return np.asarray(np.arange(count.sum()) + np.repeat(start - before, count), np.int64)


def _allowed(pairs: _Pairs, of: _Codes, person: Ints, closed: Ints, statements: list[str]) -> _Pairs:
    """Pairs without persons who are closed to the supplier, and without contradictions."""
    if len(closed):
        pairs = pairs.where(~np.isin(of.key(person[pairs.cohort], pairs.department), closed))
    if not len(pairs.department):
        return pairs
    unstated = "0" * WORD_TEXT
    sex = np.frombuffer(bytes.fromhex("".join([(s or unstated)[:WORD_TEXT] for s in statements])), "<u4")
    a, b = sex[pairs.department], sex[pairs.cohort]
    doubtful = np.flatnonzero((a != b) & (a != 0) & (b != 0))
    if not len(doubtful):
        return pairs
    keep = np.ones(len(a), bool)
    for i in doubtful.tolist():
        keep[i] = not _contradict(statements[pairs.department[i]], statements[pairs.cohort[i]])
    return pairs.where(keep)


def _contradict(a: str, b: str) -> bool:
    """No forename in common, of two who state one and another sex."""
    mine, other = ({s[i : i + WORD_TEXT] for i in range(WORD_TEXT, len(s), WORD_TEXT)} for s in (a, b))
    return bool(mine and other) and mine.isdisjoint(other)


def _near_pairs(pairs: _Pairs, encodings: pa.ChunkedArray, of: _Codes, rules: Rules) -> Near:
    """All pairs of a block that evidence speaks for, of departments' subjects whom no match key has found anyone
    for."""
    found = np.zeros(len(of.block), bool)
    found[pairs.department] = True
    texts = _flat(encodings)
    encoded = pc.not_equal(texts, "").fill_null(False).to_numpy(zero_copy_only=False)
    made = [NO_NEAR]
    for number, weights in rules.near.items():
        here = encoded & (of.number == number)
        departments, cohort = np.flatnonzero(here & ~of.cohort & ~found), np.flatnonzero(here & of.cohort)
        if not len(departments) or not len(cohort):
            continue
        start = np.searchsorted(of.block[cohort], of.block[departments], "left")
        count = np.searchsorted(of.block[cohort], of.block[departments], "right") - start
        filters = stacked(texts.take(pa.array(np.concatenate([departments, cohort]))).to_pylist())
        # Some at a time: two crowded blocks have more pairs than fit in memory.
        parts = np.flatnonzero(np.diff(np.cumsum(count) // _PAIRS_AT_ONCE, prepend=-1))
        for some in np.split(np.arange(len(departments)), parts[1:]):
            first, second = np.repeat(some, count[some]), _ranges(start[some], count[some])
            enough, bits = evident(filters, first, len(departments) + second, weights)
            made.append(Near(departments[first[enough]], cohort[second[enough]], bits))
    return Near(*(np.concatenate([getattr(n, name) for n in made]) for name in ("department", "cohort", "bits")))


def _with_near(
    pairs: _Pairs, near: Near, of: _Codes, person: Ints, closed: Ints, statements: list[str], rules: Rules
) -> _Pairs:
    """And near matches for those whom no match key has found anyone."""
    found = np.zeros(len(of.block), bool)
    found[pairs.department] = True
    at = np.flatnonzero(~found[near.department])
    open_ = _allowed(_Pairs(near.department[at], near.cohort[at], at), of, person, closed, statements)
    made = [pairs]
    for i, (number, weights) in enumerate(sorted(rules.near.items())):
        here = open_.where(of.number[open_.department] == number)
        made.append(_decisive(here, near.bits[here.rank], weights, len(rules.ids) + i))
    return _Pairs(
        np.concatenate([p.department for p in made]),
        np.concatenate([p.cohort for p in made]),
        np.concatenate([p.rank for p in made]),
    )


def _decisive(near: _Pairs, bits: npt.NDArray[np.float64], weights: PassWeights, rank: int) -> _Pairs:
    """Pairs within the margin of the best of each department's row, if that is enough for a link."""
    size = int(near.department.max()) + 1 if len(near.department) else 0
    best = np.full(size, -np.inf)
    np.maximum.at(best, near.department, bits)
    best = best[near.department]
    # A second subject of the same person is no rival, and a rival within the margin makes the answer ambiguous.
    keep = (best >= weights.threshold) & (bits > best - weights.margin)
    return _Pairs(near.department[keep], near.cohort[keep], np.full(int(keep.sum()), rank))


def _wins(claim: Ints, rank: Ints) -> Bools:
    """Of equal claims, which is the only one of the strictest rank."""
    _, group = np.unique(claim, return_inverse=True)
    least = np.full(len(claim), np.iinfo(np.int64).max)
    np.minimum.at(least, group, rank)
    strictest = rank == least[group]
    ties = np.bincount(group[strictest], minlength=len(claim))
    return np.asarray(strictest & (ties[group] == 1), bool)


def _claimed(of: _Codes, person: Ints, lone: Ints, found: Ints) -> pa.Array:
    """Suppliers that claim the person of each cohort candidate in its block, in alphabetical order."""
    order = np.argsort(np.array(of.suppliers, object), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    who = of.block[lone] * len(of.refs) + found[lone]
    claims = np.unique(who * len(order) + rank[of.supplier[lone]])
    at = np.where(of.cohort, of.block * len(of.refs) + person, _NOBODY)
    start = np.searchsorted(claims, at * len(order))
    count = np.searchsorted(claims, (at + 1) * len(order)) - start
    ends = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    names = pa.array(np.array(of.suppliers, object)[order], pa.string())
    return pa.ListArray.from_arrays(pa.array(ends), names.take(pa.array(claims[_ranges(start, count)] % len(order))))


def _words(words: tuple[str, ...], at: npt.NDArray[np.integer]) -> pa.Array:
    return pa.array(words, pa.string()).take(_or_null(at))


def _or_null(at: npt.NDArray[np.integer]) -> pa.Array:
    """Indices to take, null where there is nothing."""
    return pa.array(at, pa.int64(), mask=at < 0)
