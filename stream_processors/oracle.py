"""The oracle: what `research.person` must hold at rest, worked out from plain tables.

The processors keep this function up to date record by record; here it is written a second time, in one go, from the
specification: no topic, no state, no partition. It shares with them only what is a function of one value (cleaning,
tokens, encodings, references), so that a mistake in how records meet, move or leave shows up as a difference.
"""

from __future__ import annotations

import datetime
import io
import math
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import polars as pl

from schemas import contracts, wire
from schemas.contracts import Contract
from stream_processors.erasure.suppression import SuppressionKeys
from stream_processors.matching.catalogue import Catalogue, MatchKey, near_label
from stream_processors.matching.encodings import NARROW_BITS, WIDE_BITS, Encoder
from stream_processors.matching.near_model import CUTS, EXCHANGED, LEVELS, OTHERS, PassWeights
from stream_processors.matching.normalise import normalise
from stream_processors.matching.tokens import TokenKeys, tokenise
from stream_processors.refs import Refs, ResearchIds

Row = Mapping[str, Any]
Records = Mapping[str, Mapping[str, Sequence[Row]]]
"""Supplier to dataset to live rows, the last of each key, with the contract's field names."""
RECEIVED = "@received"
"""Beside a row's fields: the day on which the broker took it."""
Link = tuple[str, str | None, str | None]
"""Outcome; the match key that found anyone (`cohort` for the spine) and the person, where linked."""

_IDENTITY = {
    "forename": pl.String,
    "middle_names": pl.String,
    "surname": pl.String,
    "date_of_birth": pl.Date,
    "sex": pl.String,
    "postcode": pl.String,
}
_EARLIEST_EVENT = datetime.date(1950, 1, 1)
_BIRTH_YEARS = range(1880, 2031)
_CRITERIA = ("crime", "education", "children", "work", "abuse", "health")
_ARRAYS = ("safeguarding", "absence", "exclusion", "attainment", "offence", "benefit", "employment", "contact")


@dataclass(frozen=True)
class Oracle:
    """What must be.

    `persons`: research records by person id, as `research.person` decodes. `links`: what is claimed of each live
    subject, by supplier and the supplier's own id. `subject_refs`: the reference of each of them.
    """

    persons: dict[str, dict[str, Any]]
    links: dict[tuple[str, str], Link]
    subject_refs: dict[tuple[str, str], str]

    def outcomes(self) -> dict[str, dict[str, int]]:
        """Subjects of each supplier by match key if linked, else by outcome; no zeros."""
        counts: dict[str, Counter[str]] = {}
        for (supplier, _), (outcome, match_key, _) in self.links.items():
            counts.setdefault(supplier, Counter())[match_key or outcome] += 1
        return {supplier: dict(c) for supplier, c in counts.items()}


@dataclass(frozen=True)
class Widen:
    """How areas are widened: fewest people of a partition that may share birth year, sex and area; partition of a
    person; LSOA, MSOA and local authority by LSOA."""

    k: int
    partition: Callable[[str], int]
    wider: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class _Subject:
    """A person as one supplier knows them. `born`: date of birth without default dates. `postcode`: clean.
    `tokens`: by match key. `blocks`, `statements`, `encodings`: by pass.
    """

    supplier: str
    id: str
    ref: str
    record_ref: str
    family_ref: str | None
    blocks: dict[int, str]
    tokens: dict[str, str]
    statements: dict[int, str]
    encodings: dict[int, str]
    born: datetime.date | None
    postcode: str | None
    row: Row

    @property
    def cohort(self) -> bool:
        return contracts.kind_of(self.supplier) == "council"


