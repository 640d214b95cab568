"""What a proof tells people: a topic's partitions together, a partition that was deleted with them."""

from __future__ import annotations

from infra.destruction.proof import Pending, Proof


def test_what_is_pending_is_told_by_topic() -> None:
    found = Proof("kept to the ledger", 1)
    found.pending += [
        Pending("linkage.link-0", 2, 10, 110),
        Pending("linkage.link-11", 3, 5, 105),
        Pending("linkage.link-1, deleted", 1, 40, 40),
        Pending("state.link-0", 1, 7, 107),
    ]
    assert found.pending_by_topic() == {
        "linkage.link": Pending("linkage.link", 6, 5, 110),
        "state.link": Pending("state.link", 1, 7, 107),
    }
