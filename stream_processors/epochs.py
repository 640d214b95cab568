"""Key epochs: under which keys tokens are made, and how one set of keys takes over from another without losing a link.

While keys are rotated, every subject is said under both: blocks, tokens, statements and encodings of the epoch that
leads, and `also` those of the other. Blocks of two epochs never meet, so each epoch is linked by itself; the claims of
the one that leads decide. An epoch leads only once it is complete, and leaves only once another leads, so that at any
moment every subject is in one that has everybody (docs/adr/0026-epochs-overlap.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from stream_processors.matching.tokens import TokenKeys


@dataclass(frozen=True)
class Epochs:
    """Keys in force. leads: whose claims decide. also: of the epoch that is coming or going, if there is one.
    opens: master keys that enquiries may be sealed to."""

    leads: TokenKeys
    also: TokenKeys | None = None
    opens: tuple[bytes, ...] = ()

    @classmethod
    def first(cls, token_key: bytes) -> Epochs:
        """Of an installation whose keys were never rotated."""
        return cls(TokenKeys(token_key, 1), None, (token_key,))

    @property
    def label(self) -> str:
        """`1`; `1+2` while 2 is added; `2+1` while 1 leaves: part of the version of what pseudonymise says."""
        return label(self.leads.epoch, self.also.epoch if self.also else None)


def label(leads: int, also: int | None) -> str:
    """What `Epochs.label` is for these numbers."""
    return f"{leads}+{also}" if also is not None else str(leads)