def research(
    records: Records,
    token_key: bytes,
    research_key: bytes,
    catalogue: Catalogue,
    areas: Mapping[str, str],
    keys: TokenKeys | None = None,
    widen: Widen | None = None,
    *,
    policy: Mapping[str, Any] | None = None,
    as_of: datetime.date | None = None,
    suppressed: frozenset[str] = frozenset(),
) -> Oracle:
    """The research records of live supplier records, and the links that make them.

    `areas`: LSOA by clean postcode. `keys`: of tokens; without, those of the first epoch under the token key. `widen`:
    how areas are widened, if they are. With a policy (the content of `retention.yaml`) and a day, records that have
    expired by it are not there; each row then says under `RECEIVED` on which day it was received. `suppressed`: hashes
    of subjects and strict tokens that are refused.
    """
    if suppressed:
        records = _let_in(records, suppressed, SuppressionKeys(token_key, catalogue))
    if policy is not None and as_of is not None:
        records = _held(records, policy, as_of)
    subjects = _subjects(records, keys or TokenKeys(token_key, 1), Refs(token_key), catalogue)
    links = _link(subjects, catalogue)
    facts: dict[str, list[_Subject]] = defaultdict(list)
    for subject in subjects:
        person = links[subject.supplier, subject.id][2]
        # The guard lets no year of birth through that no living person has.
        if person is not None and (subject.born is None or subject.born.year in _BIRTH_YEARS):
            facts[person].append(subject)
    events: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: {name: [] for name in _ARRAYS})
    for supplier, datasets in records.items():
        for dataset, rows in datasets.items():
            if dataset == "person":
                continue
            subject_field = contracts.identified(supplier, dataset).subject_field
            for row in rows:
                person = links.get((supplier, row[subject_field]), ("", None, None))[2]
                if person is not None:
                    events[person][dataset].append(_GENERALISED[dataset](row))
    spine = {person: of for person, of in facts.items() if any(s.cohort for s in of)}
    ids = _pseudonyms(ResearchIds(research_key).person, spine)
    families = _pseudonyms(ResearchIds(research_key).family, {s.family_ref for s in subjects if s.family_ref})
    persons: dict[str, dict[str, Any]] = {}
    homes: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for person, of in spine.items():
        facts_of = _person_facts(of, families, areas)
        start = facts_of["programme_start_month"]
        arrays = {
            name: sorted(({**item, "months_from_start": _distance(start, item)} for item in items), key=_array_order)
            for name, items in events[person].items()
        }
        persons[ids[person]] = {"person_id": ids[person], **facts_of, **arrays}
        if widen:
            homes[widen.partition(person)].append(persons[ids[person]])
    if widen:
        for members in homes.values():
            widen_areas(members, widen)
    return Oracle(persons, links, {(s.supplier, s.id): s.ref for s in subjects})


def rows_of(
    contract: Contract, values: Iterable[bytes], writer: Callable[[int], Any] | None = None
) -> list[dict[str, Any]]:
    """Rows of a compacted identified topic, read by the reference codec, without those that belong in quarantine.

    Args:
        contract: what the rows are read as.
        values: framed values, the last of each key, without tombstones.
        writer: the parsed schema of an id, for topics with values of older versions of the contract. It raises
            LookupError for an id that nobody registered.
    """
    rows = []
    for value in values:
        try:
            written = writer(wire.schema_id(value)) if writer else contract.parsed
            stream = io.BytesIO(value[wire.HEADER_BYTES :])
            row = fastavro.schemaless_reader(stream, written, contract.parsed)
        except Exception:  # noqa: S112  (fastavro raises IndexError, EOFError, struct.error and more)
            continue
        if isinstance(row, dict) and value[:1] == b"\x00" and not stream.read(1) and _in_domain(contract, row):
            rows.append(row)
    return rows


def equal(oracle: Oracle, decoded: Mapping[str, Row]) -> list[str]:
    """Where decoded research records, by person id, differ from the oracle's: person ids and fields, never values.

    The items of an array are compared as a multiset, and their months must ascend.
    """
    out = [f"{p}: is missing" for p in sorted(oracle.persons.keys() - decoded.keys())]
    out += [f"{p}: should not be there" for p in sorted(decoded.keys() - oracle.persons.keys())]
    for person in sorted(oracle.persons.keys() & decoded.keys()):
        should, found = oracle.persons[person], decoded[person]
        if should.keys() != found.keys():
            out.append(f"{person}: has other fields")
            continue
        for name in should:
            if name not in _ARRAYS:
                same = should[name] == found[name]
            else:
                months = [_month_order(item) for item in found[name]]
                same = Counter(map(_item, should[name])) == Counter(map(_item, found[name]))
                if months != sorted(months):
                    out.append(f"{person}: {name} is not in order of months")
            if not same:
                out.append(f"{person}: {name} differs")
    return out


