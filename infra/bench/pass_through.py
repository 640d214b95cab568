"""The ceiling: records copied from one topic to another in transactions, not looked at. `python -m
infra.bench.pass_through`."""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from infra.settings import Settings
from stream_processors.runtime.kafka import consumer_config, producer_config


def copy(settings: Settings, source: str, target: str, batch: int) -> tuple[int, float, float]:
    """Copy a topic's records, partition by partition number; returns records, seconds and processor seconds, without
    the first batch."""
    producer = Producer(producer_config(settings, "bench.copy", "bench.copy"))
    producer.init_transactions(30)
    consumer = Consumer(consumer_config(settings, "bench.copy"))
    partitions = list(consumer.list_topics(source, timeout=30).topics[source].partitions)
    consumer.assign([TopicPartition(source, p, 0) for p in partitions])
    left, records, first, last, cpu = set(partitions), 0, 0.0, 0.0, 0.0
    while left:
        messages = consumer.consume(batch, 0.2)
        ends: dict[int, int] = {}
        producer.begin_transaction()
        copied = 0
        for m in messages:
            error = m.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    left.discard(m.partition())
                continue
            while True:
                try:
                    producer.produce(target, m.value(), m.key(), m.partition())
                    break
                except BufferError:
                    producer.poll(0.05)
            ends[m.partition()] = m.offset() + 1
            copied += 1
        offsets = [TopicPartition(source, p, o) for p, o in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)
        if not copied:
            continue
        last = time.monotonic()
        if first:
            records += copied
        else:
            first, cpu = last, time.process_time()
    cpu = time.process_time() - cpu
    consumer.close()
    return records, last - first, cpu


if __name__ == "__main__":
    settings = Settings()
    count, seconds, cpu_seconds = copy(settings, sys.argv[1], sys.argv[2], settings.batch_records)
    print(json.dumps({"records": count, "seconds": seconds, "cpu_seconds": cpu_seconds}))
