"""At rest is who has taken in everything, and nobody who still reads everything again."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import TopicPartition

from infra.rest import Flow, Lag
from infra.settings import Settings
from stream_processors.runtime.restore import metadata_of


class Group:
    """A group that has committed one offset."""

    def __init__(self, metadata: str) -> None:
        self._metadata = metadata

    def committed(self, asked: list[TopicPartition], _: float) -> list[TopicPartition]:
        return [TopicPartition(tp.topic, tp.partition, 5, metadata=self._metadata) for tp in asked]

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("metadata", "behind"),
    [
        (metadata_of(1_700_000_000_000, "v"), set()),
        (metadata_of(0, "v"), {"join"}),
        (metadata_of(0, "v", 3), {"join"}),
        ("", set()),
    ],
    ids=["at the end", "catches up after a long absence", "replays", "somebody else's commit"],
)
def test_who_catches_up_is_not_at_rest_although_its_offsets_are_at_the_end(
    metadata: str, behind: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Flow(Settings(security="plaintext"))
    group: Any = Group(metadata)
    flow._groups["lethe.join"] = group

    def lags() -> list[Lag]:
        assert flow._committed("lethe.join", [("linkage.link", 0)]) == {("linkage.link", 0): 5}
        return [Lag("join", "linkage.link", 0, 5, 5)]

    monkeypatch.setattr(flow, "lags", lags)
    assert flow.behind() == behind
    assert flow.behind({"link"}) == set()
