"""What the benches share: a measurement in a process of its own, and the topic that the pass-through copies to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from infra.settings import Settings
from stream_processors.runtime.kafka import client_config

COPY_TOPIC = "bench.copy"
_MOST_S = 900


def environment(settings: Settings) -> dict[str, str]:
    """Of a process that is measured on the stack of these settings."""
    return {"MALLOC_ARENA_MAX": "2", **os.environ, **settings.environment()}


def child(settings: Settings, module: str, *arguments: str) -> dict[str, Any]:
    """The last line that a module prints, which is JSON.

    Raises: subprocess.SubprocessError if it fails, or takes longer than 15 minutes.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment(settings),
        check=True,
        stdout=subprocess.PIPE,
        timeout=_MOST_S,
    )
    found: dict[str, Any] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return found


def make_copy_topic(settings: Settings) -> None:
    """Make `COPY_TOPIC`, with as many partitions as the others."""
    admin = AdminClient(client_config(settings))
    for created in admin.create_topics([NewTopic(COPY_TOPIC, settings.partitions, 1)]).values():
        created.result(30)
