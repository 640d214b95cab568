"""Gathers the facts that `findings.py` judges: asks the disk, the key files, the brokers, the registry, the processes.

It changes nothing but one heartbeat, a tombstone on the reserved key, which shows the broker's clock.
"""

from __future__ import annotations

import email.utils
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from urllib.error import URLError

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from infra import topics
from infra.acls import differences
from infra.certificates import BROKER, CA_KEY
from infra.editions import of_each
from infra.keys import KeyFileError, credential, credential_of, read_enquiry_key, read_key, research_key, token_key
from infra.monitoring import findings
from infra.monitoring.findings import Disk, Finding
from infra.monitoring.picture import Sampler, picture, quarantined
from infra.provision import grants_for, same_setting, suppliers_of
from infra.settings import Settings
from infra.topic_table import table
from schemas.registry import Registry, SchemaDriftError, SchemaNotRegisteredError
from schemas.rows import from_value
from stream_processors.access import principals
from stream_processors.clock import EPOCH
from stream_processors.clock import TOPIC as CLOCK
from stream_processors.runtime.kafka import client_config, consumer_config, producer_config
from stream_processors.runtime.records import HEARTBEAT_KEY
from stream_processors.runtime.state import damaged_folders
from stream_processors.topology import NAMES

_CALL_S = 30.0
_SLACK_MS = 60_000
_BEATS_ON = "governance.operation"
_ALERT = "governance.alert"

OnStep = Callable[[str], None]


def examine(settings: Settings, folders: Iterable[Path], on_step: OnStep = lambda _: None) -> list[Finding]:
    """Every finding, the worst first. `on_step` is told what is looked at.

    Raises:
        KafkaException, BrokerDownError, RegistryDownError: the stack does not answer.
    """
    found: list[Finding] = []
    on_step("disks, state folders and key files")
    found += findings.disks(_disk(folder) for folder in folders) + _keys(settings)
    found += findings.damaged(str(path) for path in damaged_folders(settings.state))
    on_step("topics")
    examined = _Cluster(settings)
    found += examined.topics() + examined.transactions()
    on_step("clocks")
    found += examined.clocks()
    on_step("grants and schemas")
    found += examined.grants()
    registry = Registry(settings.registry, deadline_seconds=10)
    try:
        found += examined.schemas(registry)
        on_step("processes")
        found += examined.processes()
        on_step("alerts and quarantine")
        found += findings.quarantine(quarantined(settings, registry))
        found += findings.standing_alerts(from_value(_ALERT, v, registry) for v in table(settings, _ALERT).values())
        told = [from_value(CLOCK, v, registry)["as_of"] for v in table(settings, CLOCK).values()]
    finally:
        registry.close()
    last = max((day - EPOCH).days for day in told) if told else None
    found += findings.days(last, (date.today() - EPOCH).days, settings.clock == "simulated")
    return findings.worst(found)


def _disk(folder: Path) -> Disk:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    usage = shutil.disk_usage(there)
    return Disk(str(folder), usage.free, usage.total)


def _keys(settings: Settings) -> list[Finding]:
    out = []
    checks: dict[Path, Callable[[], object]] = {
        path: (lambda p=path: read_key(p))  # type: ignore[misc]
        for path in (token_key(settings), research_key(settings), *(settings.keys / "councils").glob("*.secret"))
    }
    checks[settings.keys / "enquiry.pub"] = lambda: read_enquiry_key(settings)
    if settings.security == "tls":
        here = {p.stem for p in settings.access.glob("*.pem")} - {BROKER}
        # Where the authority's key is, all are; elsewhere, what was handed out.
        if (settings.access / CA_KEY).exists():
            here |= set(principals(suppliers_of(settings, deadline_seconds=10)))
        for principal in here:
            mine = settings.acting_as(principal)
            checks[credential(settings, principal)] = lambda mine=mine: credential_of(mine)  # type: ignore[misc]
    for path, check in checks.items():
        try:
            check()
        except KeyFileError as e:
            out.append(Finding("keys", "critical", str(path), str(e), "`lethe keys init`; `chmod 600` its files"))
    return out


