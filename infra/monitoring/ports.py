"""Where each process answers for its metrics, so that a scraper can be told before anything runs."""

from __future__ import annotations

from infra.settings import Settings
from stream_processors.topology import NAMES

PROCESSES = (*NAMES, "control")
INSTANCES = 10
_OF_AN_EDITION = 5


def metrics_port(settings: Settings, process: str, instance: int) -> int:
    """Loopback port of an instance (from 1); 0, any free one, where none was set or there are more than ten. Those of
    another edition answer five further on.

    Raises:
        ValueError: no such process.
    """
    if process not in PROCESSES:
        raise ValueError(f"no such process: {process}")
    index = PROCESSES.index(process)
    if settings.edition and process != "control":
        instance += _OF_AN_EDITION
    if settings.metrics_port == 0 or not 1 <= instance <= INSTANCES:
        return 0
    return settings.metrics_port + INSTANCES * index + instance - 1
