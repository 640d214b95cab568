"""The ledger: chains as they were written have no fault, and each way of tampering with one shows."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import contracts
from schemas.codec import arrow_schema
from stream_processors.ledger import Chain, Deletion, Form, Head, Page, chained, digest, key, verify

UNHURRIED = settings(deadline=None)  # the machine may be busy
SCHEMA = arrow_schema(contracts.contract("governance/ledger"))
WHOLE: dict[str, Any] = {
    "dataset": None,
    "supplier": "dfe",
    "why": "expiry",
    "as_of": date(2021, 6, 1),
    "topic": "linkage.activity",
    "reason": None,
    "by": None,
    "order_id": None,
    "refused": False,
    "tombstone": None,
    "policy": "ab" * 32,
}
BODIES = st.lists(
    st.fixed_dictionaries(
        {
            "record": st.text("0123456789abcdef", min_size=4, max_size=4),
            "kind": st.sampled_from(["identity", "activity"]),
            "partition": st.integers(0, 1),
            "expires_on": st.dates(),
            "offset": st.integers(0, 9),
        }
    ),
    min_size=1,
    max_size=12,
)


def written(bodies: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[Chain, Head]]:
    lines, heads = [], dict[Chain, Head]()
    for body in bodies:
        chain = (body["kind"], body["partition"])
        line, heads[chain] = chained(body, heads.get(chain, Head()))
        lines.append(line)
    return lines, heads


@UNHURRIED
@given(BODIES)
def test_chains_as_they_were_written_have_no_fault_and_no_key_twice(bodies: list[dict[str, Any]]) -> None:
    lines, heads = written(bodies)
    assert verify(lines, heads) == []
    assert verify(lines) == []
    assert len({key(line) for line in lines}) == len(lines)


@UNHURRIED
@given(BODIES, st.data())
def test_a_removed_altered_doubled_or_swapped_line_shows(bodies: list[dict[str, Any]], data: st.DataObject) -> None:
    lines, heads = written(bodies)
    i = data.draw(st.integers(0, len(lines) - 1))
    same = [j for j, line in enumerate(lines) if j != i and all(line[n] == lines[i][n] for n in ("kind", "partition"))]
    altered = lines[i] | {"expires_on": date(1066, 10, 14), "offset": 99}
    tampered = {
        "removed": lines[:i] + lines[i + 1 :],
        "altered": [*lines[:i], altered, *lines[i + 1 :]],
        "altered with its digest": [*lines[:i], altered | {"digest": digest(altered)}, *lines[i + 1 :]],
        "doubled": [*lines[: i + 1], lines[i], *lines[i + 1 :]],
    }
    if same:
        j = data.draw(st.sampled_from(same))
        swapped = list(lines)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        tampered["swapped"] = swapped
    for how, found in tampered.items():
        assert verify(found, heads), how


@UNHURRIED
@given(BODIES)
def test_a_page_has_the_lines_that_are_written_one_by_one(bodies: list[dict[str, Any]]) -> None:
    head, page = Head(3, "ab" * 32), Page(Head(3, "ab" * 32))
    forms: list[Form] = []
    lines = []
    for i, body in enumerate(bodies):
        each = {"record": f"{i:064x}", "offset": 7 + i}
        line, head = chained(WHOLE | body | each, head)
        lines.append(line)
        fixed = {k: v for k, v in (WHOLE | body).items() if k not in each}
        form = next((f for f in forms if f.fixed == fixed), None) or Form(fixed)
        forms.append(form)
        page.put(form, each["record"], each["offset"])  # type: ignore[arg-type]
    assert page.batch(SCHEMA).to_pylist() == lines
    assert page.head == head
    assert page.keys() == [key(line) for line in lines]
    assert sum(n for _, n in page.counted()) == len(page) == len(lines)


@UNHURRIED
@given(BODIES)
def test_a_line_cut_off_from_the_end_shows_only_to_who_knows_the_end(bodies: list[dict[str, Any]]) -> None:
    lines, heads = written(bodies)
    assert verify(lines[:-1]) == []
    assert verify(lines[:-1], heads) == [
        f"{lines[-1]['kind']}, partition {lines[-1]['partition']}: should end with line {lines[-1]['sequence']}"
    ]


def test_what_a_digest_is_made_of_stays() -> None:
    """Ledgers outlive versions: whoever changes this cannot verify what was written before."""
    line, _ = chained({"kind": "identity", "partition": 0, "as_of": date(2022, 12, 31)}, Head())
    assert line["digest"] == digest(line)
    assert line["digest"].startswith("4d51c6b3a906fb1c")


@UNHURRIED
@given(
    st.dictionaries(
        st.sampled_from(["record", "by", "dataset", "refused", "reason", "tombstone", "offset", "digest"]) | st.text(),
        st.text() | st.integers() | st.booleans() | st.none() | st.dates(),
    )
)
def test_a_digest_is_that_of_json_with_sorted_names(line: dict[str, Any]) -> None:
    rest = {k: v for k, v in line.items() if k != "digest" and not (k in LATER and (v is None or v is False))}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), default=lambda day: day.isoformat())
    assert digest(line) == hashlib.sha256(text.encode()).hexdigest()


LATER = {"reason": None, "by": None, "order_id": None, "tombstone": None, "refused": False, "policy": None}


@UNHURRIED
@given(BODIES)
def test_a_line_from_before_a_field_came_has_the_digest_that_it_had(bodies: list[dict[str, Any]]) -> None:
    lines, heads = written(bodies)
    assert verify([line | LATER for line in lines], heads) == []


@UNHURRIED
@given(BODIES, st.sampled_from(["reason", "by", "order_id", "tombstone", "refused", "policy"]), st.data())
def test_whatever_a_later_field_says_is_in_the_digest(
    bodies: list[dict[str, Any]], name: str, data: st.DataObject
) -> None:
    lines, heads = written([body | LATER for body in bodies])
    i = data.draw(st.integers(0, len(lines) - 1))
    said = True if name == "refused" else data.draw(st.integers(0, 2)) if name == "tombstone" else "x"
    assert verify([*lines[:i], lines[i] | {name: said}, *lines[i + 1 :]], heads) != []


def test_why_a_record_is_taken_back_travels_in_a_header() -> None:
    for said in (
        Deletion("correction", by="dfe"),
        Deletion.ordered("objection", "officer", "o1", None),
        Deletion.ordered("withdrawal", "officer", "o1", ("identified.dfe.person", 7, "dfe", "person")),
    ):
        assert Deletion.of([("other", b"x"), *said.headers]) == said
    assert Deletion.of(None) == Deletion.of([("other", b"x")]) == Deletion("withdrawal")
    assert Deletion.ordered("withdrawal", "officer", "o1", None).why == "withdrawal"
    assert Deletion.ordered("error", "officer", "o1", None).why == "erasure"
