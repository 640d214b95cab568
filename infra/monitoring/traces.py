"""Traces of batches by OpenTelemetry, for whoever sets its standard variables (`OTEL_EXPORTER_OTLP_ENDPOINT`).

A span for each batch, and one for each of its parts; attributes are names of topics and numbers, nothing of a record.
Not a trace by record: its id would travel beside the record, and link what must not be linked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stream_processors.runtime.observer import Batch, Ending, Observer, Place, Unobserved

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NS = 1_000_000_000


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether an endpoint is set; nothing of OpenTelemetry is imported otherwise."""
    return any(environment.get(name) for name in _ENDPOINTS)


def tracer_of(processor: str, instance: int) -> Tracer:
    """A tracer that exports to the endpoint of the environment, in the background and in batches."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": f"lethe.{processor}", "service.instance.id": str(instance)})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("lethe")


class Traces(Unobserved):
    """An observer that makes spans of what it is told, after the fact: a batch is told with its times."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def batch(self, batch: Batch) -> None:
        """A span of the batch, and children for its parts, one after the other, ending now."""
        from opentelemetry.trace import set_span_in_context

        end = time.time_ns()
        at = end - int(sum(batch.seconds.values()) * _NS)
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.batch.message_count": sum(len(i.keys) for i in batch.inputs),
            "lethe.topics": ",".join(sorted({i.topic for i in batch.inputs})),
        }
        span = self._tracer.start_span("batch", start_time=at, attributes=attributes)
        for part, seconds in batch.seconds.items():
            child = self._tracer.start_span(part, set_span_in_context(span), start_time=at)
            at += int(seconds * _NS)
            child.end(at)
        span.end(end)


class Several:
    """Observers told one after the other."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def turned(self) -> None:
        """To each."""
        for o in self._observers:
            o.turned()

    def assigned(self, partitions: Sequence[int]) -> None:
        """To each."""
        for o in self._observers:
            o.assigned(partitions)

    def revoked(self) -> None:
        """To each."""
        for o in self._observers:
            o.revoked()

    def restoring(self, partition: int, topic: str, done: int, end: int) -> None:
        """To each."""
        for o in self._observers:
            o.restoring(partition, topic, done, end)

    def batch(self, batch: Batch) -> None:
        """To each."""
        for o in self._observers:
            o.batch(batch)

    def ended(self, how: Ending) -> None:
        """To each."""
        for o in self._observers:
            o.ended(how)

    def places(self, places: Sequence[Place]) -> None:
        """To each."""
        for o in self._observers:
            o.places(places)
