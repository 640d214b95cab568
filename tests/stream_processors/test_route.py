"""route: every live subject is a candidate in exactly its current blocks."""

from __future__ import annotations

import pytest

from stream_processors.runtime.partition import partition_of
from stream_processors.runtime.state import Position, View
from tests.stream_processors.tables import PARTITIONS, Bench


def test_a_subject_is_sent_to_its_block_with_its_tokens_and_its_home() -> None:
    Bench("route", partition=3)(
        identity="""
            subject | blocks | tokens
            s1      | 1:a    | k01=x k02=y
        """,
        gives="""
            subject | block | tokens      | home | supplier
            s1      | 1:a   | k01=x k02=y | 3    | dfe
        """,
    )


def test_a_candidate_lies_in_the_partition_of_its_block() -> None:
    said = Bench("route")(
        identity="""
            subject | blocks
            s1      | 1:a
            s1b     | 1:b
            s1c     | 1:c
        """,
        gives="""
            block
            1:a
            1:b
            1:c
        """,
    )
    assert [s.partition for s in said] == [partition_of(s.cells()["block"], PARTITIONS) for s in said]


def test_a_corrected_date_of_birth_moves_the_subject_to_its_new_block() -> None:
    route = Bench("route")
    route(identity="subject | blocks\n s1 | 1:20010304", gives="subject | block\n s1 | 1:20010304")
    said = route(
        identity="""
            subject | blocks
            s1      | 1:20010403
        """,
        gives="""
            subject | block      |
            s1      | 1:20010304 | gone
            s1      | 1:20010403 |
        """,
    )
    assert {s.partition for s in said if s.value is None} == {partition_of("1:20010304", PARTITIONS)}


def test_only_the_last_of_a_batch_counts() -> None:
    Bench("route")(
        identity="""
            subject | blocks
            s1      | 1:20010304
            s1      | 1:20010403
        """,
        gives="""
            subject | block      |
            s1      | 1:20010403 |
        """,
    )


def test_a_department_goes_on_to_the_next_pass_while_it_waits() -> None:
    route = Bench("route")
    route(identity="subject | blocks\n s1 | 1:a 2:b 3:c", gives="subject | block\n s1 | 1:a")
    route(link="subject | block | outcome\n s1 | 1:a | waiting", gives="subject | block\n s1 | 2:b")
    route(link="subject | block | outcome\n s1 | 2:b | linked")
    route(link="subject | block | outcome\n s1 | 2:b | waiting", gives="subject | block\n s1 | 3:c")


def test_a_department_that_an_early_pass_links_after_all_leaves_the_later_ones() -> None:
    route = Bench("route")
    route(identity="subject | blocks\n s1 | 1:a 2:b", gives="subject | block\n s1 | 1:a")
    route(link="subject | block | outcome\n s1 | 1:a | waiting", gives="subject | block\n s1 | 2:b")
    route(link="subject | block | outcome\n s1 | 1:a | linked", gives="subject | block |\n s1 | 2:b | gone")


def test_neither_an_ambiguous_nor_a_contested_subject_goes_on() -> None:
    for outcome in ("ambiguous", "contested"):
        route = Bench("route")
        route(identity="subject | blocks\n s1 | 1:a 2:b", gives="subject | block\n s1 | 1:a")
        assert route(link=f"subject | block | outcome\n s1 | 1:a | {outcome}") == []


@pytest.mark.parametrize(
    ("link", "settled"),
    [
        ("subject | block | outcome\n s1 | 1:a | linked", False),
        ("subject | block | outcome\n s1 | 1:a | waiting", True),
        ("subject | block | outcome\n s1 | 3:c | waiting", False),
        ("subject | block | role | person_ref\n s1 | 1:a | cohort | p", True),
        ("subject | block | role | person_ref\n s1 | 3:c | cohort | p", False),
    ],
)
def test_a_subject_is_settled_for_a_claim_on_which_its_way_depends(link: str, settled: bool) -> None:
    route = Bench("route")
    route(identity="subject | blocks\n s1 | 1:a 2:b 3:c", gives="subject | block\n s1 | 1:a")
    view = View(route.task.store, route.task.processor.declaration.keeps)
    touched = route.task.processor.absorb(view, [route.inputs("linkage.link", link)])
    assert bool(touched) is settled


