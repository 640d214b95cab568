"""Faust's Kafka transport, reading only what is committed.

Faust reads committed records in its exactly-once mode alone, which has open defects; without it, it would take in the
findings of a transaction that `join` aborted.
"""

from __future__ import annotations

from typing import Any, ClassVar

import faust
from faust.transport.drivers import aiokafka as driver


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # read when the consumer starts; Faust has no setting for it
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class ReadCommitted(driver.Transport):
    """The aiokafka transport with `isolation_level` read_committed."""

    Consumer: ClassVar[Any] = _Consumer


def read_committed(app: faust.App) -> None:
    """Make an app that has not started read committed records only."""
    app.transport = ReadCommitted(app.conf.broker_consumer, app)
