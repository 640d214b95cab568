"""Access control on a real broker: each principal can do its work, and is refused everything else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from typer.testing import CliRunner

from infra.acls import differences
from infra.certificates import init_credentials
from infra.cli import app
from infra.destruction.bounds import bounds
from infra.editions import within
from infra.provision import add_supplier, grants_for, provision, without
from infra.rollout.retire import Retirement
from infra.settings import Settings
from infra.topics import topics_of
from schemas.registry import Registry
from stream_processors.access import (
    ADMIN,
    CONTROL,
    ENCLAVE,
    ERASURE,
    OPERATOR,
    QUARANTINE,
    principals,
    supplier_principal,
)
from stream_processors.edition import Edition
from stream_processors.enclave.sync import Options, Round, sync
from stream_processors.runtime.kafka import client_config, consumer_config, producer_config
from stream_processors.runtime.records import HEARTBEAT_KEY
from stream_processors.topology import NAMES
from tests.integration.containers import running_stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]
SUPPLIERS = ("council-northam", "dfe")
NORTHAM = ("person", "safeguarding")
DFE = ("person", "absence", "attainment", "exclusion")
DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}


def _of(supplier: str, datasets: tuple[str, ...]) -> set[str]:
    return {f"identified.{supplier}.{d}" for d in datasets}


# What each may read and write, in so many words. `state.<name>` is a processor's own changelog.
READS: dict[str, set[str]] = {
    "pseudonymise": {
        *(_of("council-northam", (*NORTHAM, "enquiry")) | _of("dfe", DFE)),
        *("linkage.identity", "linkage.activity", "linkage.enquiry"),  # what it has said, having no memory
        *("governance.erasure", "linkage.found", "linkage.suppression"),  # orders, and who is refused
        *("governance.clock", "linkage.unmatched"),
    },
    "route": {"linkage.identity", "linkage.link", "state.route"},
    "link": {"linkage.candidate", "linkage.enquiry", "state.link"},
    "join": {"linkage.activity", "linkage.link", "linkage.sought", "governance.clock", "state.join"},
    "publish": {"linkage.contribution", "governance.clock", "state.publish"},
    "retention.identity": {"linkage.identity", "governance.clock", "state.retention.identity"},
    "retention.activity": {"linkage.activity", "governance.clock", "state.retention.activity"},
    "supplier.council-northam": set(),
    "supplier.dfe": set(),
    "enclave": {"research.person", "research.edition"},
    "operator": {
        *("governance.alert", "governance.batch", "governance.reconciliation", "governance.audit"),
        *("governance.quarantine", "governance.ledger", "governance.acknowledgement", "governance.clock"),
        *("governance.operation", "governance.account"),
    },
    "erasure": {"governance.finding"},
    "quarantine": {
        *(_of("council-northam", (*NORTHAM, "quarantine")) | _of("dfe", (*DFE, "quarantine"))),
        *("governance.operation", "governance.quarantine"),
    },
    "control": {
        *("governance.enquiry", "governance.finding", "governance.batch", "governance.quarantine", "governance.clock"),
        *("governance.audit", "governance.answer", "governance.reconciliation", "governance.alert"),
        "governance.account",
    },
}
WRITES: dict[str, set[str]] = {
    "pseudonymise": {
        *("linkage.identity", "linkage.activity", "linkage.enquiry", "governance.quarantine"),
        *("identified.council-northam.quarantine", "identified.dfe.quarantine"),
        *(_of("council-northam", NORTHAM) | _of("dfe", DFE)),  # tombstones
        *("linkage.suppression", "governance.finding"),
    },
    "route": {"linkage.candidate", "state.route"},
    "link": {"linkage.link", "linkage.sought", "governance.alert", "state.link"},
    "join": {"linkage.contribution", "governance.finding", "linkage.found", "linkage.unmatched", "state.join"},
    "publish": {"research.person", "governance.quarantine", "state.publish"},
    "retention.identity": {"linkage.identity", "governance.ledger", "state.retention.identity"},
    "retention.activity": {"linkage.activity", "governance.ledger", "state.retention.activity"},
    "supplier.council-northam": _of("council-northam", NORTHAM) | {"governance.batch"},
    "supplier.dfe": _of("dfe", DFE) | {"governance.batch"},
    "enclave": {"governance.acknowledgement"},
    "operator": {"governance.clock", "governance.operation"},
    "erasure": {"governance.erasure", "governance.operation"},
    "quarantine": READS["quarantine"],
}
for _name in NAMES:  # each counts, and goes on from what it has counted
    READS[_name].add("governance.account")
    WRITES[_name].add("governance.account")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with running_stack(tmp_path_factory.mktemp("access"), security="tls") as running:
        done = provision(running.settings, suppliers=SUPPLIERS)
        assert done.granted > 100
        yield running.settings


def _all_topics(settings: Settings) -> list[str]:
    return [s.name for s in topics_of(settings, SUPPLIERS)]


def _readable(settings: Settings) -> set[str]:
    """Topics that the broker lets these settings' principal read: it tells the end of a partition, or refuses it.

    Where it may not even describe, the client is not told that there is such a topic.
    """
    consumer = Consumer(consumer_config(settings, f"lethe.{settings.principal}.test"))
    said: dict[str, bool] = {}
    try:
        topics = consumer.list_topics(timeout=30).topics.keys() & _all_topics(settings)
        consumer.assign([TopicPartition(t, 0, 0) for t in topics])
        deadline = time.monotonic() + 60
        while len(said) < len(topics):
            assert time.monotonic() < deadline, f"no word of {set(topics) - said.keys()}"
            for m in consumer.consume(100, 0.2):
                error = m.error()
                code = None if error is None else error.code()
                assert code in {None, KafkaError._PARTITION_EOF, *DENIED}, error
                if m.topic() is not None:  # a supplier may not ask who coordinates a group, either
                    said[m.topic()] = code not in DENIED
    finally:
        consumer.close()
    return {t for t, allowed in said.items() if allowed}


def _writable(settings: Settings) -> set[str]:
    """Topics that it lets it write, by a heartbeat to each."""
    config = producer_config(settings, "test") | {"enable.idempotence": False, "message.timeout.ms": 60_000}
    producer = Producer(config)
    said: dict[str, KafkaError | None] = {}

    def told(error: KafkaError | None, m: Message) -> None:
        said[str(m.topic())] = error

    topics = _all_topics(settings)
    for t in topics:
        producer.produce(t, None, HEARTBEAT_KEY, 0, on_delivery=told)
    assert producer.flush(60) == 0
    assert {e.code() for e in said.values() if e is not None} <= DENIED
    return {t for t in topics if said[t] is None}


def test_every_principal_is_in_these_tables() -> None:
    """A processor that comes new has to be written into this specification."""
    assert set(READS) == {*principals(SUPPLIERS)} - {"admin", "broker"}
    assert set(WRITES) == READS.keys() - {"control"}
    assert {*NAMES, CONTROL, ENCLAVE, ERASURE, OPERATOR, QUARANTINE, *map(supplier_principal, SUPPLIERS)} == set(READS)


@pytest.mark.parametrize("principal", READS)
def test_it_reads_these_topics_and_no_others(settings: Settings, principal: str) -> None:
    assert _readable(settings.acting_as(principal)) == READS[principal]


@pytest.mark.parametrize("principal", WRITES)
def test_it_writes_these_topics_and_no_others(settings: Settings, principal: str) -> None:
    assert _writable(settings.acting_as(principal)) == WRITES[principal]


def test_control_writes_heartbeats_to_every_topic(settings: Settings) -> None:
    assert _writable(settings.acting_as(CONTROL)) == set(_all_topics(settings))


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except KafkaException as e:
        if e.args[0].code() not in DENIED:
            raise
        return True
    return False


def test_a_transactional_id_is_its_processors_own(settings: Settings) -> None:
    """Whoever could use another's could fence it, and abort what it has in hand."""

    def begin(principal: str, id_: str) -> Callable[[], object]:
        return lambda: Producer(producer_config(settings.acting_as(principal), "test", id_)).init_transactions(30)

    for name in NAMES:
        assert not _refused(begin(name, f"lethe.{name}.1")), name
        assert _refused(begin("supplier.dfe", f"lethe.{name}.1")), name
    assert _refused(begin("route", "lethe.link.1"))
    assert _refused(begin("retention.activity", "lethe.retention.identity.1"))
    assert _refused(begin("enclave", "lethe.publish.1"))


