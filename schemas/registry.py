"""Schema ids: from the registry that the workers share, or from memory for runs without a broker.

Both are `SchemaIds`. A registry that does not answer is waited for, whatever is asked; only its own word that
there is no such schema counts as "unknown".
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar

import fastavro
import structlog
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas import contracts
from schemas.contracts import Contract

Compatibility = Literal["FULL_TRANSITIVE", "BACKWARD_TRANSITIVE"]
OnWait = Callable[[str], None]
_T = TypeVar("_T")

_REQUEST_SECONDS = 10
_FIRST_WAIT_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 5.0
_NO_SUCH = frozenset({40401, 40402, 40403})  # subject, version, schema: the registry's own codes
_CLIENT_FAULTS = frozenset({400, 401, 403, 405, 409, 422})  # asking again would not help
_log = structlog.get_logger(__name__)


class SchemaNotRegisteredError(LookupError):
    """A topic has no registered schema."""


class SchemaDriftError(RuntimeError):
    """What is registered for a topic is not this code's contract."""


class SchemaIncompatibleError(RuntimeError):
    """The registry refuses a schema: it could not be read beside the versions before it."""


class UnknownSchemaError(LookupError):
    """The registry answers, and knows no schema of that id."""


class RegistryDownError(ConnectionError):
    """The registry did not answer before the deadline."""


class RegistryRefusedError(RuntimeError):
    """The registry answers and refuses, for a reason that waiting does not cure."""


class SchemaIds(Protocol):
    """What processors need of a registry."""

    def schema_id(self, topic: str) -> int:
        """Id that values of the topic are written with.

        Raises:
            SchemaNotRegisteredError: nothing is registered for the topic.
        """

    def check(self, topic: str, contract: Contract) -> int:
        """The id, once it is sure that the topic's schema is this contract, classifications included.

        Raises:
            SchemaNotRegisteredError: nothing is registered for the topic.
            SchemaDriftError: something else is.
        """

    def writer(self, schema_id: int) -> Any:
        """The schema of an id met in a message, as fastavro parses it.

        Raises:
            UnknownSchemaError: there is no such id.
        """


def canonical(schema: str) -> str:
    """A schema's text less what changes nothing (spacing, attribute order, `doc`); classifications stay."""
    return json.dumps(_without_docs(json.loads(schema)), sort_keys=True, separators=(",", ":"))


def _without_docs(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_docs(n) for n in node]
    if isinstance(node, dict):
        return {
            # A default is data: a key named doc in it would mean something.
            k: v if k == "default" else _without_docs(v)
            for k, v in node.items()
            if not (k == "doc" and isinstance(v, str))
        }
    return node


def subject(topic: str) -> str:
    """The registry's name for the schemas of a topic's values."""
    return f"{topic}-value"


def _how_to_register(topic: str) -> str:
    zone, _, rest = topic.partition(".")
    supplier = rest.partition(".")[0]
    return f"lethe supplier add {supplier}" if zone == "identified" else "lethe provision"


def _not_registered(topic: str) -> SchemaNotRegisteredError:
    how = _how_to_register(topic)
    return SchemaNotRegisteredError(f"{topic} has no registered schema; `{how}` registers it")


def _drift(topic: str, contract: Contract, id_: int) -> SchemaDriftError:
    return SchemaDriftError(
        f"{topic}: the registered schema (id {id_}) is not this code's contract {contract.name}. "
        f"If this code is the newer, run `{_how_to_register(topic)}`; if it is the older, run the newer code"
    )


def _transport_errors() -> tuple[type[Exception], ...]:
    """Errors of the HTTP library that the registry's client came with (httpx2, or httpx before it)."""
    found: list[type[Exception]] = [ConnectionError, TimeoutError]
    for name in ("httpx2", "httpx"):
        try:
            found.append(importlib.import_module(name).TransportError)
        except ImportError:
            continue
    return tuple(found)


_DOWN = _transport_errors()


