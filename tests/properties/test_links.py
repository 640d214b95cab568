"""Linking by changes ends where linking in one go does: a state machine of what suppliers and tasks may do.

Upserts, corrections, tombstones, duplicates, rotations of keys and partial runs, in any order and with partitions
interleaved as they like; at rest the links are the batch oracle's, near matches among them.
"""

from __future__ import annotations

import datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from schemas.contracts import identified
from tests.examples import examples
from tests.stream_processors.tables import PARTITIONS, Flow

BORN = datetime.date(2001, 3, 4)
ANNA: dict[str, Any] = {
    "forename": "Anna",
    "surname": "Whitfield",
    "date_of_birth": BORN,
    "sex": "F",
    "postcode": "SE6 1AA",
}
WHO: list[dict[str, Any]] = [
    ANNA,
    ANNA,
    ANNA | {"postcode": None},  # near1
    ANNA | {"date_of_birth": None},  # near2
    ANNA | {"date_of_birth": datetime.date(1999, 8, 27)},  # near3
    ANNA | {"forename": "A"},  # near1
    ANNA | {"forename": "Jack", "sex": "M"},  # a twin
    ANNA | {"forename": None, "sex": "M"},
    ANNA | {"surname": "Whitfeild"},  # k05
    ANNA | {"postcode": "SE6 2AA"},  # k08
    ANNA | {"postcode": "N1 9GU", "middle_names": "Rose"},
    ANNA | {"middle_names": "Rose"},
    ANNA | {"date_of_birth": datetime.date(2001, 4, 3)},  # p01
]
"""Details by which subjects meet each other in all passes, by match keys and by near matches."""
SUBJECTS = [
    ("council-northam", "n1"),
    ("council-northam", "n2"),
    ("council-southam", "s1"),
    ("dfe", "u1"),
    ("dfe", "u2"),
    ("dwp", "x1"),
]
PROCESSORS = ("pseudonymise", "route", "link")
SUBJECT, DETAILS = st.sampled_from(SUBJECTS), st.sampled_from(WHO)


class Links(RuleBasedStateMachine):
    """Suppliers say what they like; tasks of the three linking processors take what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = Flow()
        self.last: dict[tuple[str, str], dict[str, Any]] = {}

    def say(self, subject: tuple[str, str], details: dict[str, Any]) -> None:
        supplier, id_ = subject
        row = details | {identified(supplier, "person").subject_field: id_}
        if supplier.startswith("council"):
            row["programme_status"] = "participant"
        self.flow.put(supplier, "person", **row)
        self.last[subject] = details

    @initialize(
        of=st.lists(DETAILS, min_size=len(SUBJECTS), max_size=len(SUBJECTS)), known=st.integers(0, len(SUBJECTS))
    )
    def begin(self, of: list[dict[str, Any]], known: int) -> None:
        """Some are there from the start."""
        for subject, details in list(zip(SUBJECTS, of, strict=True))[:known]:
            self.say(subject, details)

    @rule(subject=SUBJECT, details=DETAILS)
    def upsert_or_correct(self, subject: tuple[str, str], details: dict[str, Any]) -> None:
        self.say(subject, details)

    @precondition(lambda self: self.last)
    @rule(which=st.integers(0, 100))
    def say_again(self, which: int) -> None:
        subject = sorted(self.last)[which % len(self.last)]
        self.say(subject, self.last[subject])

    @rule(subject=SUBJECT)
    def delete(self, subject: tuple[str, str]) -> None:
        self.flow.delete(subject[0], "person", subject[1])
        self.last.pop(subject, None)

    @rule()
    def rotate(self) -> None:
        """The keys of tokens are rotated by one stage."""
        self.flow.rotate()

    @rule(name=st.sampled_from(PROCESSORS), partition=st.integers(0, PARTITIONS - 1), most=st.integers(1, 3))
    def step(self, name: str, partition: int, most: int) -> None:
        """One task takes a few records."""
        self.flow.driver.step((name, partition), most)

    @rule(some=st.sets(st.sampled_from(PROCESSORS), min_size=1), batch=st.integers(1, 5))
    def run_some(self, some: set[str], batch: int) -> None:
        """Some processors come to rest, the others stand still."""
        self.flow.driver.run(batch, only=some)

    @invariant()
    def nobody_is_linked_to_nothing(self) -> None:
        """At any time a link names a person, and nothing else does."""
        for link in self.flow.links().values():
            assert (link["outcome"] == "linked") == (link["person_ref"] is not None) == (link["match_key"] is not None)

    def teardown(self) -> None:
        """At rest all is as the oracle says."""
        self.flow.run(7)
        assert self.flow.differences() == []


def test_any_sequence_of_changes_ends_in_the_links_of_the_oracle() -> None:
    run_state_machine_as_test(
        Links,
        settings=settings(
            max_examples=examples(12), stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
