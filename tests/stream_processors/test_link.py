"""link: which subjects of a block are the same person. k01 to k04 are strict, k05 and later only attach departments."""

from __future__ import annotations

import pytest

from stream_processors.link import CROWDED, of_department
from stream_processors.matching.catalogue import load_catalogue
from tests.stream_processors.tables import Bench, Said, decoded


@pytest.fixture
def link() -> Bench:
    return Bench("link")


def test_the_catalogue_is_the_one_that_these_tables_are_written_for() -> None:
    catalogue = load_catalogue()
    assert catalogue.strict == {"k01", "k02", "k03", "k04"}
    assert [k.id for k in catalogue.enabled] == sorted(k.id for k in catalogue.enabled)


def test_a_cohort_subject_alone_is_a_person_named_after_it(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role   | supplier        | tokens
            c1      | 1:a   | cohort | council-northam | k01=x
        """,
        gives="""
            subject | block | outcome | match_key | person_ref
            c1      | 1:a   | linked  | cohort    | c1
        """,
    )


def test_cohort_subjects_that_share_a_strict_token_are_one_person_by_chains_too(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role   | tokens
            c1      | 1:a   | cohort | k02=x
            c2      | 1:a   | cohort | k02=x k03=y
            c3      | 1:a   | cohort | k03=y
            c4      | 1:a   | cohort | k02=z
        """,
        gives="""
            subject | person_ref
            c1      | c1
            c2      | c1
            c3      | c1
            c4      | c4
        """,
    )


def test_a_token_of_a_match_key_that_is_not_strict_merges_nobody(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role   | tokens
            c1      | 1:a   | cohort | k08=x
            c2      | 1:a   | cohort | k08=x
        """,
        gives="""
            subject | person_ref
            c1      | c1
            c2      | c2
        """,
    )


def test_subjects_of_different_blocks_never_meet(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | tokens
            c1      | 1:a   | cohort     | k01=x
            c2      | 1:b   | cohort     | k01=x
            d1      | 1:c   | department | k01=x
        """,
        gives="""
            subject | outcome | person_ref
            c1      | linked  | c1
            c2      | linked  | c2
            d1      | waiting |
        """,
    )


def test_a_merge_is_undone_when_the_subject_between_two_others_goes(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | tokens
            c1      | 1:a   | cohort     | k02=x
            c2      | 1:a   | cohort     | k02=x k03=y
            c3      | 1:a   | cohort     | k03=y k05=z
            d1      | 1:a   | department | k05=z
        """,
        gives="""
            subject | person_ref | match_key
            c1      | c1         | cohort
            c2      | c1         | cohort
            c3      | c1         | cohort
            d1      | c1         | k05
        """,
    )
    link(
        candidate="""
            subject | block |
            c2      | 1:a   | gone
        """,
        gives="""
            subject | person_ref | match_key |
            c2      |            |           | gone
            c1      | c1         | cohort    |
            c3      | c3         | cohort    |
            d1      | c3         | k05       |
        """,
    )


def test_a_department_takes_the_strictest_match_key_that_finds_anyone(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | tokens
            c1      | 1:a   | cohort     | k01=x k05=v
            c2      | 1:a   | cohort     | k05=y k08=w
            d1      | 1:a   | department | k01=n k05=y k08=w
        """,
        gives="""
            subject | outcome | match_key | person_ref
            c1      | linked  | cohort    | c1
            c2      | linked  | cohort    | c2
            d1      | linked  | k05       | c2
        """,
    )


def test_a_department_that_finds_nobody_waits_until_somebody_comes(link: Bench) -> None:
    link(
        candidate="subject | block | tokens\n d1 | 1:a | k01=x",
        gives="subject | outcome | person_ref\n d1 | waiting |",
    )
    link(
        candidate="subject | block | role | tokens\n c1 | 1:a | cohort | k01=x",
        gives="subject | outcome | person_ref\n c1 | linked | c1\n d1 | linked | c1",
    )
    link(
        candidate="subject | block |\n c1 | 1:a | gone",
        gives="subject | outcome | person_ref |\n c1 | | | gone\n d1 | waiting | |",
    )


