"""Invariant 2: no identifier outside the identified zone, no token beside an attribute, and nothing of the linkage zone
in the research zone: values, keys and headers, byte by byte.
"""

from __future__ import annotations

import base64
import datetime
import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import contracts
from schemas.classification import ALLOWED
from tests.stream_processors.tables import Flow, decoded

QUICK = settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))
CANARY = st.text(string.ascii_uppercase, min_size=9, max_size=12)
ZONES = ("linkage.", "research.", "governance.", "state.")


def written(flow: Flow, *prefixes: str) -> Iterator[tuple[str, bytes]]:
    """Everything that was ever written to topics of some prefixes: keys, values, and headers."""
    for topic, logs in flow.driver.topics.items():
        if topic.startswith(prefixes):
            for log in logs:
                for r in log.records:
                    yield topic, b"\x00".join([r.key or b"", r.value or b"", *(k.encode() + v for k, v in r.headers)])


def held(flow: Flow) -> Iterator[tuple[str, bytes]]:
    """Everything that tasks hold."""
    for task in flow.driver.tasks:
        for table, rows in flow.driver.state(task).items():
            for key, value in rows.items():
                yield f"{task[0]} {table}", key + b"\x00" + value


def forms(canary: str) -> set[bytes]:
    """Ways in which a text could be carried along."""
    plain = {canary, canary.lower(), canary.title()}
    return {p.encode() for p in plain} | {base64.b64encode(p.encode())[:-4] for p in plain}


def populate(flow: Flow, names: dict[str, str], born: datetime.date) -> None:
    """One linked person with every kind of record, a waiting one, and records that fail."""
    who: dict[str, Any] = {
        "forename": names["forename"],
        "middle_names": names["middle"],
        "surname": names["surname"],
        "date_of_birth": born,
        "sex": "F",
        "postcode": names["postcode"],
    }
    n, r = names["id"], names["record"]
    flow.put("council-northam", "person", person_id=n, family_id=names["family"], programme_status="participant", **who)
    flow.put("council-northam", "safeguarding", person_id=n, record_id=r, episode="CIN", start_date=born)
    flow.put("dfe", "person", UPN=n, **who)
    flow.put("dfe", "absence", UPN=n, record_id=r, PeriodEnd=datetime.date(2014, 7, 20), SessionsPossible_3Term=300)
    flow.put("dfe", "attainment", UPN=n, record_id=r, stage="KS4", KS4_GPTSPE=41.5)
    flow.put("moj", "person", mojuid=n, **who)
    flow.put("moj", "offence", mojuid=n, offenceid=r, caseid=names["case"], offence_group="theft")
    flow.put("dwp", "person", subject_id=n, **who | {"surname": names["other"], "date_of_birth": None})
    flow.put("health", "contact", subject_id=n, record_id=r, contact_type="emergency")
    flow.put("dfe", "absence", UPN=n, record_id=r + "X", SessionsPossible_3Term=77777)
    flow.raw("dfe", "person", [names["other"]], b"\x00\x00\x00\x00\x01" + names["surname"].encode())
    flow.put("council-northam", "person", person_id=names["other"], programme_status="comparison", **who)
    flow.run()
    flow.ask("council-northam", "e1", **who)
    flow.run()
    assert len(flow.driver.table("governance.finding")) > 1, "an enquiry has gone through the flow"
    flow.delete("council-northam", "person", names["other"])
    flow.run()


NAMES = ("forename", "middle", "surname", "postcode", "id", "record", "family", "case", "other")


@QUICK
@given(
    st.lists(CANARY, min_size=len(NAMES), max_size=len(NAMES), unique=True),
    st.dates(datetime.date(1985, 1, 2), datetime.date(2010, 12, 30)).filter(lambda d: d.day > 1),
)
def test_no_identifier_leaves_the_identified_zone(canaries: list[str], born: datetime.date) -> None:
    names = dict(zip(NAMES, canaries, strict=True)) | {"postcode": f"SE13 7{canaries[3][:2]}"}
    flow = Flow()
    populate(flow, names, born)
    assert any(flow.research()), "the flow was not empty"
    seen = b"".join(content for _, content in written(flow, "identified."))
    assert names["surname"].encode() in seen, "the search finds what is there"
    searched = [form for name, c in names.items() if name != "postcode" for form in forms(c)]
    searched += [names["postcode"].encode(), names["postcode"].replace(" ", "").encode(), born.isoformat().encode()]
    for where, content in [*written(flow, *ZONES), *held(flow)]:
        for form in searched:
            assert form not in content, where
    for topic, logs in flow.driver.topics.items():
        headers = [v for log in logs for r in log.records for _, v in r.headers]
        assert not any(form in v for form in searched for v in headers), topic


