"""Every client of the brokers is configured in one place, so that none goes without its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from confluent_kafka import Consumer

from infra.settings import Settings
from infra.topics import topics_of
from stream_processors.runtime.kafka import meet, producer_config

ROOT = Path(__file__).parents[3]
ONE_PLACE = ROOT / "stream_processors" / "runtime" / "kafka.py"


class Asked:
    """A consumer that counts how often it is asked what topics there are."""

    def __init__(self) -> None:
        self.times = 0

    def list_topics(self, timeout: float) -> None:
        assert timeout > 0
        self.times += 1


def test_topics_are_asked_for_once_and_before_they_are_read() -> None:
    consumer, met = Asked(), set[str]()
    for topics, times in ((["a", "b"], 1), (["b"], 1), (["a", "c"], 2), (["c"], 2), ([], 2)):
        meet(cast(Consumer, consumer), topics, met)
        assert consumer.times == times, topics


def test_no_module_but_one_names_the_brokers_to_a_client() -> None:
    named = {
        path
        for part in ("infra", "producers", "schemas", "stream_processors")
        for path in (ROOT / part).rglob("*.py")
        if "bootstrap.servers" in path.read_text()
    }
    assert named == {ONE_PLACE}


def test_a_full_request_is_one_that_every_topic_takes(tmp_path: Path) -> None:
    """Half of it: what cannot be compressed grows a little, and one record more may be in it."""
    settings = Settings(home=tmp_path, security="plaintext")
    config = producer_config(settings, "test")
    least = min(int(topic.config["max.message.bytes"]) for topic in topics_of(settings, ["dfe", "council-northam"]))
    assert int(config["batch.size"]) <= least // 2