def test_several_persons_under_its_strictest_key_make_a_subject_ambiguous_whatever_looser_keys_say(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | tokens
            c1      | 1:a   | cohort     | k05=x k08=y
            c2      | 1:a   | cohort     | k05=x
            d1      | 1:a   | department | k05=x k08=y
        """,
        gives="""
            subject | outcome   | match_key | person_ref
            c1      | linked    | cohort    | c1
            c2      | linked    | cohort    | c2
            d1      | ambiguous |           |
        """,
    )


def test_two_cohort_subjects_of_one_person_make_nobody_ambiguous(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | tokens
            c1      | 1:a   | cohort     | k02=s k05=x
            c2      | 1:a   | cohort     | k02=s k05=x
            d1      | 1:a   | department | k05=x
        """,
        gives="""
            subject | outcome | person_ref
            c1      | linked  | c1
            c2      | linked  | c1
            d1      | linked  | c1
        """,
    )


def test_of_two_subjects_of_one_supplier_the_strictly_stricter_wins(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | supplier | tokens
            c1      | 1:a   | cohort     | dfe      | k01=x k05=y
            d1      | 1:a   | department | dfe      | k01=x
            d2      | 1:a   | department | dfe      | k05=y
        """,
        gives="""
            subject | outcome   | match_key
            c1      | linked    | cohort
            d1      | linked    | k01
            d2      | contested |
        """,
    )


def test_a_tie_links_neither_and_a_looser_third_gains_nothing_by_it(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | tokens
            c1      | 1:a   | cohort     | k01=x k05=y
            d1      | 1:a   | department | k01=x
            d2      | 1:a   | department | k01=x
            d3      | 1:a   | department | k05=y
        """,
        gives="""
            subject | outcome   | person_ref
            c1      | linked    | c1
            d1      | contested |
            d2      | contested |
            d3      | contested |
        """,
    )
    link(
        candidate="subject | block |\n d2 | 1:a | gone",
        gives="subject | outcome | person_ref |\n d2 | | | gone\n d1 | linked | c1 |",
    )


def test_subjects_of_different_suppliers_do_not_contest(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | supplier | tokens
            c1      | 1:a   | cohort     | x        | k01=x
            d1      | 1:a   | department | dfe      | k01=x
            d2      | 1:a   | department | dwp      | k01=x
        """,
        gives="""
            subject | outcome | person_ref
            c1      | linked  | c1
            d1      | linked  | c1
            d2      | linked  | c1
        """,
    )


def test_a_token_of_a_match_key_that_is_off_is_not_looked_at(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | tokens
            c1      | 1:a   | cohort     | k15=x
            d1      | 1:a   | department | k15=x
        """,
        gives="""
            subject | outcome
            c1      | linked
            d1      | waiting
        """,
    )


def test_a_claim_goes_to_its_subjects_own_partition_and_leaves_where_that_was(link: Bench) -> None:
    link(
        candidate="subject | block | home\n d1 | 1:a | 2",
        gives="subject | partition\n d1 | 2",
    )
    link(
        candidate="subject | block | home\n d1 | 1:a | 3",
        gives="subject | partition |\n d1 | 3 |\n d1 | 2 | gone",
    )
    link(candidate="subject | block |\n d1 | 1:a | gone", gives="subject | partition |\n d1 | 3 | gone")


def test_a_subject_that_moves_blocks_leaves_its_claim_behind_in_the_old_one(link: Bench) -> None:
    link(candidate="subject | block\n d1 | 1:a", gives="subject | block\n d1 | 1:a")
    link(
        candidate="subject | block |\n d1 | 1:b |\n d1 | 1:a | gone",
        gives="subject | block |\n d1 | 1:b |\n d1 | 1:a | gone",
    )


def test_only_what_differs_is_said(link: Bench) -> None:
    table = "subject | block | role | tokens\n c1 | 1:a | cohort | k01=x\n d1 | 1:a | department | k01=x"
    link(candidate=table, gives="subject\n c1\n d1")
    assert link(candidate=table) == []
    link(candidate="subject | block | tokens\n d2 | 1:a | k01=other", gives="subject | outcome\n d2 | waiting")