def equal_links(oracle: Oracle, decoded: Mapping[str, Row]) -> list[str]:
    """Where decoded links, by subject reference, differ from the oracle's: references and fields, never values."""
    should = {ref: (subject[0], *oracle.links[subject]) for subject, ref in oracle.subject_refs.items()}
    out = [f"{ref}: is missing" for ref in sorted(should.keys() - decoded.keys())]
    out += [f"{ref}: should not be there" for ref in sorted(decoded.keys() - should.keys())]
    for ref in sorted(should.keys() & decoded.keys()):
        fields = ("supplier", "outcome", "match_key", "person_ref")
        wrong = [f for f, value in zip(fields, should[ref], strict=True) if decoded[ref][f] != value]
        out += [f"{ref}: {f} differs" for f in wrong]
    return out


# Retention -----------------------------------------------------------------------------------------------------------


def _held(records: Records, policy: Mapping[str, Any], as_of: datetime.date) -> Records:
    return {
        supplier: {
            dataset: [r for r in rows if _expires_on(contracts.identified(supplier, dataset), r, policy) > as_of]
            for dataset, rows in datasets.items()
        }
        for supplier, datasets in records.items()
    }


def _expires_on(contract: Contract, row: Row, policy: Mapping[str, Any]) -> datetime.date:
    period = policy["periods"][contract.name.removeprefix("identified/")]
    stop: datetime.date = policy["hard_stop"]
    start: datetime.date = row[RECEIVED]
    if period["after"] == "event" and contract.anchor_field is not None:
        anchor = row.get(contract.anchor_field)
        if anchor is not None and anchor >= _EARLIEST_EVENT:
            start = anchor
    return stop if start >= stop else min(stop, start + datetime.timedelta(period["days"]))


# Erasure -------------------------------------------------------------------------------------------------------------


def _let_in(records: Records, suppressed: frozenset[str], keys: SuppressionKeys) -> Records:
    """Without whom an order has erased: a subject by its id, or by the details of its person record."""
    out: dict[str, dict[str, list[Row]]] = {}
    for supplier, datasets in records.items():
        refused: set[str] = set()
        id_field = contracts.identified(supplier, "person").subject_field
        for row in datasets.get("person", ()):
            details = {n: pl.Series([row.get(n)], dtype=t) for n, t in _IDENTITY.items()}
            if suppressed.intersection(keys.tokens(pl.DataFrame(details))[0]):
                refused.add(row[id_field])
        for dataset, rows in datasets.items():
            field = contracts.identified(supplier, dataset).subject_field
            of = [r[field] for r in rows]
            hashes = pl.DataFrame({"id": pl.Series(of, dtype=pl.String)}).select(keys.subject(supplier, pl.col("id")))
            out.setdefault(supplier, {})[dataset] = [
                row
                for row, id_, hash_ in zip(rows, of, hashes.to_series(), strict=True)
                if id_ not in refused and hash_ not in suppressed
            ]
    return out


# Subjects ------------------------------------------------------------------------------------------------------------