def test_a_group_is_its_processors_own(settings: Settings) -> None:
    """Whoever could join another's could take its partitions, and commit for it what it has not seen."""

    def admitted(principal: str, group: str, topic: str) -> bool:
        assigned: list[object] = []
        consumer = Consumer(consumer_config(settings.acting_as(principal), group))
        try:
            consumer.subscribe([topic], on_assign=lambda *_: assigned.append(True))
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                message = consumer.poll(0.2)
                error = None if message is None else message.error()
                if error is not None and error.code() in DENIED:
                    assert error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
                    return False
                if assigned:
                    return True
        finally:
            consumer.close()
        raise AssertionError("neither admitted nor refused")

    assert admitted("link", "lethe.link", "linkage.candidate")
    assert not admitted("link", "lethe.route", "linkage.candidate")
    assert not admitted("enclave", "lethe.publish", "research.person")
    assert not admitted("operator", "lethe.control", "governance.clock")


def test_operator_and_control_see_how_far_every_group_is(settings: Settings) -> None:
    asked = [TopicPartition("linkage.contribution", 0)]
    for principal in (OPERATOR, CONTROL):
        consumer = Consumer(consumer_config(settings.acting_as(principal), "lethe.publish"))
        assert [tp.error for tp in consumer.committed(asked, 60)] == [None]
        consumer.close()