@pytest.fixture(scope="module")
def flow() -> Flow:
    """One populated flow for the searches that change nothing."""
    flow = Flow()
    names = {n: f"CANARY{n.upper()}" for n in NAMES} | {"postcode": "SE13 7AB"}
    populate(flow, names, datetime.date(2001, 3, 4))
    return flow


def test_no_token_is_beside_an_attribute_or_beyond_linkage(flow: Flow) -> None:
    identities = [decoded("linkage.identity", v) for v in flow.driver.table("linkage.identity").values()]
    tokens = {t.partition(":")[2].encode() for row in identities for t in row["tokens"] + row["blocks"]}
    candidates = b"".join(content for _, content in written(flow, "linkage.candidate"))
    # A department's subject that is linked in pass 1 takes no tokens to later passes.
    assert sum(token in candidates for token in tokens) > len(tokens) / 2, "the search finds what is there"
    for topic in (
        "linkage.activity",
        "linkage.contribution",
        "research.",
        "governance.",
        "state.join",
        "state.publish",
    ):
        for where, content in written(flow, topic):
            assert not any(token in content for token in tokens), where
    match_tokens = {t.partition(":")[2].encode() for row in identities for t in row["tokens"]}
    for where, content in written(flow, "linkage.link"):
        assert not any(token in content for token in match_tokens), where


def test_nothing_of_the_linkage_zone_is_in_the_research_zone(flow: Flow) -> None:
    references = {
        part for t, c in written(flow, "linkage.activity", "linkage.contribution") for part in c[:65].split(b"|")
    }
    references |= {c[:32] for _, c in written(flow, "linkage.identity")}
    for where, content in written(flow, "research."):
        assert not any(r[:32] in content for r in references), where
        for supplier in (b"council-northam", b"dfe", b"moj", b"dwp", b"health"):
            assert supplier not in content, where
    assert all(r.headers == () for log in flow.driver.topics["research.person"] for r in log.records)


def test_pseudonyms_of_the_research_zone_are_nowhere_else(flow: Flow) -> None:
    ids = {i for r in flow.research().values() for i in (r["person_id"], r["family_id"]) if i}
    assert ids
    for where, content in written(flow, "linkage.", "governance.", "identified.", "state."):
        assert not any(i.encode() in content for i in ids), where


WHO: dict[str, Any] = {
    "forename": "Anna",
    "surname": "Smith",
    "date_of_birth": datetime.date(2001, 3, 4),
    "sex": "F",
    "postcode": "SE6 1AA",
}


def test_what_linkage_sees_does_not_depend_on_attributes() -> None:
    seen = []
    for status, sessions, crime in (("participant", 300, True), ("comparison", 1, None)):
        flow = Flow()
        flow.put("council-northam", "person", person_id="n1", programme_status=status, criterion_crime=crime, **WHO)
        flow.put("dfe", "person", UPN="u1", **WHO)
        flow.put("dfe", "absence", UPN="u1", record_id="r1", SessionsPossible_3Term=sessions)
        flow.run()
        seen.append([flow.driver.table(t) for t in ("linkage.identity", "linkage.candidate", "linkage.link")])
    assert seen[0] == seen[1]


def test_what_research_sees_does_not_depend_on_names_days_or_postcodes_of_one_area() -> None:
    seen = []
    other = {"forename": "Zoe", "surname": "Jones", "date_of_birth": datetime.date(2001, 9, 30), "postcode": "SE6 1AB"}
    for who in (WHO, WHO | other):
        flow = Flow()
        flow.put("council-northam", "person", person_id="n1", programme_status="participant", **who)
        flow.put("dfe", "person", UPN="u1", **who)
        day = 20 if who is WHO else 3
        flow.put("dfe", "absence", UPN="u1", record_id="r1", PeriodEnd=datetime.date(2014, 7, day))
        flow.run()
        assert len(flow.research()) == 1
        seen.append([flow.driver.table(t) for t in ("linkage.activity", "linkage.contribution", "research.person")])
    assert seen[0] == seen[1]


def test_no_topic_may_hold_tokens_beside_attributes_or_identifiers_beyond_the_identified_zone() -> None:
    for name in contracts.names():
        allowed = ALLOWED[name]
        if not name.startswith("identified/"):
            assert "identifier" not in allowed, name
        assert not ("token" in allowed and allowed & {"attribute", "quasi"}), name
    assert ALLOWED["research/person"] == {"pseudonym", "quasi", "attribute"}
