"""The flow at a moment: for each arrow its rate, how far behind and how old; for each processor whether it lives.

`picture` is a pure function of two samples. What takes samples is `Sampler`; `lethe lag`, `lethe top` and the console
show them.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

from prometheus_client.parser import text_string_to_metric_families

from infra.broker.ports import HOST
from infra.editions import of_each
from infra.monitoring.ports import PROCESSES
from infra.monitoring.server import port_of
from infra.rest import Flow, Lag
from infra.settings import Settings
from infra.topic_table import table
from schemas.registry import SchemaIds
from schemas.rows import from_value
from stream_processors.clock import TOPIC as CLOCK
from stream_processors.edition import Edition, edition_of
from stream_processors.runtime.instance import folder_of, running
from stream_processors.topology import TOPOLOGY

Health = Literal["ready", "catching up", "stuck", "silent"]
_ASK_S = 2.0
_MARKERS = 2


@dataclass(frozen=True)
class Seen:
    """One running instance, as it answers. `restores`: share of a restore under way, by partition. `waits`: how many
    records wait on each topic and partition that it serves, and how old the last one is that it took in (s)."""

    process: str
    instance: int
    pid: int
    health: Health
    restores: Mapping[str, float] = field(default_factory=dict)
    waits: Mapping[tuple[str, int], tuple[int, float]] = field(default_factory=dict)
    state_bytes: float = 0.0


@dataclass(frozen=True)
class Sample:
    """What was seen at one time, in monotonic seconds, of all editions: a processor of one that has a name is called
    `join@v2`. `waits`: of each partition with records that were not taken in,
    how many offsets it is behind, and how old the oldest is in seconds, at most."""

    at_s: float
    lags: Sequence[Lag]
    waits: Mapping[Lag, tuple[int, float]]
    seen: Sequence[Seen]
    editions: Sequence[Edition] = (Edition(),)


@dataclass(frozen=True)
class Arrow:
    """One input of one processor. `rate`: records a second that arrive on it; None until there are two samples."""

    topic: str
    processor: str
    partitions: int
    behind: int
    age_s: float
    rate: float | None


@dataclass(frozen=True)
class Stage:
    """A processor with its inputs, in the order of the topology, and whoever runs it on this machine."""

    processor: str
    writes: tuple[str, ...]
    arrows: tuple[Arrow, ...]
    instances: tuple[Seen, ...]

    @property
    def behind(self) -> int:
        """Records behind on all inputs."""
        return sum(a.behind for a in self.arrows)

    @property
    def age_s(self) -> float:
        """Age of the oldest record that it has not taken in."""
        return max((a.age_s for a in self.arrows), default=0.0)

    @property
    def health(self) -> str:
        """The worst of its instances; `not running` where there is none on this machine."""
        worst = ("silent", "stuck", "catching up", "ready")
        return min((i.health for i in self.instances), key=worst.index, default="not running")


def picture(before: Sample | None, now: Sample) -> list[Stage]:
    """Stages in the order of the topology.

    Suppliers' topics are one arrow each dataset kind would be many: those of one zone's pattern stand together under
    the pattern's name, `identified.*`. The clock is left out; nobody is behind on it for long.
    """
    counted_before = _ends(before) if before is not None else {}
    counted = _ends(now)
    span = now.at_s - before.at_s if before is not None else 0.0
    stages = []
    for edition, declaration in product(now.editions, TOPOLOGY):
        name = edition.folder(declaration.name)
        arrows = []
        for pattern in declaration.reads:
            if pattern == CLOCK:
                continue
            topic = edition.topic(pattern)
            mine = [lag for lag in now.lags if lag.processor == name and _of(topic, lag.topic)]
            waits = [now.waits[lag] for lag in mine if lag in now.waits]
            keys = {(lag.topic, lag.partition) for lag in mine}
            came = sum(counted[k] - counted_before.get(k, counted[k]) for k in keys)
            arrows.append(
                Arrow(
                    topic,
                    name,
                    len(mine),
                    sum(behind for behind, _ in waits),
                    max((age for _, age in waits), default=0.0),
                    came / span if span > 0 else None,
                )
            )
        seen = tuple(s for s in now.seen if s.process == name)
        writes = tuple(edition.topic(topic) for topic in declaration.writes)
        stages.append(Stage(name, writes, tuple(arrows), seen))
    return stages


def _ends(sample: Sample) -> dict[tuple[str, int], int]:
    return {(lag.topic, lag.partition): lag.end for lag in sample.lags}


def _of(pattern: str, topic: str) -> bool:
    return topic.startswith(pattern.removesuffix("*")) if pattern.endswith("*") else topic == pattern


class Sampler:
    """Takes samples: of the cluster, of every edition that it has now, and of the processes on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._flows: dict[Edition, Flow] = {}

    def close(self) -> None:
        """Release the connections."""
        for flow in self._flows.values():
            flow.close()

    def sample(self) -> Sample:
        """One look at everything.

        Raises:
            KafkaException: the broker does not answer.
        """
        editions = of_each(self._settings)
        for edition in self._flows.keys() - editions.keys():
            self._flows.pop(edition).close()
        self._flows |= {e: Flow(mine) for e, mine in editions.items() if e not in self._flows}
        lags = [
            replace(lag, processor=e.folder(lag.processor)) for e, flow in self._flows.items() for lag in flow.lags()
        ]
        seen = processes(self._settings)
        told = {
            (s.process, edition_of(s.process)[1].topic(topic), partition): wait
            for s in seen
            for (topic, partition), wait in s.waits.items()
        }
        waits = {lag: told[lag.processor, lag.topic, lag.partition] for lag in lags if _key(lag) in told}
        # Nobody here serves the rest. The markers of transactions at the end are no records, and look like some.
        rest = [lag for lag in lags if lag not in waits and lag.end - lag.committed > _MARKERS]
        ages = next(iter(self._flows.values())).ages_at_most(rest, time.time_ns() // 1_000_000)
        waits |= {lag: (lag.end - lag.committed, age) for lag, age in ages.items()}
        late = {lag: wait for lag, wait in waits.items() if wait[0]}
        return Sample(time.monotonic(), lags, late, seen, tuple(editions))


def _key(lag: Lag) -> tuple[str, str, int]:
    return lag.processor, lag.topic, lag.partition


def quarantined(settings: Settings, ids: SchemaIds) -> Counter[tuple[str, str, str]]:
    """Records in quarantine by supplier, dataset and class of error. Raises as `quarantined_fields`."""
    found: Counter[tuple[str, str, str]] = Counter()
    for (supplier, dataset, error, _), n in quarantined_fields(settings, ids).items():
        found[supplier, dataset, error] += n
    return found


def quarantined_fields(settings: Settings, ids: SchemaIds) -> Counter[tuple[str, str, str, str]]:
    """Records in quarantine by supplier, dataset, class of error and field at fault (empty for none); those of an
    edition by `<supplier>@<edition>`.

    Raises:
        KafkaException: the broker does not answer.
    """
    topic, found = "governance.quarantine", Counter[tuple[str, str, str, str]]()
    for edition, mine in of_each(settings).items():
        for value in table(mine, topic).values():
            r = from_value(topic, value, ids)
            name = edition.folder(r["supplier"])
            found[name, r["topic"].rpartition(".")[2], r["error"], r["field"] or ""] += 1
    return found


def processes(settings: Settings) -> list[Seen]:
    """Every instance that runs on this machine, of whatever edition, in the order of the topology."""
    out = []
    for one in running(settings.state):
        if edition_of(one.processor)[0] not in PROCESSES:
            continue
        port = port_of(folder_of(settings.state, one.processor, one.number))
        text = _ask(port) if port else None
        values = _values(text) if text else {}
        live, ready = values.get(("lethe_live", "", ""), 0.0), values.get(("lethe_ready", "", ""), 0.0)
        health: Health = "silent" if text is None else "stuck" if not live else "ready" if ready else "catching up"
        restores = {partition: v for (name, _, partition), v in values.items() if name == "lethe_restore_ratio"}
        waits = {
            (topic, int(partition)): (int(v), values.get(("kafka_consumergroup_lag_seconds", topic, partition), 0.0))
            for (name, topic, partition), v in values.items()
            if name == "kafka_consumergroup_lag"
        }
        size = values.get(("lethe_state_bytes", "", ""), 0.0)
        out.append(Seen(one.processor, one.number, one.pid, health, restores, waits, size))
    order = {process: i for i, process in enumerate(PROCESSES)}
    return sorted(out, key=lambda s: (edition_of(s.process)[1].name, order[edition_of(s.process)[0]], s.instance))


def _ask(port: int) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=_ASK_S) as answer:
            text: str = answer.read().decode()
            return text
    except (OSError, urllib.error.URLError):
        return None


def _values(text: str) -> dict[tuple[str, str, str], float]:
    """Gauges by name, topic and partition (empty for those without)."""
    return {
        (sample.name, sample.labels.get("topic", ""), sample.labels.get("partition", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
