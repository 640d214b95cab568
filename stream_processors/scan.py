"""A scan for identifiers by shape, and for planted canaries, in bytes: values, keys, headers, files.

It looks with other eyes than the guard: at what is there, not at what a contract says. Shapes and check characters:
NI number (HMRC, NIM39110), UPN with its check letter (DfE, "Unique pupil numbers"), NHS number with its check digit
(NHS Data Dictionary), postcode (Royal Mail's forms), date of a day, e-mail address, British telephone number. What it
reports are kinds and counts, never what was found.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

_UPN_LETTERS = b"ABCDEFGHJKLMNPQRTUVWXYZ"
_NOT_IN_WORD, _WORD_ENDS = rb"(?<![0-9A-Za-z])", rb"(?![0-9A-Za-z])"
_MONTHS = rb"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
_PSEUDONYM = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
"""Pseudonyms are what the research zone is to hold; 32 hex digits would now and then look like something else."""


def _upn(found: bytes) -> bool:
    digits = found[1:].upper()
    values = [*digits[:-1], digits[-1]]
    last = values[-1] - 48 if values[-1] < 58 else _UPN_LETTERS.find(values[-1])  # temporary UPNs end in a letter
    total = sum((d - 48) * w for d, w in zip(values[:-1], range(2, 13), strict=True)) + last * 13
    return found[:1].upper() == _UPN_LETTERS[total % 23 : total % 23 + 1]


def _nhs(found: bytes) -> bool:
    digits = [d - 48 for d in found if 48 <= d < 58]
    check = 11 - sum(d * w for d, w in zip(digits, range(10, 1, -1), strict=False)) % 11
    return len(digits) == 10 and check != 10 and check % 11 == digits[9]


def _day(found: bytes) -> bool:
    """Whether a compact date is a day of a century that people live in, and not the first of a month."""
    year_first, year_last = found[:4], found[4:]
    for year, month, day in ((year_first, found[4:6], found[6:]), (year_last, found[2:4], found[:2])):
        if 1880 <= int(year) <= 2030 and 1 <= int(month) <= 12 and 2 <= int(day) <= 31:
            return True
    return False


def _any(_: bytes) -> bool:
    return True


_SHAPES: tuple[tuple[str, re.Pattern[bytes], Callable[[bytes], bool]], ...] = (
    (
        "ni_number",
        re.compile(_NOT_IN_WORD + rb"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?(?:[0-9]{2} ?){3}[A-D]" + _WORD_ENDS, re.I),
        _any,
    ),
    ("upn", re.compile(_NOT_IN_WORD + rb"[A-HJ-NP-RT-Z][0-9]{11}[0-9A-Z]" + _WORD_ENDS, re.I), _upn),
    ("nhs_number", re.compile(rb"(?<![0-9])[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}(?![0-9])"), _nhs),
    (
        "postcode",
        re.compile(
            _NOT_IN_WORD + rb"(?:[A-PR-UWYZ][A-HK-Y]?[0-9][0-9A-HJKMNP-Y]?|GIR) ?[0-9][ABD-HJLNP-UW-Z]{2}" + _WORD_ENDS,
            re.I,
        ),
        _any,
    ),
    (
        "date",
        re.compile(
            rb"(?<![0-9])(?:1[89]|20)[0-9]{2}([-/.])(?:0[1-9]|1[0-2])\1(?:0[2-9]|[12][0-9]|3[01])(?![0-9])"
            rb"|(?<![0-9])(?:0?[2-9]|[12][0-9]|3[01])([-/.])(?:0?[1-9]|1[0-2])\2(?:(?:1[89]|20)[0-9]{2})(?![0-9])"
            rb"|(?<![0-9])(?:[12]?[0-9]|3[01])(?:st|nd|rd|th)? " + _MONTHS + rb",? (?:1[89]|20)[0-9]{2}(?![0-9])",
            re.I,
        ),
        _any,
    ),
    ("date", re.compile(_NOT_IN_WORD + rb"[0-9]{8}" + _WORD_ENDS), _day),
    ("email", re.compile(rb"[0-9A-Za-z._%+-]+@[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*\.[A-Za-z]{2,}"), _any),
    ("phone", re.compile(rb"(?<![0-9A-Za-z])(?:\+44 ?(?:\(0\) ?)?|0)[1-9](?:[ -]?[0-9]){8,9}(?![0-9])"), _any),
)
KINDS = tuple(dict.fromkeys(kind for kind, _, _ in _SHAPES))


def identifiers(content: bytes) -> Counter[str]:
    """How many identifiers of each kind some bytes hold by their shape. Pseudonyms are passed over.

    The first day of a month is no date here: months are published.
    """
    text = _PSEUDONYM.sub(b"\n", content)
    found: Counter[str] = Counter()
    for kind, pattern, check in _SHAPES:
        n = sum(check(m[0]) for m in pattern.finditer(text))
        if n:
            found[kind] += n
    return found


LEAST = 6
"""A text of fewer characters is found by chance."""


def forms(canary: str) -> frozenset[bytes]:
    """Ways in which a text could be carried along: as it is, in other case, without spaces, reversed, as UTF-16, hex
    and base64 (at each of its three alignments)."""
    plain = {v for c in (canary, canary.replace(" ", "")) for v in (c, c.upper(), c.lower(), c.title())}
    out = {v.encode() for v in plain} | {v[::-1].encode() for v in plain}
    for value in {v.encode() for v in plain}:
        out |= {value.decode().encode("utf-16-le"), value.hex().encode(), value.hex().upper().encode()}
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + value)
            out.add(encoded[(0, 2, 3)[shift] : len(encoded) - 4])
    return frozenset(v for v in out if len(v) >= LEAST)


class Canaries:
    """Texts that must turn up nowhere, by the field that they were planted in."""

    def __init__(self, planted: Mapping[str, Iterable[str]]) -> None:
        """`planted`: texts by field. A text of fewer than 6 characters is found by chance, and not looked for."""
        self._field_of: dict[bytes, str] = {}
        for field, texts in planted.items():
            for text in texts:
                self._field_of |= dict.fromkeys(forms(text), field)
        self._lengths = sorted({len(form) for form in self._field_of})

    def __len__(self) -> int:
        return len(self._field_of)

    def found(self, content: bytes) -> Counter[str]:
        """How many of them some bytes hold, by field."""
        out: Counter[str] = Counter()
        for length in self._lengths:
            windows = {content[i : i + length] for i in range(len(content) - length + 1)}
            for form in windows & self._field_of.keys():
                out[self._field_of[form]] += 1
        return out


def scan(
    records: Iterable[tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]], canaries: Canaries | None = None
) -> Counter[str]:
    """Identifiers and canaries in keys, values and headers: counts by `<where>.<kind>` and `<where>.canary.<field>`."""
    out: Counter[str] = Counter()
    for key, value, headers in records:
        parts = {"key": key, "value": value, "header": b"\n".join(name.encode() + b"\n" + v for name, v in headers)}
        for where, content in parts.items():
            if not content:
                continue
            out.update({f"{where}.{kind}": n for kind, n in identifiers(content).items()})
            if canaries is not None:
                out.update({f"{where}.canary.{field}": n for field, n in canaries.found(content).items()})
    return out
