"""The topology, declared once: what runs in workers, what the brokerless driver runs, and what the docs' picture
shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from schemas import contracts
from schemas.classification import ALLOWED
from schemas.registry import SchemaIds
from stream_processors.areas import Areas, load_areas
from stream_processors.clock import TOPIC as CLOCK
from stream_processors.enquiry.opening import Opener
from stream_processors.enquiry.seal import private_key
from stream_processors.epochs import Epochs
from stream_processors.erasure import eraser
from stream_processors.erasure.eraser import Eraser
from stream_processors.erasure.order import TOPIC as ORDERS
from stream_processors.erasure.overdue import SourceExpiry
from stream_processors.erasure.suppression import SuppressionKeys
from stream_processors.join import JOIN, Join
from stream_processors.link import LINK, Link
from stream_processors.matching.catalogue import Catalogue, load_catalogue
from stream_processors.pseudonymise import PSEUDONYMISE, Pseudonymise
from stream_processors.publish import PUBLISH, Publish
from stream_processors.refs import Refs, ResearchIds
from stream_processors.retention import DECLARATIONS, Retention
from stream_processors.retention_policy import RetentionPolicy, load_policy
from stream_processors.route import ROUTE, Route
from stream_processors.runtime.processor import Declaration, Processor

TOPOLOGY: tuple[Declaration, ...] = (PSEUDONYMISE, ROUTE, LINK, JOIN, PUBLISH, *DECLARATIONS.values())
NAMES = tuple(d.name for d in TOPOLOGY)

PARTITIONED_BY: Mapping[str, str] = MappingProxyType(
    {
        "identified.*": "subject id",
        "linkage.identity": "subject",
        "linkage.activity": "subject",
        "linkage.sought": "subject",  # in every partition: whoever holds a subject looks
        "linkage.link": "subject",
        "linkage.candidate": "block",
        "linkage.enquiry": "block",
        "linkage.contribution": "person",
        "research.person": "research id",
    }
)
"""What decides the partition of each topic. A subject's partition is that of its supplier's own id for it."""

WRITERS: Mapping[str, str] = MappingProxyType(
    {
        "linkage.identity": "pseudonymise",
        "linkage.activity": "pseudonymise",
        "linkage.enquiry": "pseudonymise",
        "linkage.candidate": "route",
        "linkage.link": "link",
        "linkage.sought": "link",
        "linkage.found": "join",
        "linkage.suppression": "pseudonymise",
        "linkage.contribution": "join",
        "governance.finding": "join",
        "research.person": "publish",
    }
)
"""The one processor that writes each topic: two writers of a key would race."""

ALSO_WRITE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "linkage.identity": ("retention.identity",),
        "linkage.activity": ("retention.activity",),
        "governance.ledger": ("retention.identity", "retention.activity"),
        "governance.alert": ("link",),
        "governance.finding": ("pseudonymise",),
        "identified.*": ("pseudonymise",),
    }
)
"""Who may write a topic besides. Retention reads back what it writes into its input, and puts right what it hit by
mistake (ADR 11); each line of the ledger has its writer in its key. pseudonymise answers orders, and writes tombstones
at the source: for whom it refuses whatever the supplier says (ADR 20), and for what has expired, which it reads back
as retention does (ADR 25). Alerts are the control plane's; link's have its
partition in their key."""

BESIDE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "pseudonymise": frozenset({*eraser.READS, CLOCK}),
        **{name: frozenset({CLOCK}) for name in ("publish", *(d.name for d in DECLARATIONS.values()))},
    }
)
"""What a processor may read beside its input, from another zone. The clock has no data. pseudonymise, which sees
everything of its partition anyway, reads orders, who is refused, and whom an order was found to be about."""


class TopologyError(ValueError):
    """The declarations contradict each other or the separation principle."""


@dataclass(frozen=True)
class Context:
    """What the processors are built from. A key file is read only when a processor that may hold it is built.

    token_key: what references are made under, and tokens too unless `epochs` says otherwise.
    """

    token_key: Callable[[], bytes]
    research_key: Callable[[], bytes]
    schema_ids: SchemaIds
    partitions: int
    catalogue: Catalogue
    policy: RetentionPolicy
    areas: Areas
    epochs: Callable[[], Epochs] | None = None
    k_anonymity: int = 0

    @classmethod
    def default(
        cls,
        token_key: Callable[[], bytes],
        research_key: Callable[[], bytes],
        schema_ids: SchemaIds,
        partitions: int,
        postcodes: Path | None = None,
        k_anonymity: int = 0,
        catalogue: Catalogue | None = None,
        policy: RetentionPolicy | None = None,
        epochs: Callable[[], Epochs] | None = None,
    ) -> Context:
        """With the retention policy and the catalogue of the installation, unless others are given, and the areas of a
        postcode directory.

        Raises:
            DirectoryError: the directory cannot be used.
        """
        areas = load_areas(postcodes) if postcodes else load_areas()
        return cls(
            token_key,
            research_key,
            schema_ids,
            partitions,
            catalogue or load_catalogue(),
            policy or load_policy(),
            areas,
            epochs,
            k_anonymity,
        )


def build(name: str, context: Context) -> Processor:
    """The processor of that name. `pseudonymise` alone reads the token key, `publish` alone the research key.

    Raises:
        KeyFileError: the key file that it needs is missing, short, or readable by others.
        KeyError: no such processor.
    """
    builders: dict[str, Callable[[], Processor]] = {
        "pseudonymise": lambda: _pseudonymise(context),
        "route": lambda: Route(context.catalogue, context.schema_ids, context.partitions),
        "link": lambda: Link(context.catalogue, context.schema_ids, context.partitions),
        "join": lambda: Join(context.schema_ids, context.partitions),
        "retention.identity": lambda: Retention("identity", context.policy, context.schema_ids),
        "retention.activity": lambda: Retention("activity", context.policy, context.schema_ids),
        "publish": lambda: _publish(context),
    }
    return builders[name]()


def _publish(context: Context) -> Processor:
    ids = ResearchIds(context.research_key())
    return Publish(ids, context.schema_ids, context.partitions, context.areas, context.k_anonymity)


def _pseudonymise(context: Context) -> Processor:
    key = context.token_key()
    epochs = context.epochs() if context.epochs is not None else Epochs.first(key)
    refs = Refs(key)
    erases = Eraser(
        SuppressionKeys(key, context.catalogue),  # by the key of references, which no epoch changes
        refs,
        [private_key(master) for master in epochs.opens],
        epochs.leads,
        context.catalogue,
        context.policy,
        context.schema_ids,
        context.partitions,
    )
    return Pseudonymise(
        epochs,
        refs,
        context.catalogue,
        context.policy,
        context.schema_ids,
        context.partitions,
        context.areas,
        Opener(epochs, context.catalogue, context.schema_ids, context.partitions),
        erases,
        SourceExpiry(context.policy, context.schema_ids),
    )


def declaration(name: str) -> Declaration:
    """The declaration of that name.

    Raises:
        KeyError: no such processor.
    """
    return {d.name: d for d in TOPOLOGY}[name]


def validate(topology: tuple[Declaration, ...] = TOPOLOGY) -> None:
    """Hold the declarations to each other and to the separation principle, before anything runs.

    Raises:
        TopologyError: inputs of a processor are partitioned by different things; a topic has no contract, no writer or
            two; a processor reads or writes a zone that it may not; tokens and attributes meet in one processor's
            input.
        UnclassifiedFieldError: a field of a contract has no classification that its topic allows.
    """
    for name in contracts.names():
        _ = contracts.contract(name).leaves
    writers: dict[str, str] = {}
    for d in topology:
        reads = [topic for topic in d.reads if topic not in BESIDE.get(d.name, ())]
        by = {PARTITIONED_BY.get(topic) for topic in reads}
        if by != {d.by}:
            raise TopologyError(f"{d.name}: inputs must all be partitioned by {d.by}")
        zones = {topic.partition(".")[0] for topic in reads}
        if "identified" in zones and d.name != "pseudonymise":
            raise TopologyError(f"{d.name} may not read the identified zone")
        if "research" in zones:
            raise TopologyError(f"{d.name} may not read the research zone")
        if len(zones) > 1:
            raise TopologyError(f"{d.name} reads more than one zone")
        classes = {c for t in reads if t in WRITERS for c in ALLOWED[t.replace(".", "/")]}
        if {"token", "attribute"} <= classes:
            raise TopologyError(f"{d.name} would see tokens beside attributes")
        for topic in d.writes:
            if topic.endswith("quarantine") or d.name in ALSO_WRITE.get(topic, ()):
                continue
            if WRITERS.get(topic) != d.name or topic in writers:
                raise TopologyError(f"{topic} must have one writer, {WRITERS.get(topic)}, not {d.name}")
            writers[topic] = d.name
        if any(t.startswith("research") for t in d.writes) and d.name != "publish":
            raise TopologyError(f"{d.name} may not write the research zone")
        if sum(t.kind == "said" for t in d.keeps) > 1:
            raise TopologyError(f"{d.name}: one changelog restores one table")
    for d in topology:
        for topic in d.reads:
            if topic not in ("identified.*", CLOCK, ORDERS) and topic not in writers:
                raise TopologyError(f"{d.name} reads {topic}, which nobody writes")
    for topic in {*writers, *ALSO_WRITE, CLOCK, ORDERS} - {"identified.*"}:
        contracts.contract(topic.replace(".", "/"))