def test_nobody_but_admin_makes_topics_or_grants(settings: Settings) -> None:
    binding = AclBinding(
        *(ResourceType.TOPIC, "research.person", ResourcePatternType.LITERAL, "User:supplier.dfe", "*"),
        *(AclOperation.READ, AclPermissionType.ALLOW),
    )
    for principal in READS:
        admin = AdminClient(client_config(settings.acting_as(principal)))
        new = admin.create_topics([NewTopic("identified.dfe.more", 1, 1)])["identified.dfe.more"]
        assert _refused(lambda new=new: new.result(30)), principal  # type: ignore[misc]
        granted = admin.create_acls([binding])[binding]
        assert _refused(lambda granted=granted: granted.result(30)), principal  # type: ignore[misc]
        gone = admin.delete_topics(["research.person"])["research.person"]
        assert _refused(lambda gone=gone: gone.result(30)), principal  # type: ignore[misc]


def test_who_may_not_know_of_a_topic_is_not_told_that_it_exists(settings: Settings) -> None:
    seen = AdminClient(client_config(settings.acting_as(ENCLAVE))).list_topics(timeout=30).topics
    assert set(seen) == {"research.person", "research.edition", "governance.acknowledgement"}


def test_the_enclave_syncs_with_the_researchers_credential_alone(settings: Settings, tmp_path: Path) -> None:
    """In a folder that holds the two files that they are handed, and nothing else of this installation."""
    handed = tmp_path / "handed"
    made = CliRunner().invoke(app, ["enclave", "credential", "--to", str(handed)], env=settings.environment())
    assert made.exit_code == 0, made.output
    assert {p.name for p in handed.iterdir()} == {"ca.crt", "enclave.pem"}
    theirs = settings.model_copy(update={"home": tmp_path / "theirs", "credentials": handed})
    rounds: list[Round] = []
    registry = Registry(settings.registry)
    sync(theirs, tmp_path / "data", registry, Options(), rounds.append)
    registry.close()
    assert rounds[-1].acknowledged == "governance.acknowledgement"
    assert rounds[-1].rebuilt == "there is no file yet"