class _Cluster:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient(client_config(settings))
        self._suppliers = suppliers_of(settings, deadline_seconds=10)
        self.editions = of_each(settings)
        specs = [s for mine in self.editions.values() for s in topics.topics_of(mine, self._suppliers)]
        self._specs = list({s.name: s for s in specs}.values())
        listed = self._admin.list_topics(timeout=_CALL_S).topics
        self._partitions = {name: sorted(t.partitions) for name, t in listed.items() if not name.startswith("_")}

    def topics(self) -> list[Finding]:
        """Settings, numbers of partitions, and partitions that nobody appends to."""
        asked = [ConfigResource(ResourceType.TOPIC, s.name) for s in self._specs if s.name in self._partitions]
        answers = self._admin.describe_configs(asked, request_timeout=_CALL_S) if asked else {}
        now = {r.name: {k: e.value for k, e in f.result(_CALL_S).items()} for r, f in answers.items()}
        wanted = {s.name: dict(s.config) for s in self._specs}
        found = findings.topic_settings(wanted, now, same_setting)
        counts = {s.name: len(self._partitions[s.name]) for s in self._specs if s.name in self._partitions}
        found += findings.partition_counts(counts, self._settings.partitions)
        segment_ms = {name: int(config["segment.ms"] or 0) for name, config in now.items()}
        beat_ms = int(self._settings.heartbeat_seconds * 1000)
        return found + findings.idle_partitions(self._last(), segment_ms, beat_ms, time.time_ns() // 1_000_000)

    def _last(self) -> dict[str, int]:
        """When the newest record of each partition came, in ms since 1970; not of those that are empty."""
        wanted = {TopicPartition(t, p): OffsetSpec.max_timestamp() for t, ps in self._partitions.items() for p in ps}
        found = self._admin.list_offsets(wanted, request_timeout=_CALL_S) if wanted else {}
        results = {tp: future.result(_CALL_S) for tp, future in found.items()}
        return {f"{tp.topic}-{tp.partition}": r.timestamp for tp, r in results.items() if r.timestamp >= 0}

    def transactions(self) -> list[Finding]:
        """Transactions that hang: the record that the last stable offset stands at is too old."""
        stable, high = self._ends(committed=True), self._ends(committed=False)
        held = [tp for tp, end in high.items() if stable.get(tp, end) < end]
        since: dict[str, int] = {}
        reader = Consumer(
            consumer_config(self._settings, f"lethe.{self._settings.principal}.doctor")
            | {"isolation.level": "read_uncommitted"}
        )
        try:
            for topic, partition in held:
                reader.assign([TopicPartition(topic, partition, stable[topic, partition])])
                for message in reader.consume(1, 5.0):
                    if message.error() is None:
                        since[f"{topic}-{partition}"] = message.timestamp()[1]
        finally:
            reader.close()
        bound = self._settings.transaction_timeout_ms + _SLACK_MS
        return findings.open_transactions(since, time.time_ns() // 1_000_000, bound)

    def _ends(self, *, committed: bool) -> dict[tuple[str, int], int]:
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        wanted = {TopicPartition(t, p): OffsetSpec.latest() for t, ps in self._partitions.items() for p in ps}
        found = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=_CALL_S) if wanted else {}
        return {(tp.topic, tp.partition): f.result(_CALL_S).offset for tp, f in found.items()}

    def clocks(self) -> list[Finding]:
        """The broker's clock by a heartbeat's stamp, the registry's by its HTTP date (whole seconds)."""
        skews: dict[str, int] = {}
        stamped: list[int] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                stamped.append(message.timestamp()[1])

        producer = Producer(producer_config(self._settings, "lethe.doctor"))
        if _BEATS_ON in self._partitions:
            before = time.time_ns() // 1_000_000
            producer.produce(_BEATS_ON, None, HEARTBEAT_KEY, 0, on_delivery=delivered)
            producer.flush(10)
            after = time.time_ns() // 1_000_000
            if stamped:
                # Anything between sending and the answer is no skew.
                skews[f"broker {self._settings.bootstrap}"] = stamped[0] - min(max(stamped[0], before), after)
        try:
            before = time.time_ns() // 1_000_000
            with urllib.request.urlopen(self._settings.registry + "/subjects", timeout=10) as answer:  # noqa: S310
                said = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp() * 1000
            after = time.time_ns() // 1_000_000
            skews[f"registry {self._settings.registry}"] = int(said - min(max(said, before - 1_000), after))
        except (URLError, OSError, TypeError, ValueError):
            pass  # a registry that is down, or sends no date, is not this check's finding
        return findings.clocks(skews)

    def grants(self) -> list[Finding]:
        """Grants against what the topology needs; none where the brokers control no access."""
        if self._settings.security == "plaintext":
            return []
        wanted = grants_for(self._settings, self._suppliers, self.editions)
        return findings.grants(*differences(self._admin, wanted))

    def schemas(self, registry: Registry) -> list[Finding]:
        """Registered schemas that are not this code's contracts."""
        out = []
        for spec in self._specs:
            if spec.contract is None:
                continue
            try:
                registry.check(spec.name, spec.contract)
            except SchemaNotRegisteredError as e:
                out.append(Finding("schemas", "critical", spec.name, str(e), "`lethe provision` registers it"))
            except SchemaDriftError as e:
                advice = "deploy the code that matches, or `lethe provision` if this is the newer"
                out.append(Finding("schemas", "critical", spec.name, str(e), advice))
        return out

    def processes(self) -> list[Finding]:
        """Who runs, and who is behind."""
        sampler = Sampler(self._settings)
        try:
            sample = sampler.sample()
        finally:
            sampler.close()
        stages = picture(None, sample)
        groups = {e.group(name): e.folder(name) for e in self.editions for name in NAMES} | {"lethe.control": "control"}
        described = self._admin.describe_consumer_groups(list(groups), request_timeout=_CALL_S)
        members = {groups[g]: len(f.result(_CALL_S).members) for g, f in described.items()}
        names = list(groups.values())
        return findings.processes(stages, sample.seen, members, names) + findings.stalled(stages)
