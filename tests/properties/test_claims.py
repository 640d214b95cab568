"""`claims` works by arrays; here is what it must say, one candidate at a time, over random small blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_processors.claims import Rules, claims
from tests.examples import examples
from tests.stream_processors.claim_tables import DIFFERENT, FORENAME, RULES, Row, candidates, encoding, statement
from tests.stream_processors.tables import token, wide


def dice_bits(a: str, b: str) -> float:
    """Evidence of two encodings of the tables, from their letters."""
    mine, other = set(a), set(b)
    dice = 2 * len(mine & other) / (len(mine) + len(other))
    cuts = (1.0, 0.8, 0.65, 0.5, 0.3)
    return FORENAME[sum(dice < cut for cut in cuts)]


def contradict(a: str, b: str) -> bool:
    (sex, *names), (other, *others) = (text.split() for text in (a, b))
    return "-" not in (sex, other) and sex != other and bool(names and others) and not set(names) & set(others)


def plain(block: Sequence[Row], rules: Rules) -> list[tuple[str, str | None, str | None, list[str]]]:
    """Outcome, match key, person and claimed of the candidates of one block, one by one."""
    number = int(block[0]["block"][0])
    cohort = [r for r in block if r["role"] == "cohort"]
    having: dict[str, list[Row]] = {}
    for r in cohort:
        for t in r["tokens"]:
            having.setdefault(t, []).append(r)
    for t in list(having):
        key = t.partition(":")[0]
        counts = Counter(r["supplier"] for r in having[t])
        if key not in rules.ids or max(counts.values()) > rules.most[rules.ids.index(key)]:
            del having[t]
    person = {r["subject"]: r.get("person_ref") or r["subject"] for r in cohort}
    moved = True
    while moved:
        moved = False
        for t, members in having.items():
            free = [r["subject"] for r in members if not r.get("person_ref")]
            if free and rules.strict[rules.ids.index(t.partition(":")[0])]:
                least = min(person[s] for s in free)
                moved |= any(person[s] != least for s in free)
                person |= dict.fromkeys(free, least)
    closed = {(person[r["subject"]], supplier) for r in cohort for supplier in r["claimed"]}
    claim: dict[str, tuple[int, str]] = {}
    outcome: dict[str, tuple[str, str | None, str | None]] = {}
    for r in block:
        if r["role"] == "cohort":
            continue

        def may_be(c: Row, r: Row = r) -> bool:
            return (person[c["subject"]], r["supplier"]) not in closed and not contradict(r["states"], c["states"])

        found: set[str] = set()
        for rank, key in enumerate(rules.ids):  # noqa: B007  (read after the loop)
            mine = [t for t in r["tokens"] if t.partition(":")[0] == key]
            found = {person[c["subject"]] for t in mine for c in having.get(t, []) if may_be(c)}
            if found:
                break
        else:
            rank = len(rules.ids) + sorted(rules.near).index(number)
            bits = [
                (dice_bits(r["letters"], c["letters"]), person[c["subject"]])
                for c in cohort
                if r["letters"] and c["letters"] and may_be(c)
            ]
            best = max((b for b, _ in bits), default=DIFFERENT)
            if best >= rules.near[number].threshold:
                found = {p for b, p in bits if b > best - rules.near[number].margin}
        outcome[r["subject"]] = ("ambiguous" if len(found) > 1 else "waiting", None, None)
        if len(found) == 1:
            claim[r["subject"]] = (rank, found.pop())
    supplier_of = {r["subject"]: r["supplier"] for r in block}
    labels = [*rules.ids, *(f"near{n}" for n in sorted(rules.near))]
    for subject, (rank, p) in claim.items():
        rivals = [q for s, q in claim.items() if s != subject and q[1] == p and supplier_of[s] == supplier_of[subject]]
        won = all(rank < other for other, _ in rivals)
        outcome[subject] = ("linked", labels[rank], p) if won else ("contested", None, None)
    out: list[tuple[str, str | None, str | None, list[str]]] = []
    for r in block:
        if r["role"] == "cohort":
            p = person[r["subject"]]
            out.append(("linked", "cohort", p, sorted({supplier_of[s] for s, (_, q) in claim.items() if q == p})))
        else:
            out.append((*outcome[r["subject"]], []))
    return out


@st.composite
def blocks(draw: st.DrawFn, name: str) -> list[Row]:
    """Up to ten candidates of one block, among whom tokens, encodings and statements are often the same."""
    number = draw(st.sampled_from([1, 2]))
    keys = ["k01", "k02", "k05", "k08", "k99"] if number == 1 else ["p01", "p99"]
    count = draw(st.integers(1, 10))
    names = draw(st.permutations([f"s{i}" for i in range(count)]))
    out: list[Row] = []
    for subject in names:
        cohort = draw(st.booleans())
        letters = draw(st.sampled_from(["", "abcde", "abcde", "abcdf", "abceg", "abxyz", "uvwxy"]))
        row: Row = {
            "block": f"{number}:{name}",
            "subject": wide(subject),
            "role": "cohort" if cohort else "department",
            "supplier": draw(st.sampled_from(["x", "y"] if cohort else ["dfe", "dwp"])),
            "tokens": [
                token(f"{k}={draw(st.sampled_from('ab'))}")
                for k in keys
                if draw(st.integers(0, 3 if k in ("k01", "k02") else 1)) == 0
            ],
            "states": draw(st.sampled_from(["-", "F ann", "M bob", "M ann", "F", "M ann bob", "- bob"])),
            "letters": letters,
            "claimed": [],
        }
        if number == 2 and cohort:
            row["person_ref"] = wide(draw(st.sampled_from(["p", "q", "r", "s0"])))
            row["claimed"] = draw(st.sampled_from([[], [], ["dfe"], ["dfe", "dwp"]]))
        out.append(row)
    return out


@settings(deadline=None, max_examples=examples(120))
@given(st.tuples(blocks("a"), blocks("b"), blocks("c")), st.integers(1, 3))
def test_claims_are_those_of_the_plain_version_block_by_block(three: tuple[list[Row], ...], n: int) -> None:
    taken = three[:n]
    given_rows = [
        {k: v for k, v in r.items() if k not in ("states", "letters")}
        | {"statement": statement(r["states"]), "encoding": encoding(r["letters"])}
        for block in taken
        for r in block
    ]
    found = claims(candidates(given_rows), RULES).rows
    made = list(found.select("outcome", "match_key", "person_ref", "claimed").iter_rows())
    assert made == [row for block in taken for row in plain(block, RULES)]
    assert found["supplier"].to_list() == [r["supplier"] for r in given_rows]


@settings(deadline=None, max_examples=examples(25))
@given(blocks("a"), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_of_a_block_changes_nothing(block: list[Row], shuffle: Any) -> None:
    def by_subject(rows: list[Row]) -> dict[str, Row]:
        given_rows = [
            {k: v for k, v in r.items() if k not in ("states", "letters")}
            | {"statement": statement(r["states"]), "encoding": encoding(r["letters"])}
            for r in rows
        ]
        found = claims(candidates(given_rows), RULES).rows
        return dict(zip([r["subject"] for r in rows], found.iter_rows(named=True), strict=True))

    mixed = list(block)
    shuffle.shuffle(mixed)
    assert by_subject(mixed) == by_subject(block)
