"""A crowded block in memory: who may change when one of its thousands of subjects does.

What is claimed of a subject depends on those that a chain of shared tokens, persons and near matches connects it with,
and on nobody else of its block: usually a handful. A crowd knows these connections, so that a correction costs what its
neighbours cost and not what the block does. It is a memory of the block's candidates, never a source: `link` drops it
when the state below has moved without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from stream_processors.claims import Near, Rules
from stream_processors.matching.near import Ints, Words, evident, stacked
from stream_processors.matching.near_model import PassWeights
from stream_processors.matching.tokens import TOKEN_HEX_DIGITS, TOKEN_TAIL

_PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class _Member:
    """One candidate: what connects it with others. ties: its tokens in force and the person that it carries, as
    numbers."""

    cohort: bool
    ties: tuple[int, ...]
    encoded: bool


@dataclass
class _Filters:
    """Encodings of one role, by place; a place that is free holds zeros."""

    words: Words = field(default_factory=lambda: np.zeros((64, 9), np.uint64))
    who: list[str | None] = field(default_factory=list)
    place: dict[str, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)

    def put(self, subject: str, encoding: str) -> None:
        if self.free:
            at = self.free.pop()
        else:
            at = len(self.who)
            self.who.append(None)
            if at == len(self.words):
                self.words = np.concatenate([self.words, np.zeros_like(self.words)])
        self.words[at], self.who[at], self.place[subject] = stacked([encoding])[0], subject, at

    def places(self, subjects: Iterable[str]) -> Ints:
        """Of the subjects that have an encoding."""
        return np.array([self.place[s] for s in subjects if s in self.place], np.int64)

    def taken(self) -> Ints:
        """All places but the free ones."""
        return np.flatnonzero(self.words[: len(self.who)].any(axis=1))

    def remove(self, subject: str) -> None:
        at = self.place.pop(subject, None)
        if at is not None:
            self.words[at], self.who[at] = 0, None
            self.free.append(at)


class Crowd:
    """Holds after every call: what `put` and `remove` have made of the block's candidates."""

    def __init__(self, number: int, rules: Rules) -> None:
        """`number`: of the block's pass."""
        self._in_force = frozenset(rules.ids)
        self._weights: PassWeights | None = rules.near.get(number)
        self._members: dict[str, _Member] = {}
        self._tied: dict[int, list[str]] = {}
        self._filters = {True: _Filters(), False: _Filters()}
        self._near: dict[str, dict[str, float]] = {}

    def __len__(self) -> int:
        """Subjects of the block."""
        return len(self._members)

    def put(self, candidates: pa.Table) -> None:
        """Take in new and changed candidates: columns as `claims_of` takes them."""
        columns = ("subject", "role", "tokens", "person_ref", "encoding")
        rows = [candidates[name].to_pylist() for name in columns]
        self.remove(rows[0])
        for subject, role, tokens, person, encoding in zip(*rows, strict=True):
            ties = [_tie(t) for t in tokens if t[:-TOKEN_TAIL] in self._in_force]
            if person is not None:
                ties.append(hash(person))
            member = _Member(role == "cohort", tuple(ties), bool(encoding))
            self._members[subject] = member
            for tie in ties:
                self._tied.setdefault(tie, []).append(subject)
            if encoding and self._weights:
                self._filters[member.cohort].put(subject, encoding)
        if self._weights:
            self._meet(rows[0], self._weights)

    def remove(self, subjects: Iterable[str]) -> None:
        """Forget subjects; those that are not there do no harm."""
        for subject in subjects:
            member = self._members.pop(subject, None)
            if member is None:
                continue
            for tie in member.ties:
                tied = self._tied[tie]
                tied.remove(subject)
                if not tied:
                    del self._tied[tie]
            self._filters[member.cohort].remove(subject)
            for other in self._near.pop(subject, {}):
                del self._near[other][subject]

    def around(self, subjects: Iterable[str]) -> set[str]:
        """The subjects, and everybody whose claims may depend on them."""
        found, reached = set[str](), list(subjects)
        while reached:
            subject = reached.pop()
            if subject in found:
                continue
            found.add(subject)
            member = self._members.get(subject)
            if member is not None:
                for tie in member.ties:
                    reached += self._tied[tie]
                reached += self._near.get(subject, ())
        return found

    def ties_of(self, subjects: Iterable[str]) -> set[str]:
        """Who is connected with any of the subjects, directly: whom their leaving may concern."""
        out = set[str]()
        for subject in subjects:
            member = self._members.get(subject)
            if member is not None:
                for tie in member.ties:
                    out.update(self._tied[tie])
                out.update(self._near.get(subject, ()))
        return out

    def holders(self, token: str) -> Sequence[str]:
        """Who has a token of a match key in force."""
        return self._tied.get(_tie(token), ())

    def near(self, subjects: Mapping[str, int]) -> Near:
        """Near matches among subjects, as rows that the mapping gives them."""
        pairs = [
            (row, subjects[other], bits)
            for subject, row in subjects.items()
            if not self._members[subject].cohort
            for other, bits in self._near.get(subject, {}).items()
        ]
        department, cohort, bits = zip(*pairs, strict=True) if pairs else ((), (), ())
        return Near(np.array(department, np.int64), np.array(cohort, np.int64), np.array(bits, np.float64))

    def _meet(self, subjects: Sequence[str], weights: PassWeights) -> None:
        """Compare subjects with everybody of the other role, each pair once."""
        departments, cohort = self._filters[False], self._filters[True]
        mine, theirs = departments.places(subjects), cohort.places(subjects)
        others = np.setdiff1d(departments.taken(), mine, assume_unique=True) if len(theirs) else theirs
        everyone = cohort.taken()
        words = np.concatenate([departments.words[: len(departments.who)], cohort.words[: len(cohort.who)]])
        shift = len(departments.who)
        for left, right in ((mine, everyone), (others, theirs)):
            step = max(1, _PAIRS_AT_ONCE // max(1, len(right)))
            for low in range(0, len(left) if len(right) else 0, step):
                some = left[low : low + step]
                a, b = np.repeat(some, len(right)), np.tile(right + shift, len(some))
                places, bits = evident(words, a, b, weights)
                for one, other, worth in zip(a[places].tolist(), b[places].tolist(), bits.tolist(), strict=True):
                    x, y = departments.who[one], cohort.who[other - shift]
                    if x is not None and y is not None:
                        self._near.setdefault(x, {})[y] = worth
                        self._near.setdefault(y, {})[x] = worth


def _tie(token: str) -> int:
    """A number for a token."""
    return int(token[-TOKEN_HEX_DIGITS:], 16) ^ hash(token[:-TOKEN_TAIL])
