"""Tokens that more subjects of one council share than their match key allows: an alert for each match key.

A default value or a hostel's postcode makes such a token, and so does whoever looks for one person's by feeding many.
`link` does not use it; here is what remembers that it was over its limit, beside what `link` has claimed: rows of
`claims` that no block's name begins. What is said are counts by match key and partition, never a token. Pass 1 alone is
looked at: in later passes a block without departments is not worked out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from schemas.registry import SchemaIds
from schemas.rows import to_value
from stream_processors.matching.tokens import TOKEN_TAIL
from stream_processors.runtime.partition import partition_of
from stream_processors.runtime.records import Outputs
from stream_processors.runtime.state import View

KIND, SEVERITY = "token_frequency", "warning"
_TOPIC = "governance.alert"
ROW = b"over|"
"""Before `<block>|<token>`; the value is when it was seen first, in ms since 1970."""


def is_frequent(key: bytes) -> bool:
    """Whether a row of `claims` is one of these."""
    return key.startswith(ROW)


@dataclass(frozen=True)
class _Seen:
    count: int
    first_ms: int


class Frequent:
    """The tokens over their limit of one partition, through one batch."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._was = {k: int(v) for k, v in view.scan("claims", ROW)}
        self._now: dict[bytes, int | None] = dict(self._was)

    def of_blocks(self, blocks: Iterable[str], over: Iterable[tuple[str, str]]) -> None:
        """These are all tokens over their limit in these blocks."""
        over = _of_pass_1(over)
        if self._was:
            whole = set(blocks)
            self._drop(lambda block, _: block in whole, over)
        self._add(over)

    def of_some(self, block: str, over: Iterable[tuple[str, str]], looked_at: Callable[[str], bool]) -> None:
        """These are all of one block's tokens that were looked at."""
        over = _of_pass_1(over)
        self._drop(lambda of, token: of == block and looked_at(token), over)
        self._add(over)

    def say(self, now_ms: int, ids: SchemaIds, partitions: int, out: Outputs) -> None:
        """Alerts of match keys of which the count has changed; the end of those of which no token is left."""
        rows = {k: now_ms if t is None else t for k, t in self._now.items()}
        for key in rows.keys() - self._was.keys():
            self._view.put("claims", key, str(rows[key]).encode())
        for key in self._was.keys() - rows.keys():
            self._view.put("claims", key, None)
        before, after = _by_match_key(self._was), _by_match_key(rows)
        names = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        keys: Sequence[str] = [f"{KIND}|{self._where(name)}" for name in names]
        out.emit(
            _TOPIC,
            [partition_of(key, partitions) for key in keys],
            [key.encode() for key in keys],
            [to_value(_TOPIC, self._row(n, after[n], now_ms), ids) if n in after else None for n in names],
        )

    def _row(self, name: str, seen: _Seen, now_ms: int) -> Mapping[str, object]:
        return {
            "kind": KIND,
            "severity": SEVERITY,
            "where": self._where(name),
            "count": seen.count,
            "first_seen_ms": seen.first_ms,
            "last_seen_ms": max(now_ms, seen.first_ms),
        }

    def _where(self, name: str) -> str:
        return f"{name} linkage.candidate-{self._view.partition}"

    def _drop(self, which: Callable[[str, str], bool], over: Iterable[tuple[str, str]]) -> None:
        still = {_key(block, token) for block, token in over}
        for key in [k for k in self._now if k not in still and which(*_parts(k))]:
            del self._now[key]

    def _add(self, over: Iterable[tuple[str, str]]) -> None:
        for block, token in over:
            self._now.setdefault(_key(block, token), None)


def _of_pass_1(over: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(block, token) for block, token in over if block.startswith("1:")]


def _key(block: str, token: str) -> bytes:
    return ROW + f"{block}|{token}".encode()


def _parts(key: bytes) -> tuple[str, str]:
    block, _, token = key[len(ROW) :].decode().partition("|")
    return block, token


def _by_match_key(rows: Mapping[bytes, int]) -> dict[str, _Seen]:
    out: dict[str, _Seen] = {}
    for key, first_ms in rows.items():
        name = _parts(key)[1][:-TOKEN_TAIL]
        old = out.get(name)
        out[name] = _Seen(old.count + 1, min(old.first_ms, first_ms)) if old else _Seen(1, first_ms)
    return out
