"""publish: one de-identified record per person, as long as a live cohort record contributes to it."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import polars as pl
import pytest

from stream_processors.refs import ResearchIds
from stream_processors.runtime.partition import partition_of
from tests.stream_processors.tables import PARTITIONS, RESEARCH_KEY, Bench, Said, decoded, framed, wide

COHORT = """
    person | record | dataset | programme_status | programme_start_month | birth_year | sex | area    | family_ref
    p1     | c1     | person  | participant      | 2013-05               | 2001       | F   | E01003235 | f1
"""
TOPIC = "linkage.contribution"
IDS = ResearchIds(RESEARCH_KEY)


def of(name: str, make: Any = IDS.person) -> str:
    """Pseudonym of a short name."""
    return str(pl.DataFrame({"x": [wide(name)]}).select(make(pl.col("x"))).item())


class Publisher(Bench):
    """publish, with what it says as research records."""

    def say(self, text: str) -> dict[str, dict[str, Any] | None]:
        """Take contributions; return what is said of each person, by person id."""
        said = self.take([(TOPIC, self.records(TOPIC, text))])
        assert [s for s in said if s.topic != "research.person"] == []
        return {s.key.decode(): decoded(s.topic, s.value) if s.value else None for s in said}

    def record(self, text: str) -> dict[str, Any]:
        """The one record that is said."""
        (record,) = self.say(text).values()
        assert record is not None
        return record


@pytest.fixture
def publish() -> Publisher:
    return Publisher("publish")


def test_a_cohort_record_makes_a_person_under_pseudonyms_of_the_research_key(publish: Publisher) -> None:
    record = publish.record(COHORT)
    assert record["person_id"] == of("p1")
    assert record["family_id"] == of("f1", IDS.family)
    assert (record["programme_status"], record["programme_start_month"]) == ("participant", datetime.date(2013, 5, 1))
    assert (record["birth_year"], record["sex"], record["area"]) == (2001, "F", "E01003235")
    assert [record[a] for a in ("safeguarding", "absence", "offence", "contact")] == [[]] * 4


def test_a_record_lies_in_the_partition_of_its_pseudonym(publish: Publisher) -> None:
    (said,) = publish.take([(TOPIC, publish.records(TOPIC, COHORT))])
    assert (said.key, said.partition, said.headers) == (of("p1").encode(), partition_of(of("p1"), PARTITIONS), [])


def test_nobody_is_published_without_a_cohort_record(publish: Publisher) -> None:
    assert publish.say("person | record | dataset | birth_year\n p1 | d1 | person | 2001\n p1 | r1 | absence |") == {}
    assert publish.record(COHORT)["absence"] != []


def test_what_has_expired_by_the_confirmed_day_does_not_pass(publish: Publisher) -> None:
    for day in (datetime.date(2030, 1, 1), datetime.date(2030, 1, 2)):
        publish.take([("governance.clock", [(b"clock", framed("governance.clock", {"as_of": day}))])])
    said = publish.take([(TOPIC, publish.records(TOPIC, COHORT))])
    assert [(s.topic, decoded(s.topic, s.value)["error"]) for s in said if s.value] == [
        ("governance.quarantine", "Expired")
    ]


def test_a_person_goes_with_its_last_cohort_record_and_comes_back_whole(publish: Publisher) -> None:
    before = publish.record(COHORT + "    p1 | r1 | absence\n")
    assert publish.say("person | record |\n p1 | c1 | gone") == {of("p1"): None}
    assert publish.record(COHORT) == before


def test_items_come_in_order_of_months_and_those_without_one_first(publish: Publisher) -> None:
    record = publish.record(COHORT + "    p1 | r1 | absence\n")
    assert [i["month"] for i in record["absence"]] == [None]
    record = publish.record("""
        person | record | dataset | month   | sessions_possible
        p1     | r2     | absence | 2014-07 | 300
        p1     | r3     | absence | 2013-07 | 301
        p1     | r4     | absence | 2014-07 | 299
    """)
    assert [i["month"] and i["month"].isoformat() for i in record["absence"]] == [
        None,
        "2013-07-01",
        "2014-07-01",
        "2014-07-01",
    ]


@pytest.mark.parametrize(
    ("start", "month", "distance"),
    [
        ("2013-05", "2013-05", 0),
        ("2013-05", "2014-06", 13),
        ("2013-05", "2013-04", -1),
        ("2013-05", "2004-01", -112),
        ("2013-05", "2113-05", 1200),
        ("2013-05", "2113-06", None),
        ("2113-05", "2013-05", -1200),
        ("2113-06", "2013-05", None),
        ("2013-05", "", None),
        ("", "2013-05", None),
    ],
)
def test_an_item_says_how_many_months_it_lies_from_the_start(
    publish: Publisher, start: str, month: str, distance: int | None
) -> None:
    record = publish.record(f"""
        person | record | dataset | programme_status | programme_start_month | month
        p1     | c1     | person  | participant      | {start}               |
        p1     | r1     | absence |                  |                       | {month}
    """)
    assert [i["months_from_start"] for i in record["absence"]] == [distance]


def test_a_corrected_start_moves_every_item(publish: Publisher) -> None:
    publish.say(COHORT + "    p1 | r1 | absence\n")
    publish.say("person | record | dataset | month\n p1 | r1 | absence | 2014-05\n p1 | r2 | exclusion | 2013-04")
    record = publish.record(COHORT.replace("2013-05", "2014-01"))
    assert [record[a][0]["months_from_start"] for a in ("absence", "exclusion")] == [4, -9]


def test_the_order_of_arrival_changes_no_byte() -> None:
    rows = ["p1 | r1 | absence | 2014-07", "p1 | r2 | absence | 2013-07", "p1 | r3 | exclusion | 2013-08"]
    said: set[bytes | None] = set()
    for order in (rows, rows[::-1], rows[1:] + rows[:1]):
        publish = Publisher("publish")
        publish.say(COHORT)
        last: list[Said] = []
        for row in order:
            last = publish.take([(TOPIC, publish.records(TOPIC, f"person | record | dataset | month\n{row}"))])
        said |= {s.value for s in last}
    assert len(said) == 1


def test_more_items_than_one_byte_can_count(publish: Publisher) -> None:
    rows = "\n".join(f"p1 | r{i} | absence | {i}" for i in range(200))
    publish.say(COHORT)
    record = publish.record(f"person | record | dataset | sessions_possible\n{rows}")
    assert sorted(i["sessions_possible"] for i in record["absence"]) == list(range(200))


def test_a_changed_item_replaces_the_old_one_and_a_deleted_one_goes(publish: Publisher) -> None:
    publish.say(COHORT)
    table = "person | record | dataset | sessions_possible\n p1 | r1 | absence | {}"
    assert [i["sessions_possible"] for i in publish.record(table.format(300))["absence"]] == [300]
    assert [i["sessions_possible"] for i in publish.record(table.format(299))["absence"]] == [299]
    assert publish.record("person | record |\n p1 | r1 | gone")["absence"] == []


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        ("participant | 2015-01", "comparison | 2013-01", "participant"),
        ("comparison | 2013-01", "participant | 2015-01", "participant"),
        ("participant | 2015-01", "participant | 2013-01", "2013"),
        ("participant | 2013-01", "participant |", "2013"),
        ("participant |", "participant | 2013-01", "2013"),
    ],
)
def test_facts_come_from_a_participant_then_from_the_earliest_start(
    publish: Publisher, first: str, second: str, taken: str
) -> None:
    record = publish.record(f"""
        person | record | dataset | programme_status | programme_start_month
        p1 | c1 | person | {first}
        p1 | c2 | person | {second}
    """)
    assert taken in (record["programme_status"], str(record["programme_start_month"])[:4])


def test_facts_that_are_equal_so_far_come_from_the_smallest_reference_and_from_one_record_only(
    publish: Publisher,
) -> None:
    record = publish.record("""
        person | record | dataset | programme_status | area    | criterion_crime | birth_year | sex
        p1     | c2     | person  | participant      | E01003236 | yes             | 2001       | M
        p1     | c1     | person  | participant      | E01003235 |                 |            |
        p1     | a0     | person  |                  |         |                 | 1999       | F
    """)
    assert (record["area"], record["criterion_crime"]) == ("E01003235", None)
    assert (record["birth_year"], record["sex"]) == (2001, "M"), "the cohort's before the department's"


def test_year_and_sex_that_the_cohort_lacks_come_from_a_department(publish: Publisher) -> None:
    record = publish.record("""
        person | record | dataset | programme_status | birth_year | sex
        p1     | c1     | person  | participant      |            |
        p1     | d1     | person  |                  | 2001       | F
    """)
    assert (record["birth_year"], record["sex"]) == (2001, "F")
    assert publish.record("person | record |\n p1 | d1 | gone")["sex"] is None


def test_a_duplicate_says_nothing(publish: Publisher) -> None:
    publish.say(COHORT)
    assert publish.say(COHORT) == {}


def test_a_change_that_the_research_record_does_not_show_says_nothing(publish: Publisher) -> None:
    publish.say(COHORT)
    assert publish.say("person | record | dataset | birth_year | sex\n p1 | d1 | person | 1999 | M") == {}


REFUSED = """
    person | record | dataset | sessions_possible
    p1     | r1     | absence | 99999