def test_claims_whose_candidates_are_compacted_away_are_taken_back(link: Bench) -> None:
    link(candidate="subject | block\n d1 | 1:a\n d2 | 1:b", gives="subject\n d1\n d2")
    link.forget()
    link(candidate="subject | block |\n d1 | 1:a | gone", gives="subject |\n d1 | gone")
    assert [(s.cells()["subject"], s.value) for s in link.reconcile()] == [("d2", None)]


def test_a_cohort_subject_says_which_suppliers_claim_its_person(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | supplier | tokens
            c1      | 1:a   | cohort     | x        | k02=s k05=x
            c2      | 1:a   | cohort     | y        | k02=s
            c3      | 1:a   | cohort     | y        | k02=t
            d1      | 1:a   | department | dwp      | k05=x
            d2      | 1:a   | department | dfe      | k05=x
            d3      | 1:a   | department | moj      | k02=t
            d4      | 1:a   | department | moj      | k02=t
        """,
        gives="""
            subject | outcome   | claimed
            c1      | linked    | dfe dwp
            c2      | linked    | dfe dwp
            c3      | linked    | moj
            d1      | linked    |
            d2      | linked    |
            d3      | contested |
            d4      | contested |
        """,
    )


def test_in_a_later_pass_the_cohort_keeps_the_persons_that_it_comes_with(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | person_ref | tokens
            c1      | 2:a   | cohort     | p          | p01=x
            c2      | 2:a   | cohort     | p          | p01=x
            c3      | 2:a   | cohort     | q          | p02=y
            d1      | 2:a   | department |            | p01=x p02=y
        """,
        gives="""
            subject | outcome | match_key | person_ref
            c1      | linked  | cohort    | p
            c2      | linked  | cohort    | p
            c3      | linked  | cohort    | q
            d1      | linked  | p01       | p
        """,
    )


