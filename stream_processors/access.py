"""Who may do what on the brokers, worked out from the topology: one principal for each process, and nothing besides.

What is not granted here is refused. A processor's grants follow from its declaration, so a topic that is added to it
is open to it and to nobody else; a supplier may only write its own records, the enclave only read the research zone.

| principal | who acts for it |
|---|---|
| a processor's name | that processor's workers |
| `control` | the control plane |
| `supplier.<name>` | whoever publishes that supplier's records |
| `enclave` | researchers |
| `operator` | people and programs that look: state of groups and topics, governance; tells the clock |
| `quarantine` | people who look at what failed, put it back or drop it |
| `erasure` | people who order that somebody is erased: whoever may write orders may erase anybody |
| `admin` | who makes topics and grants. The brokers ask it nothing, so it runs nothing else |
| `broker` | the brokers among themselves |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from schemas.classification import ALLOWED
from schemas.contracts import ENQUIRY
from stream_processors import clock
from stream_processors.control.office import ALERT, ANSWER, AUDIT, BATCH, FINDING, RECONCILIATION
from stream_processors.control.office import ENQUIRY as GOVERNED_ENQUIRY
from stream_processors.edition import Edition
from stream_processors.enclave.changes import TOPIC as RESEARCH
from stream_processors.erasure.order import TOPIC as ORDERS
from stream_processors.ledger import TOPIC as LEDGER
from stream_processors.pseudonymise import PSEUDONYMISE
from stream_processors.publish import PUBLISH
from stream_processors.quarantine import TOPIC as GOVERNED_QUARANTINE
from stream_processors.runtime.account import TOPIC as ACCOUNTS
from stream_processors.runtime.kafka import matches
from stream_processors.runtime.processor import Declaration
from stream_processors.topology import TOPOLOGY, TopologyError

ADMIN, BROKER, CONTROL, ENCLAVE, OPERATOR = "admin", "broker", "control", "enclave", "operator"
QUARANTINE, ERASURE = "quarantine", "erasure"
SUPER = (BROKER, ADMIN)
"""Principals that the brokers do not ask for grants."""
SUPPLIER = "supplier."
ACKNOWLEDGEMENT = "governance.acknowledgement"
IN_USE = "research.edition"
CONTROL_READS = (
    *(GOVERNED_ENQUIRY, FINDING, BATCH, GOVERNED_QUARANTINE, clock.TOPIC),  # what comes in
    *(AUDIT, ANSWER, RECONCILIATION, ALERT),  # its own, at the start
    ACCOUNTS,  # what was counted of each batch
)
OPERATION = "governance.operation"
OPERATOR_READS = (
    *(ALERT, BATCH, RECONCILIATION, AUDIT, GOVERNED_QUARANTINE, LEDGER, ACKNOWLEDGEMENT, clock.TOPIC),
    *(OPERATION, ACCOUNTS),
)
"""Of governance, what names nobody: no question and no answer."""

Kind = Literal["topic", "group", "transactional id", "cluster"]
Operation = Literal["read", "write", "describe", "describe configs"]
CLUSTER = "kafka-cluster"
"""The broker's own name of the one resource of kind cluster."""
_LOOKS: tuple[Operation, ...] = ("describe", "describe configs")
_MENDS: tuple[Operation, ...] = ("read", "write")


@dataclass(frozen=True, order=True)
class Grant:
    """One principal may do one thing. `prefixed`: to everything whose name begins with `name`."""

    principal: str
    kind: Kind
    name: str
    operation: Operation
    prefixed: bool = False


def supplier_principal(supplier: str) -> str:
    """Whom a supplier's publisher acts for."""
    return f"{SUPPLIER}{supplier}"


def principals(suppliers: Iterable[str], topology: tuple[Declaration, ...] = TOPOLOGY) -> tuple[str, ...]:
    """Every principal of an installation with these suppliers, those that are asked for no grants included."""
    processors = (d.name for d in topology)
    return (
        *SUPER,
        OPERATOR,
        QUARANTINE,
        ERASURE,
        CONTROL,
        *processors,
        ENCLAVE,
        *(supplier_principal(s) for s in sorted(suppliers)),
    )