def _subjects(records: Records, keys: TokenKeys, refs: Refs, catalogue: Catalogue) -> list[_Subject]:
    encoder = Encoder(catalogue, keys, encodings=catalogue.near is not None)
    people = {supplier: datasets["person"] for supplier, datasets in records.items() if datasets.get("person")}
    if not people:
        return []
    frames = []
    for supplier, rows in people.items():
        id_field = contracts.identified(supplier, "person").subject_field
        frames.append(
            pl.DataFrame(
                {
                    "id": pl.Series([r[id_field] for r in rows], dtype=pl.String),
                    "family": pl.Series([r.get("family_id") for r in rows], dtype=pl.String),
                    **{n: pl.Series([r.get(n) for r in rows], dtype=t) for n, t in _IDENTITY.items()},
                }
            ).with_columns(supplier=pl.lit(supplier))
        )
    encoded = encoder.encode(tokenise(normalise(pl.concat(frames)), catalogue, keys))
    out = []
    for supplier, rows in people.items():
        named = encoded.filter(pl.col("supplier") == supplier).select(
            "id",
            refs.subject(supplier, pl.col("id")).alias("ref"),
            refs.record(supplier, "person", pl.col("id"), pl.lit("")).alias("record_ref"),
            refs.family(supplier, pl.col("family")).alias("family_ref"),
            "blocks",
            "tokens",
            "statements",
            "encodings",
            "clean_dob",
            "clean_postcode",
        )
        for row, made in zip(rows, named.iter_rows(), strict=True):
            id_, ref, record_ref, family_ref, blocks, tokens, statements, encodings, born, postcode = made
            by_key = dict(t.split(":") for t in tokens)
            by_pass = {int(b.partition(":")[0]): b for b in blocks}
            stated = dict(zip(by_pass, statements, strict=True))
            filters = dict(zip(by_pass, encodings, strict=False))
            out.append(
                _Subject(
                    supplier, id_, ref, record_ref, family_ref, by_pass, by_key, stated, filters, born, postcode, row
                )
            )
    return out


# Linking -------------------------------------------------------------------------------------------------------------


def _link(subjects: Sequence[_Subject], catalogue: Catalogue) -> dict[tuple[str, str], Link]:
    """What is claimed of each subject in the end, pass after pass. Only subjects of one block can meet."""
    links: dict[tuple[str, str], Link] = {}
    person_of: dict[str, str] = {}
    for members in _blocks([s for s in subjects if s.cohort], 1).values():
        person_of.update(_persons(members, catalogue))
    claimed: dict[str, set[str]] = {s.ref: set() for s in subjects if s.cohort}
    for s in subjects:
        if s.cohort:
            person_of.setdefault(s.ref, s.ref)
            links[s.supplier, s.id] = ("linked", "cohort", person_of[s.ref])
        else:
            links[s.supplier, s.id] = ("waiting", None, None)
    for p in catalogue.passes:
        keys = [key for key in catalogue.enabled if key.pass_number == p.number]
        entering = [s for s in subjects if s.cohort or links[s.supplier, s.id][0] == "waiting"]
        for members in _blocks(entering, p.number).values():
            near = catalogue.near.of(p.number) if catalogue.near else None
            _link_block(members, p.number, keys, near, person_of, claimed, links)
    return links


def _blocks(subjects: Iterable[_Subject], number: int) -> dict[str, list[_Subject]]:
    out: dict[str, list[_Subject]] = defaultdict(list)
    for s in subjects:
        if number in s.blocks:
            out[s.blocks[number]].append(s)
    return out


def _link_block(
    members: Sequence[_Subject],
    number: int,
    keys: Sequence[MatchKey],
    near: PassWeights | None,
    person_of: Mapping[str, str],
    claimed: dict[str, set[str]],
    links: dict[tuple[str, str], Link],
) -> None:
    """One block of one pass: set the links of the departments' subjects, and add to who has claimed the cohort's."""
    cohort = [s for s in members if s.cohort]
    having_token: dict[tuple[str, str], list[_Subject]] = {}
    for key in keys:
        for value, having in _sharing(cohort, key).items():
            if not _crowded(having, key):
                having_token[key.id, value] = having
    closed: dict[str, set[str]] = defaultdict(set)
    for s in cohort:
        closed[person_of[s.ref]] |= claimed[s.ref]
    # Each department's subject: the strictest match key that finds anyone who may be found, else the near matches.
    claims: dict[tuple[str, str], list[tuple[int, str, _Subject]]] = defaultdict(list)
    for s in members:
        if s.cohort:
            continue

        def may_be(c: _Subject, s: _Subject = s) -> bool:
            return s.supplier not in closed[person_of[c.ref]] and not _contradict(s, c, number)

        for rank, key in enumerate(keys):  # noqa: B007  (read after the loop)
            having = having_token.get((key.id, s.tokens[key.id]), []) if key.id in s.tokens else []
            found = {person_of[c.ref] for c in having if may_be(c)}
            if found:
                label = key.id
                break
        else:
            rank, label = len(keys), near_label(number)
            found = _near(s, [c for c in cohort if may_be(c)], number, near, person_of) if near else set()
        if len(found) > 1:
            links[s.supplier, s.id] = ("ambiguous", None, None)
        elif found:
            claims[s.supplier, next(iter(found))].append((rank, label, s))
    # Of one supplier's subjects that claim one person, one alone at the strictest rank wins.
    for (supplier, person), rivals in claims.items():
        strictest = min(rank for rank, _, _ in rivals)
        tie = sum(rank == strictest for rank, _, _ in rivals) > 1
        for rank, label, s in rivals:
            won = rank == strictest and not tie
            links[s.supplier, s.id] = ("linked", label, person) if won else ("contested", None, None)
        for s in cohort:
            if person_of[s.ref] == person:
                claimed[s.ref].add(supplier)