def test_a_client_without_a_certificate_of_this_authority_is_refused(settings: Settings, tmp_path: Path) -> None:
    stranger = settings.model_copy(update={"home": tmp_path})
    init_credentials(stranger, [ADMIN])
    stolen = client_config(settings.acting_as(ADMIN))
    foreign = client_config(stranger.acting_as(ADMIN)) | {"ssl.ca.location": stolen["ssl.ca.location"]}
    none = {k: v for k, v in stolen.items() if not k.startswith(("ssl.cert", "ssl.key"))}
    plain = {"bootstrap.servers": settings.bootstrap}
    other_broker = client_config(stranger.acting_as(ADMIN))  # it does not take this broker for its own
    for config in (foreign, none, plain, other_broker):
        admin = AdminClient({**config, "log_level": 0})
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=3)


def test_the_operator_can_ask_when_deleted_bytes_must_be_gone_and_no_other(settings: Settings) -> None:
    """The bound follows from the brokers' settings, too."""
    assert bounds(settings.acting_as("operator"), ["linkage.link"])["linkage.link"].value_ms > 0
    for principal in ("enclave", "supplier.dfe", "join"):
        with pytest.raises(KafkaException, match="AUTHORIZATION_FAILED"):
            bounds(settings.acting_as(principal), ["linkage.link"])


def test_what_nothing_declares_is_taken_back(settings: Settings) -> None:
    admin = AdminClient(client_config(settings.acting_as(ADMIN)))
    strange = [
        AclBinding(
            *(ResourceType.TOPIC, "linkage.", ResourcePatternType.PREFIXED, "User:enclave", "*"),
            *(AclOperation.READ, AclPermissionType.ALLOW),
        ),
        AclBinding(
            *(ResourceType.TOPIC, "research.person", ResourcePatternType.LITERAL, "User:*", "*"),
            *(AclOperation.ALL, AclPermissionType.ALLOW),
        ),
    ]
    for made in admin.create_acls(strange).values():
        made.result(30)
    done = provision(settings, suppliers=SUPPLIERS)
    assert (done.granted, len(done.taken_back)) == (0, 2)
    assert "User:enclave: allow read on topic linkage.*" in done.taken_back[1]
    assert _readable(settings.acting_as(ENCLAVE)) == READS[ENCLAVE]
    again = provision(settings, suppliers=SUPPLIERS)
    assert (again.granted, again.taken_back) == (0, ())


def test_what_an_edition_needed_is_taken_back_when_it_is_retired(settings: Settings) -> None:
    edition = Edition("v2")
    assert provision(within(settings, edition), suppliers=SUPPLIERS).granted > 0
    retirement = Retirement(settings.acting_as(ADMIN), edition)
    retirement.remove(retirement.remains())
    assert all(".v2" in line for line in without(settings, edition).taken_back)
    admin = AdminClient(client_config(settings.acting_as(ADMIN)))
    assert differences(admin, grants_for(settings, SUPPLIERS, [Edition()])) == ([], [])


def test_a_supplier_that_comes_later_is_admitted_to_its_own_topics(settings: Settings) -> None:
    done = add_supplier(settings, "council-later")
    assert [p.name for p in done.credentials] == ["supplier.council-later.pem"]
    producer = Producer(producer_config(settings.acting_as("supplier.council-later"), "test"))
    said: list[KafkaError | None] = []
    mine = "identified.council-later.person"
    for topic in (mine, "identified.dfe.person", "identified.council-later.quarantine"):
        producer.produce(topic, None, HEARTBEAT_KEY, 0, on_delivery=lambda e, _: said.append(e))
        producer.flush(30)
    assert [e is None or e.name() for e in said] == [True, *["TOPIC_AUTHORIZATION_FAILED"] * 2]
    consumer = Consumer(consumer_config(settings.acting_as("pseudonymise"), "lethe.pseudonymise.test"))
    consumer.assign([TopicPartition(mine, 0, 0)])
    first = consumer.poll(30)
    consumer.close()
    assert first is not None
    assert first.error() is None, "pseudonymise is let into it, too"
