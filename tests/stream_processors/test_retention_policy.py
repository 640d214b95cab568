"""When a record expires, as a data-protection officer would read it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import contracts
from schemas.contracts import Contract
from stream_processors import generalise
from stream_processors.retention_policy import (
    EARLIEST,
    FILE,
    Period,
    PolicyMissingError,
    RetentionPolicy,
    expires_on,
    load_policy,
    waits_until,
)
from stream_processors.topology import build
from tests.stream_processors.tables import CONTEXT

CONTACT = contracts.contract("identified/health.contact")
PERSON = contracts.contract("identified/health.person")
STOP = date(2022, 12, 31)
POLICY = RetentionPolicy(
    hard_stop=STOP,
    linkage_window_days=10,
    periods={
        "health.contact": Period(after="event", days=30),
        "health.person": Period(after="receipt", days=30),
    },
)


def expiry(contract: Contract, received: date, anchor: date | None = None) -> date:
    frame = pl.DataFrame({"contact_date": [anchor]}, schema={"contact_date": pl.Date})
    got = frame.select(expires_on(POLICY, contract, pl.Series([received]))).to_series()
    assert got.dtype == pl.Date
    found: date = got[0]
    return found


@pytest.mark.parametrize(
    ("anchor", "received", "expires"),
    [
        ("2021-03-01", "2022-01-01", "2021-03-31"),  # the event counts, not the receipt
        ("2021-12-02", "2022-01-01", "2022-01-01"),
        (None, "2022-01-01", "2022-01-31"),  # no date: receipt
        ("1900-01-01", "2022-01-01", "2022-01-31"),  # a default date is no date
        ("1950-01-01", "2022-01-01", "1950-01-31"),
        ("2022-12-01", "2022-12-02", "2022-12-31"),
        ("2022-12-02", "2022-12-02", "2022-12-31"),  # the hard stop
        ("9999-12-31", "2022-01-01", "2022-12-31"),
        ("2024-02-01", "2024-02-02", "2022-12-31"),  # too late already
        (None, "2022-12-30", "2022-12-31"),
    ],
)
def test_a_record_expires_days_after_its_event_and_never_after_the_hard_stop(
    anchor: str | None, received: str, expires: str
) -> None:
    day = date.fromisoformat
    assert expiry(CONTACT, day(received), day(anchor) if anchor else None) == day(expires)


def test_a_person_expires_days_after_receipt_whatever_else_it_says() -> None:
    assert expiry(PERSON, date(2022, 1, 1), date(2015, 1, 1)) == date(2022, 1, 31)


def test_the_unmatched_wait_for_the_linkage_window() -> None:
    received = pl.Series([date(2022, 1, 1), date(2022, 12, 30)])
    got = pl.DataFrame({"x": [1, 2]}).select(waits_until(POLICY, received)).to_series().to_list()
    assert got == [date(2022, 1, 11), STOP]


@given(
    st.lists(st.tuples(st.none() | st.dates(), st.dates(date(1970, 1, 1), date(2100, 1, 1))), max_size=20),
    st.integers(0, 36_525),
)
def test_whole_columns_agree_with_the_sentence(rows: list[tuple[date | None, date]], days: int) -> None:
    policy = POLICY.model_copy(update={"periods": {"health.contact": Period(after="event", days=days)}})
    anchors = pl.Series("contact_date", [a for a, _ in rows], dtype=pl.Date)
    received = pl.Series("received", [r for _, r in rows], dtype=pl.Date)
    expected = []
    for anchor, receipt in rows:
        start = anchor if anchor is not None and anchor >= EARLIEST else receipt
        expected.append(STOP if start >= STOP else min(STOP, start + timedelta(days=days)))
    frame = anchors.to_frame()
    assert frame.with_columns(expires_on(policy, CONTACT, received).alias("e"))["e"].to_list() == expected
    frame = frame.with_columns(received)
    assert frame.select(expires_on(policy, CONTACT, pl.col("received"))).to_series().to_list() == expected


def test_dates_at_the_end_of_the_type_do_not_wrap_round() -> None:
    edges = pl.Series("contact_date", [2**31 - 1, -(2**31)], dtype=pl.Int32).cast(pl.Date).to_frame()
    received = pl.Series([date(2022, 1, 1)] * 2)
    got = edges.select(expires_on(POLICY, CONTACT, received)).to_series().to_list()
    assert got == [STOP, date(2022, 1, 31)]


# --- the file ---


def test_every_identified_contract_has_a_period_and_the_hard_stop_is_what_was_promised() -> None:
    policy = load_policy()
    assert policy.hard_stop == STOP
    for name in contracts.supplied():
        assert policy.period(contracts.contract(name)).days > 0
    assert set(policy.periods) == {n.removeprefix("identified/") for n in contracts.supplied()}


def test_persons_count_from_receipt_and_events_from_the_event() -> None:
    for name, period in load_policy().periods.items():
        assert period.after == ("receipt" if name.endswith(".person") else "event")


def test_a_default_date_is_the_same_here_and_where_dates_are_generalised() -> None:
    assert pl.select(generalise.EARLIEST).item() == EARLIEST


def written(tmp_path: Path, **change: object) -> Path:
    file = tmp_path / "retention.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(FILE.read_text()), **change}))
    return file


def test_a_contract_without_a_period_stops_start_up(tmp_path: Path) -> None:
    periods = yaml.safe_load(FILE.read_text())["periods"]
    del periods["dwp.benefit"]
    with pytest.raises(PolicyMissingError, match=r"identified/dwp\.benefit"):
        load_policy(written(tmp_path, periods=periods))


def test_a_contract_without_a_period_has_no_expiry() -> None:
    with pytest.raises(PolicyMissingError, match=r"dfe\.absence"):
        expires_on(POLICY, contracts.contract("identified/dfe.absence"), pl.col("received"))


@pytest.mark.parametrize(
    ("name", "period"),
    [
        ("dfe.nothing", {"after": "event", "days": 1}),  # no such contract
        ("dfe.person", {"after": "event", "days": 1}),  # no event to count from
        ("dfe.absence", {"after": "event", "days": -1}),
        ("dfe.absence", {"after": "birth", "days": 1}),
    ],
)
def test_a_period_that_makes_no_sense_is_refused(tmp_path: Path, name: str, period: dict[str, object]) -> None:
    periods = {**yaml.safe_load(FILE.read_text())["periods"], name: period}
    with pytest.raises(ValidationError):
        load_policy(written(tmp_path, periods=periods))


def test_another_policy_has_another_digest_and_pseudonymise_another_version() -> None:
    shorter = POLICY.model_copy(update={"hard_stop": date(2022, 6, 30)})
    period = POLICY.model_copy(update={"periods": {**POLICY.periods, "health.contact": Period(after="event", days=29)}})
    assert len({p.digest for p in (POLICY, shorter, period)}) == 3
    assert POLICY.digest == RetentionPolicy.model_validate(POLICY.model_dump()).digest
    versions = {build("pseudonymise", replace(CONTEXT, policy=p)).version for p in (POLICY, shorter, period)}
    assert len(versions) == 3