def _contradict(a: _Subject, b: _Subject, number: int) -> bool:
    """Both state a sex and it is another, both state forenames and none is the same."""
    (sex, *names), (other_sex, *other_names) = (_words_of(s.statements[number]) for s in (a, b))
    stated = sex != other_sex and "0" * 8 not in (sex, other_sex)
    return stated and bool(names) and bool(other_names) and not set(names) & set(other_names)


def _words_of(statement: str) -> list[str]:
    return [statement[i : i + 8] for i in range(0, len(statement), 8)]


def _near(
    s: _Subject, cohort: Sequence[_Subject], number: int, near: PassWeights, person_of: Mapping[str, str]
) -> set[str]:
    """Persons for whom the evidence is the best or within the margin of it, if the best is enough."""
    bits = [(_evidence(s.encodings[number], c.encodings[number], near), person_of[c.ref]) for c in cohort]
    best = max((b for b, _ in bits), default=-math.inf)
    return {person for b, person in bits if b > best - near.margin} if best >= near.threshold else set()


def _evidence(a: str, b: str, near: PassWeights) -> float:
    """What the two encodings are worth, in bits; by the rules of `matching/near.py`."""
    mine, other = _filters(a), _filters(b)
    levels = {field: _level(field, mine[field], other[field]) for field in LEVELS}
    alike = 1 + LEVELS["forename"].index("alike")
    if min(levels["forename"], levels["surname"]) > alike and all(
        _dice(mine[f], other[g]) >= EXCHANGED for f, g in (("forename", "surname"), ("surname", "forename"))
    ):
        levels["forename"] = levels["surname"] = 1 + LEVELS["forename"].index("exchanged")
    if near.home and levels["postcode"] == len(LEVELS["postcode"]) and levels["middle_names"] != 1:
        return -math.inf
    if any(levels[field] == 1 for field in near.met):
        return -math.inf
    total = 0.0
    for kind in OTHERS:
        weights = near.against[kind]
        total += near.shares[kind] * 2 ** -sum(weights[f][level - 1] for f, level in levels.items() if level)
    return round(-math.log2(total), 2)


def _filters(encoding: str) -> dict[str, int]:
    """Each field's bits, as a number."""
    raw, at, out = b64decode(encoding), 0, {}
    for i, field in enumerate(LEVELS):
        size = (WIDE_BITS if i < 4 else NARROW_BITS) // 8
        out[field], at = int.from_bytes(raw[at : at + size], "big"), at + size
    return out


def _dice(a: int, b: int) -> float:
    return 2 * (a & b).bit_count() / (a.bit_count() + b.bit_count())


def _level(field: str, a: int, b: int) -> int:
    """0 if a side lacks the field, 1 for equal filters (of middle names: one in common), and so on."""
    if not a or not b:
        return 0
    dice = _dice(a, b)
    if field == "middle_names":
        return 1 if dice >= CUTS[field][0] else 2
    return 1 + sum(dice < cut for cut in (1.0, *CUTS[field]))


def _sharing(cohort: Iterable[_Subject], key: MatchKey) -> dict[str, list[_Subject]]:
    """Token of one match key to the subjects that have it."""
    out: dict[str, list[_Subject]] = defaultdict(list)
    for s in cohort:
        if key.id in s.tokens:
            out[s.tokens[key.id]].append(s)
    return out


