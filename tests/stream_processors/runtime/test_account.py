"""Accounts: what is counted is tied to offsets, and what does not balance is named with its range."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.rows import from_value
from stream_processors.runtime.account import (
    BATCH_HEADER,
    SKIPPED,
    TOPIC,
    Account,
    Accountant,
    publications,
    record_hashes,
)
from stream_processors.runtime.records import HEARTBEAT_KEY, Inputs, Outputs
from tests.stream_processors.tables import REGISTRY

IN = "identified.dfe.absence"
FIRST, SECOND = b"\x01" * 8, b"\x02" * 8


def inputs(offsets: list[int], keys: list[bytes] | None = None, batch: bytes = b"", topic: str = IN) -> Inputs:
    keys = keys or [b"k%d" % o for o in offsets]
    headers = [[(BATCH_HEADER, batch)] if batch else None for _ in offsets]
    return Inputs(topic, 0, keys, [b"v"] * len(offsets), offsets, [0] * len(offsets), headers)


def accountant(*accounts: Account) -> Accountant:
    return Accountant("join", 0, REGISTRY, accounts=accounts)


def booked(of: Accountant, batch: Inputs, outputs: Outputs | None = None) -> Accountant:
    of.commit(of.book([batch], outputs or Outputs(), {}, {batch.topic: batch.offsets[-1] + 1}, 7))
    return of


def test_records_heartbeats_and_replaced_records_are_counted_up_to_the_committed_offset() -> None:
    of = booked(accountant(), inputs([3, 4, 6, 7, 9], [b"a", HEARTBEAT_KEY, b"b", b"a", HEARTBEAT_KEY]))
    found = of.accounts[IN, ""]
    assert (found.since, found.next, found.read, found.heartbeats, found.coalesced) == (3, 10, 5, 2, 1)


def test_what_the_processor_says_is_counted_by_topic_and_what_it_tells_by_input() -> None:
    out = Outputs()
    out.emit("linkage.link", 0, [b"a", b"b", b"c"], [b"1", None, b"2"])
    out.tally(IN, "accepted", 2)
    of = booked(accountant(), inputs([0, 1]), out)
    assert of.accounts["", ""].counts == {"linkage.link": 2, "linkage.link tombstones": 1}
    assert of.accounts[IN, ""].counts == {"accepted": 2}


def test_two_publications_that_lie_mixed_are_told_apart() -> None:
    a, b = inputs([0, 2], batch=FIRST), inputs([1, 3], batch=SECOND)
    mixed = Inputs(
        IN, 0, [*a.keys, *b.keys], [b"v"] * 4, [0, 1, 2, 3], [0] * 4, [*(a.headers or ()), *(b.headers or ())]
    )
    of = booked(accountant(), mixed)
    first, second = of.accounts[IN, FIRST.hex()], of.accounts[IN, SECOND.hex()]
    assert (first.read, second.read) == (2, 2)
    assert first.digest == int(record_hashes(a.keys, a.values).sum())
    assert second.digest == int(record_hashes(b.keys, b.values).sum())


def test_a_header_that_is_no_publication_is_none() -> None:
    batch = Inputs(IN, 0, [b"a", b"b"], [b"", b""], [0, 1], [0, 0], [[(BATCH_HEADER, b"Anna Smith")], [("x", FIRST)]])
    assert publications(batch) == ["", ""]


def test_an_account_is_the_same_after_it_was_written_and_read() -> None:
    of = Accountant("join", 0, REGISTRY, lambda *_: [("in = out", 2, 1)])
    made = of.book([inputs([0, 1], batch=FIRST)], Outputs(), {}, {IN: 2}, 7)
    read = [Account.of_row(from_value(TOPIC, v or b"", REGISTRY)) for v in made.emit.values]
    assert {a.key: a for a in read} == {a.key: a for a in made.accounts.values()}
    assert [a.key for a in read] == list(made.emit.keys)


def test_an_imbalance_of_one_is_kept_with_its_offsets_and_told_once() -> None:
    expected = iter([[("in = out", 2, 1)], [], []])
    of = Accountant("join", 0, REGISTRY, lambda *_: next(expected))
    first = of.commit(of.book([inputs([5, 6])], Outputs(), {}, {IN: 7}, 7))
    assert [(i.rule, i.expected, i.found, i.where) for i in first] == [("in = out", 2, 1, f"{IN} 5..6")]
    assert of.commit(of.book([inputs([7])], Outputs(), {}, {IN: 8}, 7)) == []
    assert of.accounts["", ""].imbalances == tuple(first)


def test_nothing_is_counted_by_a_transaction_that_is_aborted() -> None:
    of = booked(accountant(), inputs([0]))
    before = dict(of.accounts)
    of.book([inputs([1, 2])], Outputs(), {}, {IN: 3}, 7)
    assert of.accounts == before


def test_offsets_that_were_skipped_are_an_imbalance() -> None:
    of = booked(accountant(), inputs([0, 1]))
    assert [(i.rule, i.where) for i in of.resume({IN: 5}, 9)] == [(SKIPPED, f"{IN} 2..4")]
    assert [i.where for i in of.accounts[IN, ""].imbalances] == [f"{IN} 2..4"]


def test_a_first_start_in_the_middle_of_a_log_is_no_imbalance() -> None:
    of = accountant()
    assert of.resume({IN: 100}, 9) == []
    assert (of.accounts[IN, ""].since, of.accounts[IN, ""].next) == (100, 100)


def test_a_replay_from_the_beginning_counts_anew_and_takes_back_what_was_found_there() -> None:
    of = Accountant("join", 0, REGISTRY, lambda *_: [("in = out", 2, 1)])
    batch = inputs([0, 1], batch=FIRST)
    booked(of, batch)
    booked(of, inputs([2, 3], topic="linkage.link"))
    once = of.accounts[IN, FIRST.hex()]
    of.resume({IN: 0, "linkage.link": 4}, 9)
    assert [i.where for i in of.accounts["", ""].imbalances] == ["linkage.link 2..3"]
    booked(of, batch)
    again = of.accounts[IN, FIRST.hex()]
    assert (again.read, again.digest, again.since) == (once.read, once.digest, once.since)
    assert of.accounts[IN, ""].read == 2


def test_a_replay_from_within_a_publication_counts_the_rest_of_it_only() -> None:
    of = booked(accountant(), inputs([0, 1, 2, 3], batch=FIRST))
    of.resume({IN: 2}, 9)
    booked(of, inputs([2, 3], batch=FIRST))
    found = of.accounts[IN, FIRST.hex()]
    assert (found.since, found.read) == (2, 2)


def test_a_replay_of_what_comes_after_a_publication_leaves_it_alone() -> None:
    of = booked(booked(accountant(), inputs([0, 1], batch=FIRST)), inputs([2, 3], batch=SECOND))
    of.resume({IN: 2}, 9)
    assert of.accounts[IN, FIRST.hex()].read == 2
    assert of.accounts[IN, SECOND.hex()].read == 0


def test_after_a_long_absence_everything_is_counted_from_where_it_goes_on() -> None:
    of = booked(accountant(), inputs([0, 1]))
    of.forget({IN: 2})
    found = booked(of, inputs([2])).accounts[IN, ""]
    assert (found.since, found.next, found.read) == (2, 3, 1)


def test_what_did_not_balance_is_taken_back_once_all_of_it_is_said_anew() -> None:
    of = Accountant("join", 0, REGISTRY, lambda *_: [("in = out", 2, 1)])
    booked(of, inputs([0, 1]))
    booked(of, inputs([2, 3]))
    of.forget({IN: 4}, {IN: 2})
    assert [i.where for i in of.accounts["", ""].imbalances] == [f"{IN} 0..1"]


records = st.lists(st.tuples(st.binary(max_size=8), st.none() | st.binary(max_size=8)), max_size=30)


@settings(deadline=None)
@given(records, st.randoms(use_true_random=False))
def test_the_sum_of_hashes_is_the_same_in_any_order(
    rows: list[tuple[bytes, bytes | None]], order: random.Random
) -> None:
    assert total(rows) == total(order.sample(rows, len(rows)))


@settings(deadline=None)
@given(records.filter(len), st.data())
def test_the_sum_of_hashes_shows_a_record_that_is_missing_double_or_altered(
    rows: list[tuple[bytes, bytes | None]], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    key, value = rows[at]
    assert total(rows[:at] + rows[at + 1 :]) != total(rows)
    assert total([*rows, rows[at]]) != total(rows)
    assert total([*rows[:at], (key + b"x", value), *rows[at + 1 :]]) != total(rows)
    assert total([*rows[:at], (key, (value or b"") + b"x"), *rows[at + 1 :]]) != total(rows)


def total(rows: list[tuple[bytes, bytes | None]]) -> int:
    return int(record_hashes([k for k, _ in rows], [v for _, v in rows]).sum(dtype=np.uint64))


def test_values_that_are_exchanged_between_keys_show() -> None:
    assert total([(b"a", b"1"), (b"b", b"2")]) != total([(b"a", b"2"), (b"b", b"1")])
