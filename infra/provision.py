"""Make the cluster and the registry agree with `topics.yaml` and the contracts. Safe to repeat."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from infra import topics
from infra.acls import Granted, grant
from infra.certificates import CA_KEY, init_credentials
from infra.keys import KeyFile
from infra.settings import Settings
from infra.topics import TopicSpec, topics_of
from schemas import contracts
from schemas.contracts import Contract
from schemas.registry import OnWait, Registry, SchemaDriftError
from stream_processors.access import ADMIN, Grant, grants, in_edition, principals
from stream_processors.edition import Edition, editions_of
from stream_processors.runtime.kafka import client_config

DEADLINE_SECONDS = 60.0
_REQUEST_SECONDS = 10.0
_THREADS = 8
_PERSON_TOPIC = re.compile(r"identified\.([a-z0-9-]+)\.person")
_WAIT_FOR = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,  # made a moment ago
        KafkaError.INVALID_REPLICATION_FACTOR,  # brokers of the cluster are not all up yet
    }
)
_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class PartitionsDifferError(RuntimeError):
    """Topics exist with another number of partitions than the setting: joins would meet the wrong records."""


class EditionRetiredError(RuntimeError):
    """The plain edition has no topics and others have: it was retired. To make its topics anew would be an empty flow
    beside the one in use."""


class BrokerDownError(ConnectionError):
    """The brokers did not answer before the deadline."""


@dataclass(frozen=True)
class Provisioned:
    """What provisioning found and did.

    `topics`: all that now exist as declared; `created` and `corrected`: names of those it made, and of those
    whose settings it changed; `schema_ids`: id by topic, for topics with a contract; `granted` and `taken_back`: how
    many grants it made, and which it deleted since nothing declares them (none where the brokers control no access);
    `credentials`: files of principals that it made.
    """

    topics: tuple[TopicSpec, ...]
    created: tuple[str, ...]
    corrected: tuple[str, ...]
    schema_ids: Mapping[str, int]
    granted: int = 0
    taken_back: tuple[str, ...] = ()
    credentials: tuple[Path, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "topics": [s.name for s in self.topics],
            "created": list(self.created),
            "corrected": list(self.corrected),
            "schemas": len(self.schema_ids),
            "granted": self.granted,
            "taken_back": list(self.taken_back),
            "credentials": [str(path) for path in self.credentials],
        }


def provision(
    settings: Settings,
    suppliers: Sequence[str] | None = None,
    overrides: Mapping[str, str] | None = None,
    *,
    on_wait: OnWait | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Provisioned:
    """Create missing topics, correct settings that differ, register schemas and their compatibility, and make the
    brokers grant what the topology needs and no more. Acts for `admin`.

    Without `suppliers`: those of `topics.yaml` and those that have topics already. `overrides` are topic
    settings that go before the file's, on every topic (a demo shortens days to seconds); the next call
    without them puts the file's back. Brokers or a registry that do not answer are waited for, and `on_wait`
    is told so.

    Raises:
        PartitionsDifferError: a topic has another number of partitions than the settings; nothing is changed.
        EditionRetiredError: the settings name no edition, and the plain one was retired; nothing is changed.
        BrokerDownError, RegistryDownError: no answer before the deadline.
        SchemaIncompatibleError: a contract does not fit the versions that are registered before it.
        SchemaDriftError: the registry has a newer version of a contract than this code.
        UnknownSupplierError: no such supplier.
        KeyFileError: the credential of `admin` is not here.
        KafkaException: the brokers refuse, as they do where they control no access (LETHE_SECURITY=plaintext).
    """
    cluster = _Cluster(settings.acting_as(ADMIN), on_wait, deadline_seconds)
    existing = cluster.partitions()
    _not_retired(settings, existing)
    if suppliers is None:
        suppliers = sorted({*topics.load().suppliers, *_suppliers(existing)})
    done = _apply(settings, cluster, existing, topics_of(settings, suppliers), overrides or {})
    return _admit(settings, cluster, done, {*suppliers, *_suppliers(existing)}, take_back=True)


def add_supplier(
    settings: Settings,
    supplier: str,
    overrides: Mapping[str, str] | None = None,
    *,
    on_wait: OnWait | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Provisioned:
    """Create one supplier's topics, register their schemas, and make and admit its credential; the topics that all
    share are left alone.

    Raises: as `provision`.
    """
    cluster = _Cluster(settings.acting_as(ADMIN), on_wait, deadline_seconds)
    mine = f"identified.{supplier}."
    specs = [s for s in topics_of(settings, [supplier]) if s.name.startswith(mine)]
    existing = cluster.partitions()
    _not_retired(settings, existing)
    done = _apply(settings, cluster, existing, specs, overrides or {})
    return _admit(settings, cluster, done, {supplier, *_suppliers(existing)}, take_back=False)


def _not_retired(settings: Settings, existing: Iterable[str]) -> None:
    there, mine = editions_of(existing), Edition(settings.edition)
    if there and not mine.name and mine not in there:
        names = ", ".join(e.named() for e in there)
        raise EditionRetiredError(f"the plain edition was retired; there is {names}: set LETHE_EDITION")


def _admit(
    settings: Settings, cluster: _Cluster, done: Provisioned, suppliers: set[str], *, take_back: bool
) -> Provisioned:
    """Credentials where the authority's key is, and grants for the topics of these suppliers."""
    if settings.security == "plaintext":
        return done
    made: list[KeyFile] = []
    if (settings.access / CA_KEY).exists():
        made = init_credentials(settings, principals(suppliers))
    # Of every edition that there is: what is not wanted is taken back.
    editions = {Edition(settings.edition), *editions_of(cluster.partitions())}
    granted = cluster.grant(grants_for(settings, suppliers, editions), take_back=take_back)
    return replace(
        done,
        granted=granted.made,
        taken_back=granted.taken_back,
        credentials=tuple(file.path for file in made if file.made),
    )


