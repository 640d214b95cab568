"""An evaluation through Kafka: a stack of its own, the linking processors as in operation, and nothing left of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from confluent_kafka import Producer

from infra.broker.cluster import Stack, isolated
from infra.broker.fetch import StackError
from infra.keys import init_keys, read_key, token_key
from infra.processes import processors
from infra.provision import provision
from infra.rest import Flow, NotAtRestError
from infra.settings import Settings
from infra.topic_table import table
from schemas import wire
from schemas.contracts import identified_topic
from schemas.registry import Registry, SchemaIds
from stream_processors.access import ADMIN
from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.near_model import as_yaml
from stream_processors.refs import Refs
from stream_processors.runtime.kafka import producer_config
from stream_processors.runtime.partition import partitions_of

AT_REST_S = 3_600
_IDENTITY = "linkage.identity"

Bodies = Mapping[str, tuple[Sequence[str], Sequence[bytes]]]
"""Supplier to ids of subjects and the Avro bodies of their person records."""
Change = Callable[[Sequence[bytes], Sequence[bytes], SchemaIds], list[bytes]]
"""Keys and values of identities to other values."""


class EvaluationFailedError(RuntimeError):
    """The stack or a processor did not do its part. The message says which."""


def linked(
    bodies: Bodies,
    catalogue: Catalogue,
    key: bytes,
    change: Change | None,
    on_progress: Callable[[str], None],
) -> tuple[dict[str, str], dict[bytes, bytes]]:
    """References by `supplier|id`, and `linkage.link` at rest.

    Everything lies below a temporary folder and is removed in the end. key: what references and tokens are made under.
    change: what becomes of identities before they are linked.

    Raises:
        EvaluationFailedError: the stack did not start, a processor ended, or it did not come to rest in an hour.
    """
    with tempfile.TemporaryDirectory(prefix="lethe-evaluate-") as folder:
        home = Path(folder)
        settings = _settings(home, catalogue)
        settings.keys.mkdir(mode=0o700, parents=True)
        token_key(settings).touch(mode=0o600)
        token_key(settings).write_text(key.hex())
        try:
            with Stack(settings):
                provision(settings, suppliers=list(bodies))
                init_keys(settings)
                admin = settings.acting_as(ADMIN)  # it is everybody whom no processor is; those act for themselves
                registry = Registry(settings.registry)
                first = ("pseudonymise",) if change else ("pseudonymise", "route", "link")
                with _running(settings, home, first) as alive:
                    on_progress("publishing")
                    _publish(admin, registry, bodies)
                    _rest(admin, first, alive, on_progress)
                if change:
                    _change(admin, registry, change)
                    then = ("route", "link")
                    with _running(settings, home, then) as alive:
                        _rest(admin, then, alive, on_progress)
                return _refs(settings, bodies), table(admin, "linkage.link")
        except StackError as e:
            raise EvaluationFailedError(f"the stack did not start: {e}") from e


def _settings(home: Path, catalogue: Catalogue) -> Settings:
    """Of a stack of its own, with the weights of the catalogue in a file."""
    weights = None
    if catalogue.near is not None:
        weights = home / "near.yaml"
        weights.write_text(as_yaml(catalogue.near), encoding="utf-8")
    return isolated(home, Settings()).model_copy(
        update={
            "near_weights": weights,
            "near_matches": catalogue.near is not None,
            "match_keys_off": ",".join(catalogue.off),
        }
    )


@contextmanager
def _running(settings: Settings, home: Path, names: Sequence[str]) -> Iterator[Callable[[], None]]:
    """Workers; what is yielded raises once they have ended."""
    log = home / "workers.log"
    with processors(settings, names, log) as workers:

        def alive() -> None:
            if workers.poll() is not None:
                said = log.read_text(errors="replace").strip().splitlines()
                raise EvaluationFailedError(f"the processors ended with exit code {workers.returncode}: {said[-1:]}")

        yield alive


def _publish(settings: Settings, registry: Registry, bodies: Bodies) -> None:
    """Every record to the partition of its subject, acknowledged."""
    producer = Producer(producer_config(settings, "lethe.evaluate"))
    for supplier, (ids, records) in bodies.items():
        topic = identified_topic(supplier, "person")
        partitions = partitions_of(list(ids), settings.partitions).tolist()
        _send(producer, topic, [i.encode() for i in ids], wire.frame(registry.schema_id(topic), records), partitions)


def _change(settings: Settings, registry: Registry, change: Change) -> None:
    """Other values of identities in their places."""
    producer = Producer(producer_config(settings, "lethe.evaluate"))
    placed = {i: (number, key, value) for i, (number, key, value) in enumerate(_identities(settings))}
    keys, values = [k for _, k, _ in placed.values()], [v for _, _, v in placed.values()]
    _send(producer, _IDENTITY, keys, change(keys, values, registry), [n for n, _, _ in placed.values()])


def _identities(settings: Settings) -> Iterator[tuple[int, bytes, bytes]]:
    """Partition, key and last value."""
    from infra.topic_table import messages

    held = {}
    for message in messages(settings, _IDENTITY):
        if message.value() is not None:
            held[message.key()] = (message.partition() or 0, message.value())
    for key, (number, value) in held.items():
        yield number, key, value


def _send(
    producer: Producer, topic: str, keys: Sequence[bytes], values: Sequence[bytes], partitions: Sequence[int]
) -> None:
    failed = 0

    def delivered(error: object, _: object) -> None:
        nonlocal failed
        failed += error is not None

    for key, value, partition in zip(keys, values, partitions, strict=True):
        while True:
            try:
                producer.produce(topic, value, key, partition, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60) or failed:
        raise EvaluationFailedError(f"{topic}: not every record was taken by the broker")


def _rest(
    settings: Settings, names: Sequence[str], alive: Callable[[], None], on_progress: Callable[[str], None]
) -> None:
    def waiting(behind: set[str]) -> None:
        alive()
        on_progress(f"waiting for {', '.join(sorted(behind)) or 'rest'}")

    flow = Flow(settings)
    try:
        flow.wait(AT_REST_S, waiting, only=names)
    except NotAtRestError as e:
        raise EvaluationFailedError(str(e)) from e
    finally:
        flow.close()


def _refs(settings: Settings, bodies: Bodies) -> dict[str, str]:
    refs = Refs(read_key(token_key(settings)))
    out: dict[str, str] = {}
    for supplier, (ids, _) in bodies.items():
        made = pl.DataFrame({"id": list(ids)}).select(refs.subject(supplier, pl.col("id"))).to_series()
        out |= {f"{supplier}|{i}": ref for i, ref in zip(ids, made, strict=True)}
    return out