def test_a_department_leaves_a_later_pass_even_if_the_claim_that_sent_it_there_is_compacted_away() -> None:
    for answer in ("1:a | linked |", "1:a | | gone"):
        route = Bench("route")
        identity = "subject | blocks\n s1 | 1:a 2:b"
        route(identity=identity, gives="subject | block\n s1 | 1:a")
        route(link="subject | block | outcome\n s1 | 1:a | waiting", gives="subject | block\n s1 | 2:b")
        route.forget()
        route.task.restore_inputs([route.inputs("linkage.identity", identity)], Position({}))
        route(
            link=f"subject | block | outcome |\n s1 | {answer}",
            gives="subject | block |\n s1 | 2:b | gone",
        )


def test_a_department_that_cannot_enter_a_pass_goes_to_the_next() -> None:
    Bench("route")(identity="subject | blocks\n s1 | 2:b 3:c", gives="subject | block\n s1 | 2:b")


def test_a_cohort_subject_goes_to_every_pass_with_its_person_and_who_has_claimed_it() -> None:
    route = Bench("route")
    route(identity="subject | role | blocks\n c1 | cohort | 1:a 2:b 3:c", gives="subject | block\n c1 | 1:a")
    route(
        link="""
            subject | block | role   | outcome | person_ref | claimed
            c1      | 1:a   | cohort | linked  | p          | dfe
        """,
        gives="""
            subject | block | person_ref | claimed
            c1      | 2:b   | p          | dfe
        """,
    )
    route(
        link="""
            subject | block | role   | outcome | person_ref | claimed
            c1      | 2:b   | cohort | linked  | p          | dwp
        """,
        gives="""
            subject | block | person_ref | claimed
            c1      | 3:c   | p          | dfe dwp
        """,
    )


def test_a_cohort_subject_without_a_date_of_birth_is_a_person_first_and_then_goes_to_later_passes() -> None:
    route = Bench("route")
    (said,) = route(identity="subject | role | blocks\n c1 | cohort | 2:b", gives="subject\n c1")
    own = said.cells()["block"]
    assert own.startswith("0:")
    route(
        link=f"subject | block | role | outcome | person_ref\n c1 | {own} | cohort | linked | c1",
        gives="subject | block | person_ref\n c1 | 2:b | c1",
    )


def test_a_candidate_carries_the_tokens_of_its_pass_alone() -> None:
    route = Bench("route")
    route(
        identity="subject | blocks | tokens\n s1 | 1:a 2:b | k01=x p01=y",
        gives="subject | block | tokens\n s1 | 1:a | k01=x",
    )
    route(
        link="subject | block | outcome\n s1 | 1:a | waiting",
        gives="subject | block | tokens\n s1 | 2:b | p01=y",
    )


def test_a_tombstone_takes_a_subject_back_from_every_block() -> None:
    route = Bench("route")
    route(identity="subject | blocks\n s1 | 1:a 2:b", gives="block\n 1:a")
    route(link="subject | block | outcome\n s1 | 1:a | waiting", gives="subject | block\n s1 | 2:b")
    route(
        identity="""
            subject |
            s1      | gone
        """,
        gives="""
            subject | block |
            s1      | 1:a   | gone
            s1      | 2:b   | gone
        """,
    )
    route(link="subject | block |\n s1 | 1:a | gone\n s1 | 2:b | gone")
    assert not any(dict(route.task.store.scan(t, b"")) for t in ("identities", "heard", "sent_blocks"))


def test_a_subject_without_a_block_is_alone_in_one_of_its_own() -> None:
    route = Bench("route")
    said = route(identity="subject | supplier\n s1 | dfe\n s2 | dfe", gives="subject\n s1\n s2")
    assert len({s.cells()["block"] for s in said}) == 2


def test_a_duplicate_says_nothing() -> None:
    route = Bench("route")
    route(identity="subject | blocks\n s1 | 1:a", gives="subject\n s1")
    assert route(identity="subject | blocks\n s1 | 1:a") == []


def test_a_tombstone_of_nobody_says_nothing() -> None:
    assert Bench("route")(identity="subject |\n s1 | gone") == []


def test_what_was_said_is_taken_back_even_if_the_identity_that_said_it_is_compacted_away() -> None:
    route = Bench("route")
    route(identity="subject | blocks\n s1 | 1:a\n s2 | 1:a", gives="subject\n s1\n s2")
    route.forget()
    route(
        identity="""
            subject | blocks |
            s1      |        | gone
            s2      | 1:b    |
        """,
        gives="""
            subject | block |
            s1      | 1:a   | gone
            s2      | 1:a   | gone
            s2      | 1:b   |
        """,
    )


def test_after_a_long_absence_subjects_that_are_gone_are_taken_back() -> None:
    route = Bench("route")
    route(identity="subject | blocks\n s1 | 1:a", gives="subject\n s1")
    route.forget()
    assert [(s.cells()["block"], s.value) for s in route.reconcile()] == [("1:a", None)]