"""


def test_a_contribution_that_the_guard_refuses_is_left_out_and_accounted_for_without_its_content(
    publish: Publisher,
) -> None:
    publish.say(COHORT)
    (said,) = publish.take([(TOPIC, publish.records(TOPIC, REFUSED))])
    assert (said.topic, said.key) == ("governance.quarantine", told_of("p1", "r1"))
    assert said.value is not None
    row = decoded(said.topic, said.value)
    assert (row["error"], row["offset"], row["field"]) == ("RefusedByGuard", 1, None)
    assert wide("p1").encode() not in said.key + said.value


def test_a_refused_version_takes_the_older_version_back(publish: Publisher) -> None:
    publish.say(COHORT + "    p1 | r1 | absence\n")
    topics = {s.topic: s for s in publish.take([(TOPIC, publish.records(TOPIC, REFUSED))])}
    value = topics["research.person"].value
    assert value is not None
    assert decoded("research.person", value)["absence"] == []


LET_THROUGH, GONE = REFUSED.replace("99999", "10"), "person | record |\n p1 | r1 | gone"


@pytest.mark.parametrize("then", [LET_THROUGH, GONE])
def test_what_was_told_of_a_refusal_ends_when_it_is_let_through_or_is_no_more(publish: Publisher, then: str) -> None:
    publish.say(COHORT)
    publish.take([(TOPIC, publish.records(TOPIC, REFUSED))])
    after = publish.take([(TOPIC, publish.records(TOPIC, then))])
    assert [s.value for s in after if s.key == told_of("p1", "r1")] == [None]
    again = publish.take([(TOPIC, publish.records(TOPIC, then))])
    assert [s for s in again if s.topic == "governance.quarantine"] == []
    assert publish.reconcile() == []


def told_of(person: str, record: str) -> bytes:
    """What governance is told of a refused contribution under."""
    key = f"{wide(person)}|{wide(record)}"
    return b"linkage.contribution|0|" + hashlib.sha256(key.encode()).hexdigest().encode()


def test_a_contribution_that_nobody_can_read_is_refused(publish: Publisher) -> None:
    publish.say(COHORT)
    key = f"{wide('p1')}|{wide('r1')}".encode()
    (said,) = publish.take([(TOPIC, [(key, b"\x00\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")])])
    assert said.value is not None
    assert decoded(said.topic, said.value)["error"] == "Undecodable"


def test_nothing_of_the_linkage_zone_is_in_a_research_record(publish: Publisher) -> None:
    text = COHORT + "    p1 | r1 | absence\n"
    (said,) = publish.take([(TOPIC, publish.records(TOPIC, text))])
    assert said.value is not None
    for reference in ("p1", "c1", "r1", "f1"):
        assert wide(reference).encode() not in said.key + said.value
    assert b"dfe" not in said.value


def test_a_person_whose_contributions_are_compacted_away_is_withdrawn(publish: Publisher) -> None:
    publish.say(COHORT)
    publish.forget()
    assert publish.say("person | record |\n p1 | c1 | gone") == {of("p1"): None}
    publish.say(COHORT)
    publish.forget()
    assert [(s.key.decode(), s.value) for s in publish.reconcile()] == [(of("p1"), None)]
