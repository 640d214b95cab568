"""Whether bytes name what was destroyed: references are found by their shape and compared with the ledger by hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from stream_processors.refs import REF_WIDTH

_REFERENCE = re.compile(rb"[0-9a-f]{%d}(?:\|[0-9a-f]{%d})?" % (REF_WIDTH, REF_WIDTH))


def digest(name: bytes) -> bytes:
    """A key's hash, as the ledger has it in hex."""
    return hashlib.sha256(name).digest()


def names(content: bytes) -> Iterable[bytes]:
    """Every reference in some bytes, and every pair as keys of activities have them."""
    for match in _REFERENCE.finditer(content):
        found = match[0]
        yield found
        if len(found) > REF_WIDTH:
            yield found[:REF_WIDTH]
            yield found[REF_WIDTH + 1 :]


class Destroyed:
    """What the ledger says was destroyed, less what was supplied again since."""

    def __init__(self, records: Iterable[str]) -> None:
        """`records`: hashes in hex."""
        self._hashes = {bytes.fromhex(r) for r in records}

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, key: bytes) -> bool:
        return digest(key) in self._hashes

    def lives(self, names_: Iterable[bytes]) -> None:
        """These are held again, or are part of what is held: they are to be found."""
        self._hashes -= {digest(n) for n in names_}

    def named_in(self, content: bytes) -> bool:
        """Whether some bytes name something destroyed."""
        return bool(self._hashes) and any(digest(n) in self._hashes for n in names(content))
