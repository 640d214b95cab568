"""Make the brokers grant what `stream_processors/access.py` says, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from stream_processors.access import Grant, Kind, Operation

_REQUEST_S = 30.0
_SETTLE_S = 30.0
_ANY_HOST = "*"
_KINDS: dict[Kind, ResourceType] = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,  # librdkafka's name of it
}
_OPERATIONS: dict[Operation, AclOperation] = {
    "read": AclOperation.READ,
    "write": AclOperation.WRITE,
    "describe": AclOperation.DESCRIBE,
    "describe configs": AclOperation.DESCRIBE_CONFIGS,
}
_ALL = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)


@dataclass(frozen=True)
class Granted:
    """What was changed: how many grants were made, and what was taken back, each as a line to read."""

    made: int
    taken_back: tuple[str, ...]


def grant(admin: AdminClient, wanted: Iterable[Grant], *, take_back: bool) -> Granted:
    """Make what is missing; with `take_back`, delete what is not wanted. Returns once the broker goes by it.

    Raises:
        KafkaException: the broker is away, refuses (only `admin` may), or has no access control.
        TimeoutError: the broker does not go by what it has accepted.
    """
    bindings = {_binding(g) for g in wanted}
    there = _there(admin)
    missing = bindings - there
    extra = there - bindings if take_back else set()
    if missing:
        _wait(admin.create_acls(list(missing), request_timeout=_REQUEST_S))
    if extra:
        _wait(admin.delete_acls([_filter(b) for b in extra], request_timeout=_REQUEST_S))
    deadline = time.monotonic() + _SETTLE_S
    while missing or extra:
        there = _there(admin)
        if missing <= there and not extra & there:
            break
        if time.monotonic() > deadline:
            raise TimeoutError("the broker does not go by the grants that it has accepted")
        time.sleep(0.02)  # it tells nobody when it does
    return Granted(len(missing), tuple(sorted(map(_line, extra))))


def differences(admin: AdminClient, wanted: Iterable[Grant]) -> tuple[list[str], list[str]]:
    """What is missing, and what is there and not wanted, each as a line to read.

    Raises:
        KafkaException: as `grant`.
    """
    bindings, there = {_binding(g) for g in wanted}, _there(admin)
    return sorted(map(_line, bindings - there)), sorted(map(_line, there - bindings))


def _there(admin: AdminClient) -> set[AclBinding]:
    return set(admin.describe_acls(_ALL, request_timeout=_REQUEST_S).result(timeout=_REQUEST_S))


def _wait(answers: dict[Any, Future[Any]]) -> None:
    for future in answers.values():
        future.result(timeout=_REQUEST_S)


def _binding(g: Grant) -> AclBinding:
    return AclBinding(
        _KINDS[g.kind],
        g.name,
        ResourcePatternType.PREFIXED if g.prefixed else ResourcePatternType.LITERAL,
        f"User:{g.principal}",
        _ANY_HOST,
        _OPERATIONS[g.operation],
        AclPermissionType.ALLOW,
    )


def _filter(b: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        b.restype, b.name, b.resource_pattern_type, b.principal, b.host, b.operation, b.permission_type
    )


def _line(b: AclBinding) -> str:
    pattern = "*" if b.resource_pattern_type == ResourcePatternType.PREFIXED else ""
    what = f"{b.restype.name.lower()} {b.name}{pattern}"
    return f"{b.principal}: {b.permission_type.name.lower()} {b.operation.name.lower()} on {what} from {b.host}"