def grants(topics: Iterable[str], topology: tuple[Declaration, ...] = TOPOLOGY) -> frozenset[Grant]:
    """All grants over these topics; `topics` are all that there are, suppliers' included.

    Reading and writing include describing. Only the groups' and transactional ids' own prefixes are granted as such:
    every topic is named, so that one which somebody makes besides is open to nobody.

    Raises:
        TopologyError: a grant contradicts the separation principle.
    """
    topics = sorted(topics)
    found: set[Grant] = set()
    for declaration in topology:
        found |= _processor(declaration, topics)
    for topic in topics:
        if matches(("identified.*",), topic) and not topic.endswith(f".{ENQUIRY}"):
            supplier = supplier_principal(topic.split(".")[1])
            found |= {Grant(supplier, "topic", t, "write") for t in (topic, BATCH)}
            found |= {Grant(QUARANTINE, "topic", topic, o) for o in _MENDS}
        if fnmatchcase(topic, "identified.*.quarantine"):
            found |= {Grant(QUARANTINE, "topic", topic, o) for o in _MENDS}
        found |= {Grant(OPERATOR, "topic", topic, o) for o in _LOOKS}
        # Every partition needs a heartbeat, and the broker cannot tell that key from another.
        found.add(Grant(CONTROL, "topic", topic, "write"))
    found |= {Grant(CONTROL, "topic", t, "read") for t in CONTROL_READS}
    found |= {Grant(CONTROL, "group", "lethe.", "describe", True), Grant(CONTROL, "group", "lethe.control", "read")}
    found |= {Grant(OPERATOR, "topic", t, "read") for t in OPERATOR_READS}
    found |= {Grant(QUARANTINE, "topic", t, o) for t in (OPERATION, GOVERNED_QUARANTINE) for o in _MENDS}
    found |= {Grant(QUARANTINE, "transactional id", "lethe.quarantine", "write"), _looks_only(QUARANTINE)}
    found |= {
        *(Grant(ERASURE, "topic", t, "write") for t in (ORDERS, OPERATION)),
        Grant(ERASURE, "topic", FINDING, "read"),
        _looks_only(ERASURE),
    }
    found |= {
        Grant(OPERATOR, "topic", clock.TOPIC, "write"),
        Grant(OPERATOR, "topic", OPERATION, "write"),
        Grant(OPERATOR, "group", "lethe.", "describe", True),
        Grant(OPERATOR, "transactional id", "lethe.", "describe", True),
        # The cleaner's settings, which say when bytes must be gone; secrets are not in the answer (KIP-133).
        *(Grant(OPERATOR, "cluster", CLUSTER, o) for o in _LOOKS),
        _looks_only(ENCLAVE),
        Grant(ENCLAVE, "topic", RESEARCH, "read"),
        Grant(ENCLAVE, "topic", RESEARCH, "describe configs"),
        Grant(ENCLAVE, "topic", IN_USE, "read"),
        Grant(ENCLAVE, "topic", ACKNOWLEDGEMENT, "write"),
    }
    validate(found)
    return frozenset(found)


def in_edition(found: Iterable[Grant], edition: Edition) -> frozenset[Grant]:
    """The same grants over an edition's topics and groups; transactional ids are granted by a prefix that both have."""
    processors = {f"lethe.{d.name}": d.name for d in TOPOLOGY}

    def turned(g: Grant) -> Grant:
        if g.kind == "topic":
            return replace(g, name=edition.topic(g.name))
        if g.kind == "group" and not g.prefixed and g.name in processors:
            return replace(g, name=edition.group(processors[g.name]))
        return g

    return frozenset(map(turned, found))


def _looks_only(principal: str) -> Grant:
    """Names of groups for consumers that never join one: librdkafka takes none without, and asks who coordinates it."""
    return Grant(principal, "group", f"lethe.{principal}.", "describe", True)