def _crowded(having: Sequence[_Subject], key: MatchKey) -> bool:
    """Whether more subjects of one council share a token than its match key allows."""
    return max(Counter(s.supplier for s in having).values()) > key.max_persons


def _persons(cohort: Sequence[_Subject], catalogue: Catalogue) -> dict[str, str]:
    """Person of each cohort subject of a block: the smallest reference among those that chains of strict tokens
    reach."""
    neighbours: dict[tuple[str, str], list[_Subject]] = {}
    for key in catalogue.enabled:
        if key.strict:
            shared = {(key.id, value): having for value, having in _sharing(cohort, key).items()}
            neighbours.update({token: having for token, having in shared.items() if not _crowded(having, key)})
    person_of: dict[str, str] = {}
    for start in sorted(cohort, key=lambda s: s.ref):  # the smallest of each cluster comes first
        reached = [start]
        while reached:
            s = reached.pop()
            if s.ref not in person_of:
                person_of[s.ref] = start.ref
                for token in s.tokens.items():
                    reached += [n for n in neighbours.pop(token, ()) if n.ref not in person_of]
    return person_of


# Areas ---------------------------------------------------------------------------------------------------------------


def widen_areas(people: Sequence[dict[str, Any]], widen: Widen) -> None:
    """Set the areas of the people of one partition so that k of them share birth year, sex and area, or have none of
    them."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    steps: dict[str, Sequence[str]] = {}
    for row in people:
        steps[row["area"]] = widen.wider.get(row["area"], (row["area"],) * 3)
        groups[row["birth_year"], row["sex"], steps[row["area"]][2]].append(row)
    for group in groups.values():
        step = {row["area"]: 0 for row in group}

        def sizes(step: Mapping[str, int] = step, group: Sequence[Row] = group) -> Counter[tuple[int, str]]:
            return Counter((step[row["area"]], steps[row["area"]][step[row["area"]]]) for row in group)

        for at in (0, 1):
            found = sizes()
            for area in step:
                if step[area] == at and found[at, steps[area][at]] < widen.k:
                    step[area] = at + 1
        while 0 < sum(n for (at, _), n in sizes().items() if at == 2) < widen.k:
            others = sorted((n, code, at) for (at, code), n in sizes().items() if at < 2)
            if not others:
                step = dict.fromkeys(step, 3)
                break
            _, code, at = others[0]
            step.update({area: 2 for area in step if step[area] == at and steps[area][at] == code})
        for row in group:
            at = step[row["area"]]
            if at == 3:
                row.update(birth_year=None, sex=None, area=None)
            else:
                row["area"] = steps[row["area"]][at]


# Generalisation ------------------------------------------------------------------------------------------------------


def _month(day: datetime.date | None) -> datetime.date | None:
    """First day of the month; nothing before 1950, where only default dates lie."""
    return None if day is None or day < _EARLIEST_EVENT else day.replace(day=1)


def _person_facts(of: Sequence[_Subject], families: Mapping[str, str], areas: Mapping[str, str]) -> dict[str, Any]:
    """The head of a research record.

    One cohort record speaks: a participant's before a comparison's, then the earliest start, then the smallest
    reference. Year of birth and sex may come from the next of them, and from departments after them all.
    """

    def turn(s: _Subject) -> tuple[bool, bool, datetime.date, str]:
        start = _month(s.row.get("programme_start")) or datetime.date.max
        return not s.cohort, s.row.get("programme_status") != "participant", start, s.record_ref

    ordered = sorted(of, key=turn)
    first = ordered[0]
    return {
        "family_id": families.get(first.family_ref or ""),
        "programme_status": first.row["programme_status"],
        "programme_start_month": _month(first.row.get("programme_start")),
        **{f"criterion_{c}": first.row.get(f"criterion_{c}") for c in _CRITERIA},
        "birth_year": next((s.born.year for s in ordered if s.born), None),
        "sex": next((s.row["sex"] for s in ordered if s.row.get("sex")), None),
        "area": areas.get(first.postcode or "", first.supplier.removeprefix("council-")),
    }


def _distance(start: datetime.date | None, item: Row) -> int | None:
    """Months from the programme's start to the item's first month; none beyond a century."""
    month = item[next(name for name in item if name.endswith("month"))]
    if start is None or month is None:
        return None
    months = (month.year - start.year) * 12 + month.month - start.month
    return months if -1200 <= months <= 1200 else None


def _safeguarding(row: Row) -> dict[str, Any]:
    return {
        "episode": row["episode"],
        "start_month": _month(row.get("start_date")),
        "end_month": _month(row.get("end_date")),
        "primary_need": row.get("primary_need"),
        "close_reason": row.get("close_reason"),
    }


def _absence(row: Row) -> dict[str, Any]:
    return {
        "month": _month(row.get("PeriodEnd")),
        "sessions_possible": row.get("SessionsPossible_3Term"),
        "authorised_absence": row.get("AuthorisedAbsence_3Term"),
        "unauthorised_absence": row.get("UnauthorisedAbsence_3Term"),
    }


def _exclusion(row: Row) -> dict[str, Any]:
    return {
        "month": _month(row.get("PeriodEnd")),
        "fixed_exclusions": row.get("EXC_TotalFixedExclusions"),
        "permanent_exclusions": row.get("PermanentExclusionCount"),
    }


def _attainment(row: Row) -> dict[str, Any]:
    return {
        "month": _month(row.get("ExamDate")),
        "stage": row["stage"],
        "ks2_english": row.get("KS2_ENGLEV"),
        "ks2_maths": row.get("KS2_MATLEV"),
        "ks4_level2_em": row.get("KS4_LEVEL2_EM"),
        "ks4_points": row.get("KS4_GPTSPE"),
        "free_school_meals": row.get("CEN_FSMEligible"),
        "sen_provision": row.get("SENProvision"),
    }


def _offence(row: Row) -> dict[str, Any]:
    return {
        "offence_month": _month(row.get("offencestartdate")),
        "disposal_month": _month(row.get("disposal_date")),
        "offence_group": row["offence_group"],
        "adjudication": row.get("adjudicationcode"),
        "disposal_rank": row.get("disposalrank"),
    }


def _benefit(row: Row) -> dict[str, Any]:
    return {"benefit_type": row["benefit_type"], **_employment(row)}


def _employment(row: Row) -> dict[str, Any]:
    return {"start_month": _month(row.get("start_date")), "end_month": _month(row.get("end_date"))}


def _contact(row: Row) -> dict[str, Any]:
    return {"month": _month(row.get("contact_date")), "contact_type": row["contact_type"]}


_GENERALISED: Mapping[str, Callable[[Row], dict[str, Any]]] = {
    "safeguarding": _safeguarding,
    "absence": _absence,
    "exclusion": _exclusion,
    "attainment": _attainment,
    "offence": _offence,
    "benefit": _benefit,
    "employment": _employment,
    "contact": _contact,
}


# Small things --------------------------------------------------------------------------------------------------------


def _item(item: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in item.items()))


def _month_order(item: Row) -> datetime.date:
    """The month that arrays are ordered by, the item's first; those before 1970 or missing come first, in any order."""
    first = next(name for name in item if name.endswith("month"))
    return max(item[first] or datetime.date.min, datetime.date(1970, 1, 1))


def _array_order(item: Row) -> tuple[datetime.date, tuple[tuple[str, str], ...]]:
    return _month_order(item), _item(item)


def _pseudonyms(make: Callable[[pl.Expr], pl.Expr], refs: Iterable[str]) -> dict[str, str]:
    frame = pl.DataFrame({"ref": pl.Series(list(refs), dtype=pl.String)})
    return dict(frame.select("ref", made=make(pl.col("ref"))).iter_rows())


def _in_domain(contract: Contract, row: Row) -> bool:
    for name in (contract.subject_field, contract.record_field):
        if name is not None and (row[name] == "" or "|" in row[name] or "\x1f" in row[name]):
            return False
    for field in contract.fields:
        value = row[field.name]
        if isinstance(field.domain, tuple) and value is not None:
            low, high = field.domain
            if not low <= value <= high:
                return False
    return True
