"""A search for many texts at once in any number of bytes, in pieces of bounded size."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import polars as pl

from stream_processors.scan import forms

_PIECE = 4 << 20


class Needles:
    """Texts that must be nowhere, by the field that each is from; in all forms of `stream_processors.scan.forms`.

    Aho-Corasick by polars, over bytes read as Latin-1, so that any byte is a letter.
    """

    def __init__(self, texts: Mapping[str, Iterable[str]]) -> None:
        """A text of fewer than 6 characters is found by chance, and not looked for."""
        self.field_of: dict[bytes, str] = {}
        for field, found in texts.items():
            for text in found:
                self.field_of |= dict.fromkeys(forms(text), field)
        self._patterns = [form.decode("latin-1") for form in self.field_of]
        self._longest = max(map(len, self.field_of), default=0)

    def __len__(self) -> int:
        return len(self.field_of)

    def in_bytes(self, contents: list[bytes]) -> list[Counter[str]]:
        """How many different forms each content holds, by field."""
        out: list[Counter[str]] = [Counter() for _ in contents]
        if not self._patterns or not contents:
            return out
        texts = pl.Series([c.decode("latin-1") for c in contents], dtype=pl.String)
        for i in texts.str.contains_any(self._patterns).arg_true():
            out[i].update(field for form, field in self.field_of.items() if form in contents[i])
        return out

    def in_file(self, path: Path) -> Counter[str]:
        """The same for a file, of which a few MB are in memory at a time; not for its holes, as Kafka's indexes have.

        Raises:
            OSError: it cannot be read.
        """
        found: Counter[str] = Counter()
        if not self._patterns:
            return found
        with path.open("rb", buffering=0) as file:
            for begin, end in _extents(file.fileno()):
                file.seek(begin)
                tail = b""
                while begin < end and (piece := file.read(min(_PIECE, end - begin))):
                    begin += len(piece)
                    whole = tail + piece
                    found |= self.in_bytes([whole])[0]
                    tail = whole[-(self._longest - 1) :] if self._longest > 1 else b""
        return found


def _extents(handle: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: from, to."""
    at, size = 0, os.fstat(handle).st_size
    while at < size:
        try:
            begin = os.lseek(handle, at, os.SEEK_DATA)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
            return  # a hole to the end
        at = os.lseek(handle, begin, os.SEEK_HOLE)
        yield begin, at


class Search:
    """Contents are gathered and searched together; `hit` is told where and what."""

    def __init__(self, needles: Needles, hit: Callable[[str, Counter[str]], None]) -> None:
        self._needles, self._hit = needles, hit
        self._where: list[str] = []
        self._contents: list[bytes] = []
        self._size = 0

    def add(self, where: str, content: bytes) -> None:
        """Search it, now or later."""
        if not len(self._needles):
            return
        self._where.append(where)
        self._contents.append(content)
        self._size += len(content)
        if self._size >= _PIECE:
            self.flush()

    def flush(self) -> None:
        """Search what is left."""
        for where, found in zip(self._where, self._needles.in_bytes(self._contents), strict=True):
            if found:
                self._hit(where, found)
        self._where, self._contents, self._size = [], [], 0


def read_needles(path: Path) -> Mapping[str, list[str]]:
    """Texts by field from a JSON object (as `lethe simulate --canaries` writes, or a person's details as `lethe erase`
    takes them), or one text a line (field `text`).

    Raises:
        ValueError: neither; the message quotes nothing of it.
    """
    content = path.read_text()
    if not content.lstrip().startswith("{"):
        return {"text": [line.strip() for line in content.splitlines() if line.strip()]}
    try:
        found = json.loads(content)
        each = {field: [texts] if isinstance(texts, str) else texts for field, texts in found.items()}
        return {str(field): [str(text) for text in texts] for field, texts in each.items() if texts is not None}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"{path} is no list of texts by field") from None
