"""One worker on its backlog, in a process of its own: `python -m infra.bench.stage PROCESSOR`. Prints one line of JSON.

The clock runs from the first commit to the last, so that start-up and assignment are left out. It ends when the ends
of all partitions were seen and no more comes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass

# As of a worker that runs alone (`infra.worker`), whatever the command that started this one gave itself.
os.environ["POLARS_MAX_THREADS"] = str(os.cpu_count() or 1)


@dataclass
class Stage:
    """What one stage did. All but the memory leave the first batch out: it is the warm-up. `cpu_seconds` are those of
    all threads, the client's too; the machine's other work lengthens `seconds` more than it does them."""

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
        self.cpu_first = self.cpu_last = 0.0

    def batch(self, records: int) -> None:
        now, cpu = time.monotonic(), time.process_time()
        if not self.first:
            self.first, self.cpu_first = now, cpu
        else:
            self.records += records
        self.last, self.cpu_last = now, cpu


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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Stage(name, watch.records, watch.last - watch.first, watch.cpu_last - watch.cpu_first, peak)


if __name__ == "__main__":
    print(json.dumps(asdict(main(sys.argv[1]))))