def test_a_person_that_a_supplier_claimed_before_is_closed_to_its_other_subjects(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | supplier | person_ref | claimed | tokens
            c1      | 2:a   | cohort     | x        | p          | dfe     | p01=x p03=w
            c2      | 2:a   | cohort     | x        | q          |         | p02=y p03=w
            d1      | 2:a   | department | dfe      |            |         | p01=x p02=y
            d2      | 2:a   | department | dwp      |            |         | p01=x p02=y
            d3      | 2:a   | department | dfe      |            |         | p03=w
        """,
        gives="""
            subject | outcome   | match_key | person_ref
            c1      | linked    | cohort    | p
            c2      | linked    | cohort    | q
            d1      | linked    | p02       | q
            d2      | linked    | p01       | p
            d3      | contested |           |
        """,
    )


def test_a_token_that_too_many_subjects_of_one_council_share_is_not_used(link: Bench) -> None:
    link(
        candidate="""
            subject | block | role       | supplier | tokens
            c1      | 1:a   | cohort     | x        | k01=s k08=x
            c2      | 1:a   | cohort     | x        | k01=s
            c3      | 1:a   | cohort     | y        | k02=t
            c4      | 1:a   | cohort     | z        | k02=t
            d1      | 1:a   | department | dfe      | k01=s k08=x
        """,
        gives="""
            subject | outcome | match_key | person_ref
            c1      | linked  | cohort    | c1
            c2      | linked  | cohort    | c2
            c3      | linked  | cohort    | c3
            c4      | linked  | cohort    | c3
            d1      | linked  | k08       | c1
        """,
    )
    assert link.counts["tokens_over_their_limit"] == 1


def test_the_role_of_a_candidate_is_read_from_its_first_bytes() -> None:
    for supplier in ("dfe", "council-" + "x" * 200):
        for role in ("cohort", "department"):
            table = f"subject | block | supplier | role\n s1 | 2:a | {supplier} | {role}"
            ((_, value),) = Bench("link").records("linkage.candidate", table)
            assert value is not None
            assert of_department(value) == (role == "department")


def test_cohort_subjects_of_a_later_pass_stand_for_themselves_until_a_department_comes_and_after_it_has_gone() -> None:
    link = Bench("link")
    cohort = "subject | block | role | person_ref | tokens\n c{0} | 2:a | cohort | p{0} | p01=x"
    for name in "12":
        link(candidate=cohort.format(name), gives=f"subject | outcome | person_ref\n c{name} | linked | p{name}")
    link(
        candidate="subject | block | tokens\n d1 | 2:a | p01=x",
        gives="subject | outcome\n d1 | ambiguous",
    )
    link(
        candidate="subject | block |\n c2 | 2:a | gone",
        gives="""
            subject | outcome | person_ref | claimed |
            c1      | linked  | p1         | dfe     |
            c2      |         |            |         | gone
            d1      | linked  | p1         |         |
        """,
    )
    link(
        candidate="subject | block |\n d1 | 2:a | gone",
        gives="""
            subject | person_ref | claimed |
            c1      | p1         |         |
            d1      |            |         | gone
        """,
    )
    link(candidate=cohort.format("3"), gives="subject | person_ref\n c3 | p3")


def alerts(said: list[Said]) -> list[tuple[str, int | None]]:
    """Where, and how many; None where an alert is over."""
    found = [s for s in said if s.topic == "governance.alert"]
    return sorted(
        (s.key.decode().removeprefix("token_frequency|"), decoded(s.topic, s.value)["count"] if s.value else None)
        for s in found
    )


def take(link: Bench, text: str) -> list[Said]:
    return link.take([("linkage.candidate", link.records("linkage.candidate", text))])


def shared(*tokens: str, block: str = "1:a", gone: bool = False) -> str:
    """Three subjects of one council for each token: one more than k02 and k03 allow."""
    rows = [
        f"{t[-1]}{i}{block[-1]} | {block} | cohort | x | {t} | {'gone' if gone else ''}"
        for t in tokens
        for i in (1, 2, 3)
    ]
    return "subject | block | role | supplier | tokens |\n" + "\n".join(rows)


@pytest.mark.parametrize("others", [0, CROWDED])
def test_a_token_over_its_limit_raises_an_alert_until_it_is_over(link: Bench, others: int) -> None:
    """In a block that is worked out whole, and in one that is remembered."""
    if others:
        many = "\n".join(f"m{i} | 1:a | department | dfe | k05={i:x}" for i in range(others))
        take(link, f"subject | block | role | supplier | tokens\n{many}")
    assert alerts(take(link, shared("k02=s", "k03=t"))) == [
        ("k02 linkage.candidate-0", 1),
        ("k03 linkage.candidate-0", 1),
    ]
    assert alerts(take(link, shared("k03=u", block="1:b"))) == [("k03 linkage.candidate-0", 2)]
    assert alerts(take(link, shared("k03=u", block="1:b"))) == [], "what is said again is no news"
    one = "subject | block | role | supplier | tokens |\ns1a | 1:a | cohort | x | | gone"
    assert alerts(take(link, one)) == [("k02 linkage.candidate-0", None)]
    assert alerts(take(link, shared("k03=t", gone=True))) == [("k03 linkage.candidate-0", 1)]
    assert alerts(take(link, shared("k03=u", block="1:b", gone=True))) == [("k03 linkage.candidate-0", None)]
    assert link.reconcile() == []


def test_an_alert_of_a_token_holds_no_token_and_survives_a_lost_state(link: Bench) -> None:
    said = take(link, shared("k02=s"))
    (alert,) = [s for s in said if s.topic == "governance.alert"]
    assert alert.value is not None
    row = decoded(alert.topic, alert.value)
    assert (row["kind"], row["severity"], row["where"]) == ("token_frequency", "warning", "k02 linkage.candidate-0")
    link.forget()
    assert alerts(take(link, shared("k02=s"))) == []
    assert alerts(take(link, shared("k02=s", gone=True))) == [("k02 linkage.candidate-0", None)]
