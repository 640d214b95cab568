"""Spans of batches: their times and names of topics, and nothing of a record."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra.monitoring.traces import Several, Traces, wanted
from stream_processors.runtime.observer import Batch, Unobserved
from stream_processors.runtime.records import Inputs

CANARY = b"canary-of-a-person"


def test_traces_are_wanted_where_an_endpoint_is_set() -> None:
    assert not wanted({})
    assert not wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": ""})
    assert wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})


def test_a_batch_is_a_span_with_a_child_for_each_part() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observer = Several(Unobserved(), Traces(provider.get_tracer("test")))
    taken = Inputs("linkage.identity", 0, [CANARY], [CANARY], [7], [1])

    observer.batch(Batch([taken], [], {}, {"compute": 0.5, "commit": 0.25}))

    spans = {s.name: s for s in exporter.get_finished_spans()}
    whole, compute, commit = spans["batch"], spans["compute"], spans["commit"]
    assert {s.parent.span_id for s in (compute, commit) if s.parent} == {whole.context.span_id}
    assert (whole.start_time, whole.end_time) == (compute.start_time, commit.end_time)
    assert whole.attributes is not None
    assert whole.attributes["messaging.batch.message_count"] == 1
    assert CANARY.decode() not in "".join(s.to_json() for s in spans.values())
