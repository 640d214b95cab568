"""What a replay reads again, from the offsets of groups and logs."""

from __future__ import annotations

import pytest

from infra.commands.options import duration, moment_ms
from infra.replay.plan import At, ReplayError, Span, chosen, from_csv, planned, to_csv

TOPICS = [
    "identified.dfe.person",
    "identified.dfe.quarantine",
    "linkage.identity",
    "linkage.link",
    "linkage.activity",
    "linkage.sought",
    "governance.clock",
]


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("pseudonymise", {"pseudonymise": ["governance.clock", "identified.dfe.person"]}),
        ("join", {"join": ["governance.clock", "linkage.activity", "linkage.link", "linkage.sought"]}),
        ("linkage.link", {"route": ["linkage.link"], "join": ["linkage.link"]}),
        (
            "retention",
            {
                "retention.identity": ["governance.clock", "linkage.identity"],
                "retention.activity": ["governance.clock", "linkage.activity"],
            },
        ),
    ],
)
def test_a_target_is_a_processor_or_a_topic(target: str, found: dict[str, list[str]]) -> None:
    assert {d.name: about for d, about in chosen(target, TOPICS)} == found


@pytest.mark.parametrize("target", ["joins", "linkage.contribution", "identified.dfe.quarantine", "control"])
def test_what_nobody_reads_is_no_target(target: str) -> None:
    with pytest.raises(ReplayError, match="is no processor"):
        chosen(target, TOPICS)


def spans() -> list[Span]:
    return [Span(At("join", t, p), 10, 100) for t in ("linkage.activity", "linkage.link") for p in (0, 1)]


@pytest.mark.parametrize(
    ("start", "since", "again"),
    [
        (0, 0, 100),
        (10, 0, 100),  # where the log begins is all of it
        (11, 11, 89),
        (100, 100, 0),
    ],
)
def test_what_was_committed_since_an_offset_is_read_again(start: int, since: int, again: int) -> None:
    plan = planned(spans(), {"join": ["linkage.link"]}, [1], lambda _: start)
    assert [(s.at.topic, s.at.partition, s.since, s.again) for s in plan] == [
        ("linkage.activity", 1, 100, 0),  # beside it: there, and nothing of it again
        ("linkage.link", 1, since, again),
    ]


def test_a_replay_goes_back_and_never_forward() -> None:
    with pytest.raises(ReplayError, match="never forward"):
        planned(spans(), {"join": ["linkage.link"]}, None, lambda _: 101)
    with pytest.raises(ReplayError, match="no such partition: 7"):
        planned(spans(), {"join": ["linkage.link"]}, [0, 7], lambda _: 0)


def test_a_plan_is_exported_and_read_back() -> None:
    plan = planned(spans(), {"join": ["linkage.link"]}, None, lambda s: 20 + s.at.partition)
    assert from_csv(to_csv(plan)) == {At("join", "linkage.link", 0): 20, At("join", "linkage.link", 1): 21}


@pytest.mark.parametrize("text", ["", "a,b,c\n", "processor,topic,partition,offset\njoin,linkage.link,0,-1\n"])
def test_a_file_that_is_no_plan_is_refused_by_line(text: str) -> None:
    with pytest.raises(ReplayError, match=r"line \d"):
        from_csv(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("2h30m", 9000), ("7d", 604_800), ("PT1H", 3600), ("P1D", 86_400), ("soon", None)],
)
def test_durations_are_read_as_people_and_as_iso_8601_write_them(text: str, seconds: float | None) -> None:
    found = duration(text)
    assert (found.total_seconds() if found else None) == seconds


def test_a_moment_without_a_zone_is_utc() -> None:
    assert moment_ms("--since", "1970-01-01T00:00:01") == 1_000
    assert moment_ms("--since", "1970-01-01T01:00:01+01:00") == 1_000
