"""Confluent's wire format: a zero byte, the schema's id in four bytes (big endian), the Avro body."""

from __future__ import annotations

from collections.abc import Sequence

HEADER_BYTES = 5
_MAGIC = 0


class WireError(ValueError):
    """A value that is not framed. The message never holds the value."""


def header(schema_id: int) -> bytes:
    """The five bytes that go before a body."""
    return bytes([_MAGIC]) + schema_id.to_bytes(4, "big")


def frame(schema_id: int, bodies: Sequence[bytes]) -> list[bytes]:
    """Avro bodies to message values."""
    head = header(schema_id)
    return [head + body for body in bodies]


def schema_id(value: bytes) -> int:
    """The id that a value was written with.

    Raises:
        WireError: shorter than the header, or another first byte.
    """
    if len(value) < HEADER_BYTES:
        raise WireError("value is shorter than its header")
    if value[0] != _MAGIC:
        raise WireError("magic byte is not zero")
    return int.from_bytes(value[1:HEADER_BYTES], "big")