def without(settings: Settings, edition: Edition) -> Granted:
    """Take back what only an edition needed that has been retired. Acts for `admin`.

    Raises: as `provision`.
    """
    if settings.security == "plaintext":
        return Granted(0, ())
    cluster = _Cluster(settings.acting_as(ADMIN), None, DEADLINE_SECONDS)
    existing = cluster.partitions()
    left = {*editions_of(existing)} - {edition}  # a topic that was deleted a moment ago may still be named
    return cluster.grant(grants_for(settings, _suppliers(existing), left), take_back=True)


def grants_for(settings: Settings, suppliers: Iterable[str], editions: Iterable[Edition]) -> frozenset[Grant]:
    """All that the brokers have to grant for the topics of these suppliers, in these editions."""
    plain = settings.model_copy(update={"edition": ""})
    wanted = grants(s.name for s in topics_of(plain, sorted(suppliers)))
    return frozenset().union(*(in_edition(wanted, e) for e in editions))


def suppliers_of(
    settings: Settings, *, on_wait: OnWait | None = None, deadline_seconds: float = DEADLINE_SECONDS
) -> list[str]:
    """Suppliers that have topics, sorted.

    Raises:
        BrokerDownError: no answer before the deadline.
    """
    return _suppliers(_Cluster(settings, on_wait, deadline_seconds).partitions())


def _suppliers(existing: Iterable[str]) -> list[str]:
    found = []
    for topic in existing:
        match = _PERSON_TOPIC.fullmatch(topic)
        if match is None:
            continue
        try:
            contracts.kind_of(match[1])
        except contracts.UnknownSupplierError:
            _log.warning("a topic of no known supplier", topic=topic)
        else:
            found.append(match[1])
    return sorted(found)


def _apply(
    settings: Settings,
    cluster: _Cluster,
    existing: Mapping[str, int],
    specs: Sequence[TopicSpec],
    overrides: Mapping[str, str],
) -> Provisioned:
    wrong = [f"{s.name} has {existing[s.name]}" for s in specs if existing.get(s.name, s.partitions) != s.partitions]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise PartitionsDifferError(
            f"every data topic must have {settings.partitions} partitions (LETHE_PARTITIONS), but "
            f"{', '.join(wrong[:3])}{more}. Set LETHE_PARTITIONS to what the topics have, or move to a new "
            "cluster: keys cannot be repartitioned in place"
        )
    wanted = {s.name: {**s.config, **overrides} for s in specs}
    missing = [s for s in specs if s.name not in existing]
    with ThreadPoolExecutor(1) as beside:  # the registry meanwhile
        ids = beside.submit(_register, settings, specs, cluster.on_wait, cluster.left())
        cluster.create(missing, wanted)
        corrected = cluster.correct({s.name: wanted[s.name] for s in specs if s.name in existing})
        cluster.wait_for_leaders([s.name for s in missing])
        return Provisioned(tuple(specs), tuple(s.name for s in missing), tuple(corrected), ids.result())


def _register(
    settings: Settings, specs: Sequence[TopicSpec], on_wait: OnWait, deadline_seconds: float
) -> dict[str, int]:
    registry = Registry(settings.registry, on_wait, deadline_seconds)

    def one(spec: TopicSpec) -> int:
        assert spec.contract is not None
        assert spec.compatibility is not None
        if spec.name not in known:
            id_ = registry.register(spec.name, spec.contract)
        else:
            id_ = _renewed(registry, spec.name, spec.contract)
        registry.set_compatibility(spec.name, spec.compatibility)
        return id_

    typed = [s for s in specs if s.contract is not None]
    try:
        known = registry.topics()  # one thread waits for a registry that is down, not all
        with ThreadPoolExecutor(_THREADS) as pool:
            return dict(zip((s.name for s in typed), pool.map(one, typed), strict=True))
    finally:
        registry.close()


