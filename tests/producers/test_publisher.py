from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import polars as pl
import pytest

from producers import DeliveryError, Publisher, RowsRefusedError
from producers.publisher import BrokerUnreachableError, TopicMissingError
from schemas.codec import arrow_schema, decode
from schemas.contracts import UnknownSupplierError, identified
from schemas.registry import StaticRegistry, static_id
from schemas.wire import HEADER_BYTES, schema_id
from stream_processors.runtime.partition import partition_of
from tests.producers.conftest import Cluster
from tests.producers.support import MARK, PERSON, TODAY

OFFENCE = identified("moj", "offence")
Make = Callable[..., Publisher]


@pytest.fixture
def make(cluster: Cluster) -> Make:
    def made(supplier: str = "dwp", dataset: str = "person", **more: Any) -> Publisher:
        cluster.create(f"identified.{supplier}.{dataset}")
        given = {
            "settings": cluster.settings,
            "schemas": StaticRegistry(),
            "patience_seconds": 20,
            "today": TODAY,
        }
        return Publisher(supplier, dataset, **{**given, **more})

    return made


def test_a_batch_is_there_once_its_receipt_says_so(make: Make, cluster: Cluster) -> None:
    rows = pl.DataFrame({"subject_id": [f"s{i}" for i in range(500)], "date_of_birth": [date(2001, 1, 1)] * 500})
    publisher = make()
    receipt = publisher.publish_batch(rows)
    assert receipt.wait() == 500
    assert publisher.published == 500
    found = cluster.messages("identified.dwp.person")
    assert {key.decode() for _, key, _ in found} == set(rows["subject_id"])
    assert all(partition == partition_of(key, 4) for partition, key, _ in found)
    values = [value for _, _, value in found if value is not None]
    assert {schema_id(v) for v in values} == {static_id(PERSON)}
    bodies = decode([v[HEADER_BYTES:] for v in values], PERSON)
    assert set(bodies.column("date_of_birth").to_pylist()) == {date(2001, 1, 1)}


def test_events_go_where_their_person_goes(make: Make, cluster: Cluster) -> None:
    with make("moj", "offence") as publisher:
        publisher.publish_batch([{"mojuid": "m7", "offenceid": f"o{i}", "offence_group": "theft"} for i in range(20)])
    found = cluster.messages("identified.moj.offence")
    assert {key for _, key, _ in found} == {f"m7|o{i}".encode() for i in range(20)}
    assert {partition for partition, _, _ in found} == {partition_of("m7", 4)}


def test_tombstones(make: Make, cluster: Cluster) -> None:
    with make("moj", "offence") as publisher:
        publisher.publish_batch([{"mojuid": "m7", "offenceid": "o1", "offence_group": "theft"}])
        assert publisher.tombstone(" m7 ", "o1").wait() == 1
        for bad in [("m7", None), ("", "o1"), ("m7", "a|b"), ("m7", "")]:
            with pytest.raises(RowsRefusedError):
                publisher.tombstone(*bad)
    with make() as persons:
        persons.tombstones(["a", "b"])
        with pytest.raises(RowsRefusedError):
            persons.tombstone("a", "o1")
    found = cluster.messages("identified.moj.offence")
    assert [(key, value is None) for _, key, value in found] == [(b"m7|o1", False), (b"m7|o1", True)]
    assert {(key, value) for _, key, value in cluster.messages("identified.dwp.person")} == {
        (b"a", None),
        (b"b", None),
    }


def test_single_records_are_there_after_a_flush(make: Make, cluster: Cluster) -> None:
    with make() as publisher:
        for i in range(1500):
            publisher.publish({"subject_id": f"s{i}", "sex": "f"})
        assert publisher.flush() == 1500
    assert len(cluster.messages("identified.dwp.person")) == 1500


def test_typed_rows_and_text_give_the_same_bytes(make: Make, cluster: Cluster) -> None:
    row = {"subject_id": "a", "date_of_birth": date(2001, 1, 1), "sex": "F"}
    typed = pl.DataFrame([row]).to_arrow()
    with make() as publisher:
        publisher.publish_batch([row])
        publisher.publish_batch(typed)
        publisher.publish_batch(typed.to_batches()[0])
        publisher.publish_batch([{"Subject ID": "a", "date_of_birth": "01/01/2001", "sex": "female"}])
        publisher.publish_batch(pl.DataFrame([row]).select("sex", "date_of_birth", "subject_id"))
        publisher.publish_batch([])
        assert arrow_schema(PERSON).names
    assert len({value for _, _, value in cluster.messages("identified.dwp.person")}) == 1


