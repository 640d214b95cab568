"""Key epochs: one set of keys takes over from another, and nobody downstream notices."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_processors.enquiry.person import PersonAsked
from stream_processors.enquiry.seal import public_key, seal
from stream_processors.epochs import label
from stream_processors.matching.tokens import TokenKeys
from tests.examples import examples
from tests.properties.test_convergence import ANNA, Change, changes, populations
from tests.stream_processors.tables import PARTITIONS, TOKEN_KEY, Flow, decoded, epochs_of

STAGES = ("1+2", "2+1", "2")
DOWNSTREAM = ("linkage.contribution", "research.person", "linkage.activity")


@pytest.mark.parametrize(("leads", "also", "is_"), [(1, None, "1"), (1, 2, "1+2"), (2, 1, "2+1")])
def test_the_label_names_who_leads_first(leads: int, also: int | None, is_: str) -> None:
    assert label(leads, also) == epochs_of(leads, also).label == is_


def said_again(flow: Flow, seed: int) -> list[list[tuple[bytes | None, bytes | None]]]:
    """The next stage, record by record: pseudonymise reads everything again, the others take what they like meanwhile.
    Returns what came out of join and publish."""
    driver, rng = flow.driver, random.Random(seed)
    driver.run()
    before = {topic: [log.end for log in driver.topics.get(topic, [])] for topic in DOWNSTREAM[:2]}
    flow.begin_stage()
    partitions = list(range(PARTITIONS))
    rng.shuffle(partitions)
    for partition in partitions:
        driver.lag(("pseudonymise", partition), most=rng.randint(1, 4))
        for _ in range(rng.randint(0, 12)):
            driver.step(rng.choice([t for t in driver.tasks if t[0] != "pseudonymise"]), rng.randint(1, 3))
    driver.run(rng.randint(1, 5))
    return [
        [(r.key, r.value) for log, end in zip(driver.topics.get(topic, []), ends, strict=True) for r in log.read(end)]
        for topic, ends in before.items()
    ]


@settings(deadline=None, max_examples=examples(6), suppress_health_check=list(HealthCheck))
@given(populations(), st.lists(changes(), max_size=6), st.integers(0, 1_000))
def test_nobody_gains_or_loses_a_link_at_any_moment_of_a_rotation(
    people: list[Change], corrections: list[Change], seed: int
) -> None:
    """Not one record comes out of join and publish: no link has moved, not even for a moment; and nothing that was
    corrected or deleted, and lies in the log still, comes back."""
    flow = Flow(seed)
    for change in [*people, *corrections]:
        flow.raw(*change)
    for i, stage in enumerate(STAGES):
        assert said_again(flow, seed + i) == [[], []], stage
        assert flow.epochs.label == stage
        assert flow.differences() == []


def test_after_a_rotation_no_token_or_block_of_the_old_epoch_is_left() -> None:
    flow = Flow()
    flow.put("council-northam", "person", person_id="n1", programme_status="participant", **ANNA)
    flow.put("dfe", "person", UPN="u1", **ANNA)
    flow.put("dfe", "absence", UPN="u1", record_id="r1", SessionsPossible_3Term=300)
    flow.run()
    old, persons = hashes(flow), flow.research()
    assert len(old) > 10
    for _ in STAGES:
        flow.rotate()
        flow.run()
    assert old.isdisjoint(hashes(flow)), "tokens, blocks and statements are all others"
    assert flow.research() == persons, "research ids stay"
    fresh = Flow(1, flow.context)
    for topic, logs in flow.driver.topics.items():
        if topic.startswith("identified."):
            for partition, log in enumerate(logs):
                for record in log.records:
                    fresh.driver.append(topic, partition, record.key, record.value)
    fresh.run()
    for topic in ("linkage.identity", "linkage.candidate", "linkage.link", "state.route", "state.link"):
        assert flow.driver.table(topic) == fresh.driver.table(topic), topic


def hashes(flow: Flow) -> set[str]:
    """What the linkage zone's topics hold that depends on the keys of tokens."""
    found: set[str] = set()
    for key in flow.driver.table("linkage.candidate"):
        found.add(key.decode().partition("|")[2])
    for value in flow.driver.table("linkage.identity").values():
        row = decoded("linkage.identity", value)
        for of in (row, row["also"] or {}):
            for name in ("blocks", "tokens", "statements", "encodings"):
                found.update(of.get(name, []))
    return found


@pytest.mark.parametrize("stage", range(4))
def test_enquiries_are_answered_at_every_stage(stage: int) -> None:
    flow = Flow()
    flow.put("council-northam", "person", person_id="n1", programme_status="participant", **ANNA)
    for _ in range(stage):
        flow.rotate()
    flow.run()
    for i, master in enumerate(flow.epochs.opens):
        name = f"{stage}{i}".ljust(32, "0")
        person: dict[str, Any] = {k: v for k, v in ANNA.items() if k != "middle_names"}
        sealed = seal(PersonAsked(**person), "council-northam", name, public_key(master))
        flow.ask("council-northam", name, sealed)
        flow.run()
        sought = flow.driver.table("linkage.sought")[name.encode()]
        assert decoded("linkage.sought", sought)["outcome"] == "found"
    assert (TOKEN_KEY in flow.epochs.opens) == (stage < 3), "who has the old key cannot be asked for ever"


def test_a_subject_that_changes_in_the_middle_is_linked_as_it_is_now() -> None:
    flow = Flow()
    flow.put("council-northam", "person", person_id="n1", programme_status="participant", **ANNA)
    flow.put("dfe", "person", UPN="u1", **ANNA)
    for stage in STAGES:
        flow.rotate()
        flow.put("dfe", "person", UPN="u1", **ANNA | {"forename": "Grace", "sex": None, "postcode": "N1 9GU"})
        flow.run()
        assert flow.differences() == [], stage
        flow.put("dfe", "person", UPN="u1", **ANNA)
        flow.put("dfe", "person", UPN=stage, **ANNA | {"surname": "Smyth"})
        flow.delete("dfe", "person", stage)
        flow.run()
        assert flow.differences() == [], stage


def test_what_was_corrected_or_deleted_is_not_said_again() -> None:
    flow = Flow()
    flow.put("dfe", "person", UPN="u1", **ANNA | {"surname": "Smyth"})
    flow.put("dfe", "person", UPN="u1", **ANNA)
    flow.put("dfe", "person", UPN="u2", **ANNA)
    flow.put("dfe", "absence", UPN="u2", record_id="r1", SessionsPossible_3Term=300)
    flow.delete("dfe", "person", "u2")
    flow.delete("dfe", "absence", "u2", "r1")
    flow.run(1)
    driver = flow.driver
    ends = {t: [log.end for log in driver.topics[t]] for t in ("linkage.identity", "linkage.activity")}
    flow.begin_stage()
    for partition in range(PARTITIONS):
        driver.lag(("pseudonymise", partition), most=1)
    again = {
        t: [r.value is not None for log, end in zip(driver.topics[t], of, strict=True) for r in log.read(end)]
        for t, of in ends.items()
    }
    assert sum(again["linkage.identity"]) == 1, "u1 as it is now; of u2 its end"
    assert sum(again["linkage.activity"]) == 1, "the person of u1"


def test_other_keys_are_another_epoch() -> None:
    one, two = epochs_of(1).leads, epochs_of(2).leads
    assert one.derive("x") != two.derive("x")
    assert TokenKeys(TOKEN_KEY, 2).derive("x") != one.derive("x")