def _renewed(registry: Registry, topic: str, contract: Contract) -> int:
    try:
        return registry.check(topic, contract)
    except SchemaDriftError:
        registry.register(topic, contract)
        return registry.check(topic, contract)  # fails where the registry has a version newer than this code


class _Cluster:
    """The brokers, asked until they answer or the deadline has passed."""

    def __init__(self, settings: Settings, on_wait: OnWait | None, deadline_seconds: float) -> None:
        self._bootstrap = settings.bootstrap
        self._until = time.monotonic() + deadline_seconds
        self.on_wait: OnWait = on_wait or (lambda message: _log.warning("waiting", what=message))
        silent = logging.getLogger(f"{__name__}.librdkafka")  # its complaints are said through on_wait
        silent.setLevel(logging.CRITICAL)
        self._admin = AdminClient(client_config(settings), logger=silent)

    def grant(self, wanted: Iterable[Grant], *, take_back: bool) -> Granted:
        """Make the brokers grant this; see `infra.acls.grant`."""
        return self._ask("for its grants", lambda: grant(self._admin, wanted, take_back=take_back))

    def left(self) -> float:
        """Seconds to the deadline, at least one."""
        return max(1.0, self._until - time.monotonic())

    def partitions(self) -> dict[str, int]:
        """Number of partitions by topic."""
        found = self._ask("to list its topics", lambda: self._admin.list_topics(timeout=3))
        return {name: len(t.partitions) for name, t in found.topics.items()}

    def create(self, specs: Sequence[TopicSpec], config: Mapping[str, Mapping[str, str]]) -> None:
        """Create the topics, in one request. One that another provisioner made meanwhile is fine."""
        new = [NewTopic(s.name, s.partitions, s.replication, config=dict(config[s.name])) for s in specs]
        if new:
            self._ask("to create topics", lambda: self._created(new))

    def _created(self, new: Sequence[NewTopic]) -> None:
        for future in self._admin.create_topics(list(new), request_timeout=_REQUEST_SECONDS).values():
            try:
                future.result()
            except KafkaException as e:
                if e.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise

    def correct(self, config: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Set what differs on topics that exist; names of those that did."""
        if not config:
            return []
        asked = [ConfigResource(ResourceType.TOPIC, name) for name in config]
        found = self._ask("for the settings of its topics", lambda: self._described(asked))
        changes = []
        for name, wanted in config.items():
            now = found[name]
            entries = [
                ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET)
                for k, v in wanted.items()
                if not same_setting(now.get(k), v)
            ]
            if entries:
                changes.append(ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries))
        if changes:
            self._ask("to correct settings of its topics", lambda: self._altered(changes))
        return sorted(change.name for change in changes)

    def _described(self, asked: Sequence[ConfigResource]) -> dict[str, dict[str, str]]:
        answers = self._admin.describe_configs(list(asked), request_timeout=_REQUEST_SECONDS)
        return {
            resource.name: {k: entry.value for k, entry in future.result().items()}
            for resource, future in answers.items()
        }

    def _altered(self, changes: Sequence[ConfigResource]) -> None:
        answers = self._admin.incremental_alter_configs(list(changes), request_timeout=_REQUEST_SECONDS)
        for future in answers.values():
            future.result()

    def wait_for_leaders(self, names: Sequence[str]) -> None:
        """Return once every partition of the topics has a leader that clients are told of."""
        wait = 0.02
        while names:
            found = self._ask("to list its topics", lambda: self._admin.list_topics(timeout=3)).topics
            names = [n for n in names if n not in found or not _led(found[n])]
            if not names:
                return
            message = f"waiting for leaders of {len(names)} topics at {self._bootstrap}, {names[0]} first"
            if time.monotonic() > self._until:
                raise BrokerDownError(f"gave up {message}")
            time.sleep(wait)
            wait = min(2 * wait, 0.5)

    def _ask(self, what: str, call: Callable[[], _T]) -> _T:
        wait = 0.25
        while True:
            try:
                return call()
            except KafkaException as e:
                error = e.args[0]
                if error.code() not in _WAIT_FOR:
                    raise
                message = f"waiting for Kafka at {self._bootstrap} {what} ({error.name()})"
                if time.monotonic() + wait > self._until:
                    raise BrokerDownError(f"gave up {message}") from None
            self.on_wait(message)
            time.sleep(wait)
            wait = min(2 * wait, 5.0)


def _led(topic: Any) -> bool:
    return bool(topic.partitions) and all(p.leader >= 0 for p in topic.partitions.values())


def same_setting(now: str | None, wanted: str) -> bool:
    """Whether a topic has the setting that is wanted, as the broker means it: 0.1 is 0.10."""
    if now is None or now == wanted:
        return now == wanted
    try:
        return float(now) == float(wanted)
    except ValueError:
        return False