def _processor(declaration: Declaration, topics: list[str]) -> set[Grant]:
    name = declaration.name
    reads = {t for t in topics if matches(declaration.reads, t)}
    writes = {t for t in topics if any(_writes(pattern, t) for pattern in declaration.writes)}
    if declaration.stateless:  # it looks up what it has said when it reads its inputs again
        reads |= {t for t in writes if t in declaration.derives}
    if declaration.changelog:
        reads.add(declaration.changelog)
        writes.add(declaration.changelog)
    if declaration.stateless:  # without a memory, it looks at its outputs for what has no ground any more
        reads |= {t for t in writes if t.startswith("linkage.")}
    return {
        *(Grant(name, "topic", t, "read") for t in reads),
        *(Grant(name, "topic", t, "describe configs") for t in reads),  # how long tombstones live there
        *(Grant(name, "topic", t, "write") for t in writes),
        *(Grant(name, "topic", ACCOUNTS, o) for o in _MENDS),  # it goes on from what it has counted
        Grant(name, "group", f"lethe.{name}", "read"),
        _looks_only(name),
        Grant(name, "transactional id", f"lethe.{name}.", "write", True),
    }


def _writes(pattern: str, topic: str) -> bool:
    if pattern == "identified.*":  # suppliers' datasets, as in what is read; enquiries are the control plane's
        return matches((pattern,), topic) and not topic.endswith(f".{ENQUIRY}")
    return fnmatchcase(topic, pattern)


def validate(found: Iterable[Grant]) -> None:
    """Hold grants to the separation principle, whatever they were worked out from.

    Raises:
        TopologyError: somebody but `pseudonymise` and `quarantine` reads the identified zone, or but the enclave the
            research zone; the enclave reads anything else, or a supplier anything at all; a supplier writes what is
            another's; somebody reads tokens and attributes; a topic or the cluster is granted by prefix; one
            principal's transactional ids begin as another's; one that is asked for no grants has some.
    """
    found = list(found)
    read: dict[str, set[str]] = defaultdict(set)
    written: dict[str, set[str]] = defaultdict(set)
    for g in found:
        if g.kind == "topic" and g.operation in ("read", "write"):
            (read if g.operation == "read" else written)[g.principal].add(g.name)
        if g.prefixed and g.kind in ("topic", "cluster"):
            raise TopologyError(f"{g.principal}: a {g.kind} is granted by its own name only, not by {g.name}*")
        if g.principal in SUPER:
            raise TopologyError(f"{g.principal} is asked for no grants")
    for principal, names in read.items():
        zones = {name.partition(".")[0] for name in names}
        if "identified" in zones and principal not in (PSEUDONYMISE.name, QUARANTINE):
            raise TopologyError(f"{principal} may not read the identified zone")
        if ("research" in zones) != (principal == ENCLAVE):
            raise TopologyError(f"{principal} may not read the research zone, and the enclave nothing else")
        if principal == ENCLAVE and zones != {"research"}:
            raise TopologyError("the enclave reads the research zone and nothing else")
        if principal.startswith(SUPPLIER):
            raise TopologyError(f"{principal} may read nothing")
        classes = {c for name in names for c in ALLOWED[name.replace(".", "/")]}
        if {"token", "attribute"} <= classes and "identified" not in zones:
            raise TopologyError(f"{principal} would see tokens beside attributes")
    for principal, names in written.items():
        if principal.startswith(SUPPLIER):
            own = f"identified.{principal.removeprefix(SUPPLIER)}."
            if any(name != BATCH and not name.startswith(own) for name in names):
                raise TopologyError(f"{principal} may write its own records only")
        if principal == ENCLAVE and names != {ACKNOWLEDGEMENT}:
            raise TopologyError("the enclave writes acknowledgements and nothing else")
        if RESEARCH in names and principal not in (PUBLISH.name, CONTROL):
            raise TopologyError(f"{principal} may not write the research zone")
    ids = [g for g in found if g.kind == "transactional id" and g.operation == "write"]
    for one in ids:
        for other in ids:
            if one.principal != other.principal and one.name.startswith(other.name):
                raise TopologyError(f"{other.principal} could fence {one.principal}")
