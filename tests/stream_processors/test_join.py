"""join: each live activity of a linked subject is a contribution of its person, and of no other."""

from __future__ import annotations

import pytest

from stream_processors.runtime.partition import partition_of
from tests.stream_processors.tables import PARTITIONS, Bench, wide

LINKED = "subject | block | person_ref | match_key\n s1 | 1:a | p1 | k02"
ACTIVITY = "subject | record | sessions_possible\n s1 | r1 | 300"


@pytest.fixture
def join() -> Bench:
    """With one activity attached to one person."""
    bench = Bench("join")
    bench(link=LINKED, activity=ACTIVITY, gives="person | record | sessions_possible\n p1 | r1 | 300")
    return bench


def test_an_activity_waits_for_its_link() -> None:
    join = Bench("join")
    assert join(activity=ACTIVITY) == []
    assert join(link="subject | block | outcome\n s1 | 1:a | waiting") == []
    join(link=LINKED, gives="person | record\n p1 | r1")


def test_a_link_waits_for_activities() -> None:
    join = Bench("join")
    assert join(link=LINKED) == []
    join(activity=ACTIVITY, gives="person | record | dataset\n p1 | r1 | absence")


def test_a_contribution_lies_in_the_partition_of_its_person(join: Bench) -> None:
    said = join(activity="subject | record\n s1 | r2", gives="person | record\n p1 | r2")
    assert [s.partition for s in said] == [partition_of(wide("p1"), PARTITIONS)]


def test_a_changed_activity_replaces_its_contribution(join: Bench) -> None:
    join(
        activity="subject | record | sessions_possible\n s1 | r1 | 299",
        gives="person | record | sessions_possible |\n p1 | r1 | 299 |",
    )


def test_a_deleted_activity_takes_its_contribution_back(join: Bench) -> None:
    join(activity="subject | record |\n s1 | r1 | gone", gives="person | record |\n p1 | r1 | gone")
    assert not any(dict(join.task.store.scan(t, b"")) for t in ("activities", "attached"))


def test_a_changed_link_moves_the_contributions(join: Bench) -> None:
    join(
        link="subject | block | person_ref | match_key\n s1 | 1:a | p2 | k05",
        gives="person | record | sessions_possible |\n p1 | r1 | | gone\n p2 | r1 | 300 |",
    )


@pytest.mark.parametrize(
    "link", ["subject | block |\n s1 | 1:a | gone", "subject | block | outcome\n s1 | 1:a | ambiguous"]
)
def test_a_lost_link_takes_the_contributions_back_and_a_new_one_brings_them_again(join: Bench, link: str) -> None:
    join(link=link, gives="person | record |\n p1 | r1 | gone")
    join(link=LINKED, gives="person | record |\n p1 | r1 |")


def test_a_subject_that_changes_blocks_is_taken_from_the_old_person_once(join: Bench) -> None:
    join(
        link="""
            subject | block | person_ref | match_key |
            s1      | 1:b   | p2         | k02       |
            s1      | 1:a   |            |           | gone
        """,
        gives="""
            person | record |
            p1     | r1     | gone
            p2     | r1     |
        """,
    )


def test_of_several_claims_the_earlier_pass_and_then_the_stricter_key_holds(join: Bench) -> None:
    assert join(link="subject | block | person_ref | match_key\n s1 | 2:z | p2 | k01") == []
    join(
        link="subject | block | person_ref | match_key\n s1 | 1:b | p3 | k01",
        gives="person | record |\n p1 | r1 | gone\n p3 | r1 |",
    )


def test_a_subject_keeps_what_other_subjects_do_out_of_it(join: Bench) -> None:
    assert join(link="subject | block | person_ref | match_key\n s2 | 1:a | p2 | k02") == []
    assert join(link="subject | block |\n s2 | 1:a | gone") == []


def test_a_duplicate_says_nothing(join: Bench) -> None:
    assert join(link=LINKED, activity=ACTIVITY) == []


def test_a_person_of_the_same_name_under_another_match_key_moves_nothing(join: Bench) -> None:
    assert join(link="subject | block | person_ref | match_key\n s1 | 1:a | p1 | k08") == []


def test_what_was_attached_is_taken_back_even_if_the_link_that_said_so_is_compacted_away(join: Bench) -> None:
    join.forget()
    join(link="subject | block |\n s1 | 1:a | gone", gives="person | record |\n p1 | r1 | gone")


def test_what_was_attached_is_taken_back_even_if_the_activity_is_compacted_away(join: Bench) -> None:
    join.forget()
    join(activity="subject | record |\n s1 | r1 | gone", gives="person | record |\n p1 | r1 | gone")


def test_what_was_attached_moves_even_if_the_link_that_said_so_is_compacted_away(join: Bench) -> None:
    join.forget()
    assert join(activity=ACTIVITY, gives="person |\n p1 | gone")  # nobody knows the person any more
    join(link="subject | block | person_ref | match_key\n s1 | 1:a | p2 | k02", gives="person | record\n p2 | r1")


def test_an_unlinked_subject_leaves_its_person_even_if_its_link_is_compacted_away(join: Bench) -> None:
    join.forget()
    join(link="subject | block | outcome\n s1 | 1:a | waiting", gives="person | record |\n p1 | r1 | gone")


def test_after_a_long_absence_what_is_gone_is_taken_back(join: Bench) -> None:
    join.forget()
    assert [s.value for s in join.reconcile()] == [None]


def test_the_cohorts_links_of_later_passes_change_nothing() -> None:
    join = Bench("join")
    join(link="subject | block | role | person_ref\n c1 | 1:a | cohort | p")
    join(activity="subject | record\n c1 | r1", gives="person | record\n p | r1")
    assert join(link="subject | block | role | person_ref\n c1 | 2:b | cohort | p\n c1 | 3:c | cohort | p") == []
    assert len(dict(join.task.store.scan("links", b""))) == 1
    assert join(link="subject | block |\n c1 | 2:b | gone") == []
