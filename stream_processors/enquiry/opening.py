"""In pseudonymise: an enquiry that was let in becomes strict tokens, by the very match keys of the pipeline."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from schemas import wire
from schemas.codec import CodecError
from schemas.registry import SchemaIds, UnknownSchemaError
from schemas.rows import from_value, to_value
from stream_processors.enquiry.person import PersonAsked, frame_of
from stream_processors.enquiry.seal import SealError, private_key, unseal
from stream_processors.epochs import Epochs
from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.normalise import normalise
from stream_processors.matching.tokens import TokenKeys, tokenise
from stream_processors.runtime.partition import partition_of
from stream_processors.runtime.records import Inputs, Outputs

TOPIC = "linkage.enquiry"
_FIRST_BLOCK = "1:"


class Opener:
    """Holds after: each enquiry of a batch is in `linkage.enquiry`, as tokens or with why it has none.

    A tombstone takes nothing back: what follows from an enquiry lives for an hour at most.
    """

    def __init__(self, epochs: Epochs, catalogue: Catalogue, schema_ids: SchemaIds, partitions: int) -> None:
        self._private: list[X25519PrivateKey] = [private_key(master) for master in epochs.opens]
        # The epoch that leads is the one in which everybody is.
        self._keys, self._catalogue, self._ids, self._partitions = epochs.leads, catalogue, schema_ids, partitions

    def take(self, batch: Inputs, out: Outputs) -> None:
        """Enquiries of one partition of `identified.<council>.enquiry` to the partitions of their blocks."""
        council = batch.topic.split(".")[1]
        for key, value in batch.latest().items():
            if value is None:
                continue
            row = self._row(council, batch.topic, key, value)
            # All strict match keys are of pass 1, so that all who could match are in one block.
            partition = partition_of(row["block"], self._partitions) if row["block"] else batch.partition
            out.emit(TOPIC, partition, [key], [to_value(TOPIC, row, self._ids)])
            out.count("enquiries")

    def _row(self, council: str, topic: str, key: bytes, value: bytes) -> dict[str, Any]:
        try:
            asked = from_value(topic, value, self._ids)
            if asked["enquiry_id"].encode() != key:
                raise SealError("another enquiry's")
            person = self._opened(asked["sealed"], council, asked["enquiry_id"])
        except (wire.WireError, CodecError, UnknownSchemaError, SealError):
            return {"block": "", "tokens": [], "fault": "unreadable", "erases": False}
        block, tokens = strict_tokens(person, self._catalogue, self._keys)
        if not block or not tokens:
            return {"block": "", "tokens": [], "fault": "insufficient", "erases": False}
        return {"block": block, "tokens": tokens, "fault": None, "erases": False}

    def _opened(self, sealed: str, council: str, enquiry_id: str) -> PersonAsked:
        """By whichever key of the epochs in force it was sealed to."""
        fault: SealError | None = None
        for private in self._private:
            try:
                return unseal(sealed, council, enquiry_id, private)
            except SealError as e:
                fault = e
        raise fault or SealError("there is no key")


def strict_tokens(person: PersonAsked, catalogue: Catalogue, keys: TokenKeys) -> tuple[str, list[str]]:
    """The block of pass 1 (empty without a date of birth) and the tokens of strict match keys, strictest first."""
    made = tokenise(normalise(frame_of([person])), catalogue, keys)
    blocks, tokens = made["blocks"].to_list()[0], made["tokens"].to_list()[0]
    block = next((b for b in blocks if b.startswith(_FIRST_BLOCK)), "")
    return block, [t for t in tokens if t.partition(":")[0] in catalogue.strict]
