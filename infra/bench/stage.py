"""One worker on its backlog, in a process of its own: `python -m infra.bench.stage PROCESSOR`. Prints one line of JSON.

The clock runs from the first commit to the last, so that start-up and assignment are left out. It ends when the ends
of all partitions were seen and no more comes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass


@dataclass
class Stage:
    """What one stage did. `seconds` and `records` leave the first batch out: it is the warm-up."""

    processor: str
    records: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_mb: float = 0.0

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds if self.seconds else 0.0


class _Watch:
    def __init__(self) -> None:
        self.first = 0.0
        self.last = 0.0
        self.records = 0

    def batch(self, records: int) -> None:
        now = time.monotonic()
        if not self.first:
            self.first = now
        else:
            self.records += records
        self.last = now


def main(name: str) -> Stage:
    """Run the worker of that name until its inputs are used up."""
    from infra.keys import read_key, research_key, token_key
    from infra.logs import configure
    from infra.settings import Settings
    from schemas.registry import Registry
    from stream_processors.arrow import leave_pandas_out
    from stream_processors.runtime.instance import Instance
    from stream_processors.runtime.worker import Worker
    from stream_processors.topology import Context, build

    configure(readable=False)
    leave_pandas_out()
    settings = Settings()
    registry = Registry(settings.registry)
    context = Context.default(
        lambda: read_key(token_key(settings)),
        lambda: read_key(research_key(settings)),
        registry,
        settings.partitions,
        settings.postcodes,
        settings.k_anonymity,
    )
    watch = _Watch()
    with Instance.claim(settings.state, name) as instance:
        worker = Worker(
            build(name, context),
            settings,
            instance,
            accounts=registry if settings.accounts else None,
            on_batch=watch.batch,
            on_idle=lambda: worker.stop(),
        )
        worker.run()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Stage(name, watch.records, watch.last - watch.first, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


if __name__ == "__main__":
    print(json.dumps(asdict(main(sys.argv[1]))))