class Registry:
    """A client of the registry's Confluent-compatible interface; safe to share between threads.

    A registry that does not answer is asked again, at most 5 s apart, and `on_wait` is told each time what is
    waited for (by default a warning is logged); it may raise to give up. With `deadline_seconds` a call gives
    up by itself.
    """

    def __init__(self, url: str, on_wait: OnWait | None = None, deadline_seconds: float | None = None) -> None:
        self._url = url
        self._on_wait = on_wait or (lambda message: _log.warning("waiting", what=message))
        self._deadline = deadline_seconds
        self._client: Any = SchemaRegistryClient({"url": url, "timeout": _REQUEST_SECONDS, "max.retries": 0})
        self._latest: dict[str, tuple[int, str]] = {}
        self._writers: dict[int, Any] = {}

    def close(self) -> None:
        """Close the connections; the registry is of no use afterwards."""
        self._client.close()

    def register(self, topic: str, contract: Contract) -> int:
        """Add the contract to the topic's schemas, if it is not among them, and return its id.

        For provisioning only. One that was registered before keeps its place in the order: `check` tells.

        Raises:
            SchemaIncompatibleError: the compatibility level of the topic does not allow it.
            RegistryDownError: no answer before the deadline.
        """
        schema = Schema(contract.text, "AVRO")
        try:
            id_: int = self._ask(f"to register {topic}", lambda: self._client.register_schema(subject(topic), schema))
        except SchemaRegistryError as e:
            if e.http_status_code == 409:
                raise SchemaIncompatibleError(
                    f"{topic}: {contract.name} does not fit the versions before it: {e.error_message}"
                ) from None
            raise self._refused(f"the schema {contract.name} for {topic}", e) from None
        self._latest.pop(topic, None)
        return id_

    def set_compatibility(self, topic: str, level: Compatibility) -> None:
        """Set what later versions of the topic's schema must keep to. The topic must have a schema.

        Raises:
            SchemaNotRegisteredError: it has none.
            RegistryDownError: no answer before the deadline.
        """
        try:
            self._ask(
                f"to set the compatibility of {topic}",
                lambda: self._client.set_compatibility(subject(topic), level),
            )
        except SchemaRegistryError as e:
            if e.error_code in _NO_SUCH:
                raise _not_registered(topic) from None
            raise self._refused(f"compatibility {level} for {topic}", e) from None

    def compatibility(self, topic: str) -> str:
        """The level in force for a topic."""
        level: str = self._ask(
            f"for the compatibility of {topic}", lambda: self._client.get_compatibility(subject(topic))
        )
        return level

    def topics(self) -> frozenset[str]:
        """Topics that have a schema."""
        found = self._ask("for its subjects", lambda: self._client.get_subjects())
        return frozenset(s.removesuffix("-value") for s in found if s.endswith("-value"))

    def schema_id(self, topic: str) -> int:
        """Latest registered id of the topic, asked once; see `SchemaIds`."""
        return self._latest_of(topic)[0]

    def check(self, topic: str, contract: Contract) -> int:
        """Hold the registered latest to the contract, asked afresh; see `SchemaIds`."""
        self._latest.pop(topic, None)
        id_, text = self._latest_of(topic)
        if canonical(text) != canonical(contract.text):
            raise _drift(topic, contract, id_)
        return id_

    def writer(self, schema_id: int) -> Any:
        """The parsed schema of an id, asked once; see `SchemaIds`."""
        if schema_id not in self._writers:
            try:
                schema = self._ask(f"for schema {schema_id}", lambda: self._client.get_schema(schema_id))
            except SchemaRegistryError as e:
                if e.error_code in _NO_SUCH:
                    raise UnknownSchemaError(f"the registry knows no schema of id {schema_id}") from None
                raise self._refused(f"schema {schema_id}", e) from None
            self._writers[schema_id] = fastavro.parse_schema(json.loads(schema.schema_str))
        return self._writers[schema_id]

    def _latest_of(self, topic: str) -> tuple[int, str]:
        found = self._latest.get(topic)
        if found is None:
            self._client.clear_latest_caches()
            try:
                latest = self._ask(
                    f"for the schema of {topic}", lambda: self._client.get_latest_version(subject(topic))
                )
            except SchemaRegistryError as e:
                if e.error_code in _NO_SUCH:
                    raise _not_registered(topic) from None
                raise self._refused(f"the schema of {topic}", e) from None
            found = (latest.schema_id, latest.schema.schema_str)
            self._latest[topic] = found
        return found

    def _ask(self, what: str, call: Callable[[], _T]) -> _T:
        """Call until the registry answers: with a result, or with a refusal that is its own."""
        started = time.monotonic()
        wait = _FIRST_WAIT_SECONDS
        while True:
            try:
                return call()
            except SchemaRegistryError as e:
                if e.error_code in _NO_SUCH or e.http_status_code in _CLIENT_FAULTS:
                    raise
                reason = f"it answers {e.http_status_code}"
            except _DOWN as e:
                reason = type(e).__name__
            except json.JSONDecodeError:
                reason = "what answers there is no registry"
            message = f"waiting for the schema registry at {self._url} {what} ({reason})"
            if self._deadline is not None and time.monotonic() - started + wait > self._deadline:
                raise RegistryDownError(f"gave up {message}")
            self._on_wait(message)
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def _refused(self, what: str, error: SchemaRegistryError) -> RegistryRefusedError:
        why = f"{error.error_message} ({error.http_status_code})"
        return RegistryRefusedError(f"the schema registry at {self._url} refuses {what}: {why}")


class StaticRegistry:
    """Ids in memory, for runs without a broker: a function of the contract alone, so runs agree on them.

    Topics that the contracts name are registered from the start; `register` adds or replaces others.
    """

    def __init__(self) -> None:
        self._topics: dict[str, Contract] = {}
        self._contracts = {static_id(c): c for c in map(contracts.contract, contracts.names())}

    def register(self, topic: str, contract: Contract) -> int:
        """Make the contract the schema of the topic and return its id."""
        id_ = static_id(contract)
        self._topics[topic] = contract
        self._contracts[id_] = contract
        return id_

    def schema_id(self, topic: str) -> int:
        """See `SchemaIds`."""
        return static_id(self._contract(topic))

    def check(self, topic: str, contract: Contract) -> int:
        """See `SchemaIds`."""
        registered = self._contract(topic)
        id_ = static_id(registered)
        if canonical(registered.text) != canonical(contract.text):
            raise _drift(topic, contract, id_)
        return id_

    def writer(self, schema_id: int) -> Any:
        """See `SchemaIds`."""
        found = self._contracts.get(schema_id)
        if found is None:
            raise UnknownSchemaError(f"no schema of id {schema_id}")
        return found.parsed

    def _contract(self, topic: str) -> Contract:
        found = self._topics.get(topic) or contracts.of_topic(topic)
        if found is None:
            raise _not_registered(topic)
        return found


def static_id(contract: Contract) -> int:
    """A positive 31-bit id that is a function of the canonical text: the same in every process."""
    digest = hashlib.sha256(canonical(contract.text).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1 or 1