def test_numbers_come_through_as_they_are(make: Make, cluster: Cluster) -> None:
    points = [0.1, 1 / 3, 123.456789012345, 1e-7, 0.0]
    rows = pl.DataFrame(
        {
            "UPN": [f"u{i}" for i in range(len(points))],
            "record_id": "r",
            "stage": "KS4",
            "KS4_GPTSPE": points,
            "KS2_ENGLEV": list(range(len(points))),
            "KS4_LEVEL2_EM": True,
        }
    )
    attainment = identified("dfe", "attainment")
    with make("dfe", "attainment") as publisher:
        publisher.publish_batch(rows)
    bodies = [v[HEADER_BYTES:] for _, _, v in cluster.messages("identified.dfe.attainment") if v]
    found = {row["UPN"]: row for row in decode(bodies, attainment).to_pylist()}
    assert [found[f"u{i}"]["KS4_GPTSPE"] for i in range(len(points))] == points
    assert [found[f"u{i}"]["KS2_ENGLEV"] for i in range(len(points))] == list(range(len(points)))


def test_a_batch_with_a_bad_row_is_refused_whole_and_shows_no_value(make: Make, cluster: Cluster) -> None:
    with make() as publisher:
        with pytest.raises(RowsRefusedError) as e:
            publisher.publish_batch([{"subject_id": "a"}, {"subject_id": f"{MARK}|", "surname": MARK}])
        with pytest.raises(RowsRefusedError, match="unknown column: shoe"):
            publisher.publish_batch([{"subject_id": "a", "shoe": 1}])
        with pytest.raises(RowsRefusedError, match="no single values"):
            publisher.publish_batch(pl.DataFrame({"subject_id": [["a"]]}))
    assert "1 of 2 rows are refused" in str(e.value)
    assert MARK not in str(e.value)
    assert e.value.rejects is not None
    assert e.value.rejects.get_column("line").to_list() == [2]
    assert cluster.messages("identified.dwp.person") == []


def test_values_published_as_missing_are_on_the_receipt(make: Make) -> None:
    with make() as publisher:
        receipt = publisher.publish_batch([{"subject_id": "a", "date_of_birth": "1900-01-01"}])
    assert receipt.warnings == {("date_of_birth", "is a default date"): 1}


def test_a_full_queue_blocks_and_drops_nothing(make: Make, cluster: Cluster) -> None:
    with make(config={"queue.buffering.max.messages": 50}) as publisher:
        publisher.publish_batch([{"subject_id": f"s{i}"} for i in range(2000)])
    assert len(cluster.messages("identified.dwp.person")) == 2000


def test_what_the_broker_never_took_is_raised_with_counts_and_no_values(make: Make, cluster: Cluster) -> None:
    told: list[str] = []
    publisher = make(patience_seconds=7, on_wait=told.append)
    publisher.publish_batch([{"subject_id": "a"}]).wait()
    cluster.stop()
    receipt = publisher.publish_batch([{"subject_id": f"{MARK}{i}"} for i in range(3)])
    with pytest.raises(DeliveryError, match=r"identified\.dwp\.person: 3 records were not acknowledged") as e:
        receipt.wait()
    with pytest.raises(DeliveryError):
        publisher.flush()
    assert publisher.flush() == 1
    assert MARK not in str(e.value) + repr(told)
    assert any("waiting for Kafka at" in t for t in told)


def test_no_broker_no_topic_no_supplier(cluster: Cluster) -> None:
    told: list[str] = []
    with pytest.raises(BrokerUnreachableError, match="lethe up"):
        Publisher(
            "dwp",
            "person",
            settings=cluster.settings.model_copy(update={"bootstrap": "127.0.0.1:1"}),
            patience_seconds=0.5,
            on_wait=told.append,
        )
    assert told == ["waiting for Kafka at 127.0.0.1:1 to answer"]
    with pytest.raises(TopicMissingError, match="`lethe up`"):
        Publisher("dwp", "person", settings=cluster.settings, schemas=StaticRegistry())
    with pytest.raises(TopicMissingError, match="`lethe supplier add council-x`"):
        Publisher("council-x", "person", settings=cluster.settings, schemas=StaticRegistry())
    with pytest.raises(UnknownSupplierError, match="known are"):
        Publisher("nobody", "person", settings=cluster.settings)
