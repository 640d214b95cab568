"""Who looks at everything reads each topic as somebody who may, and nobody may more for it."""

from __future__ import annotations

import pytest

from infra.reading import reader_of
from infra.settings import Settings
from infra.topics import topics_of
from stream_processors.access import Grant, grants
from stream_processors.accounting.tables import READINGS

TOPICS = [s.name for s in topics_of(Settings(), ["dfe", "council-northam"])]
LOOKED_AT = [
    *READINGS,
    *("governance.account", "governance.batch", "governance.ledger", "state.retention.activity"),
    *("identified.dfe.person", "identified.council-northam.safeguarding"),
]


@pytest.mark.parametrize("topic", LOOKED_AT)
def test_a_topic_is_read_as_a_principal_that_may_read_it(topic: str) -> None:
    assert Grant(reader_of(topic), "topic", topic, "read") in grants(TOPICS)
