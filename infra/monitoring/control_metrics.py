"""What the control plane exports: what it remembers of quarantine, alerts, batches and the clock, and its health."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from infra.monitoring.metrics import gauges
from stream_processors.clock import EPOCH
from stream_processors.control.app import Control


class ControlMetrics(Collector):
    """Asked from another thread: reads copies of what the office remembers, and changes nothing.

    `control` is set once there is one; until then it is live and not ready.
    """

    def __init__(self, stalled_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self.control: Control | None = None
        self._stalled_s, self._now = stalled_s, now
        self.registry.register(self)

    @property
    def live(self) -> bool:
        """Whether the app has shown a sign of life lately."""
        return self.control is None or self._now() - self.control.beat < self._stalled_s

    @property
    def ready(self) -> bool:
        """Whether the app has started; one that does not lead stands by, and is ready."""
        return self.live and self.control is not None and bool(self.control.app.started)

    def collect(self) -> Iterator[Family]:
        """Quarantine by dataset, alerts, batches by state, the day that was told last."""
        yield from gauges({"lethe_live": [(("control",), self.live)], "lethe_ready": [(("control",), self.ready)]})
        if self.control is None:
            return
        office = self.control.office
        failed = {t.removeprefix("identified."): len(w) for t, w in dict(office.failed).items()}
        states = Counter((r["supplier"], r["state"]) for r in list(office.reconciliations.values()))
        days = list(office.told.values())
        yield from gauges(
            {
                "lethe_quarantine_records": [(_split(where), n) for where, n in failed.items()],
                "lethe_alert_records": [((a.kind, a.severity, a.where), a.count) for a in list(office.alerts.values())],
                "lethe_batches": list(states.items()),
                "lethe_clock_day": [((), (max(days) - EPOCH).days)] if days else [],
            }
        )


def _split(where: str) -> tuple[str, str]:
    supplier, _, dataset = where.rpartition(".")
    return supplier, dataset
