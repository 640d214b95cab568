"""`lethe provision`: make the brokers and the registry agree with `topics.yaml` and the contracts."""

from __future__ import annotations

from infra import provision as provisioning
from infra.commands.options import AsJson, tell
from infra.commands.supplier import EXPECTED, admitted, say
from infra.errors import fail
from infra.settings import Settings


def provision(as_json: AsJson = False) -> None:
    """Create missing topics, correct settings that differ, register schemas, and grant each principal what it needs.

    Takes back what nothing declares. Safe to repeat. It needs the credential of admin.

    Example: lethe provision
    """
    try:
        done = provisioning.provision(Settings(), on_wait=say)
    except EXPECTED as e:
        fail(str(e))
    said = (
        f"{len(done.topics)} topics: {len(done.created)} created, {len(done.corrected)} corrected; "
        f"{len(done.schema_ids)} have their schema registered"
    )
    tell(done.as_json(), [said, *admitted(done)], as_json)
