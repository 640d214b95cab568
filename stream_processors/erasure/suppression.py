"""Who is refused: entries of `linkage.suppression`, and how a record is held to them.

An entry is a keyed hash: of a supplier's subject, or of a strict match key's components (a token). The keys are derived
from the key that references are made under, which outlives epochs, and are no linkage keys: a suppression token can be
compared with nothing else. All strict match keys count, also those that are switched off for linking.

An order's entries hold until an entry `lifted|<order>` says otherwise; whatever comes first, the end is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import polars as pl

from schemas.registry import SchemaIds
from schemas.rows import from_value, to_value
from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.normalise import normalise
from stream_processors.matching.tokens import TokenKeys, tokenise
from stream_processors.refs import derive, keyed

TOPIC = "linkage.suppression"
Kind = Literal["subject", "token"]
_SEPARATOR = "\x1f"


class SuppressionKeys:
    """Hashes by which people are refused."""

    def __init__(self, reference_key: bytes, catalogue: Catalogue) -> None:
        """`reference_key`: what references are made under, 32 bytes or more."""
        self._subject = derive(reference_key, "lethe/1/suppression/subject")
        self._keys = TokenKeys(bytes.fromhex(derive(reference_key, "lethe/1/suppression/tokens")), 0)
        strict = tuple(k.model_copy(update={"enabled": True}) for k in catalogue.match_keys if k.strict)
        self._catalogue = Catalogue(version="suppression", passes=catalogue.passes[:1], match_keys=strict)

    def subject(self, supplier: str, subject_id: pl.Expr) -> pl.Expr:
        """Hash of a supplier's subject, 32 hex digits; null for null."""
        return keyed(pl.concat_str(pl.lit(supplier), subject_id, separator=_SEPARATOR), self._subject)

    def tokens(self, people: pl.DataFrame) -> pl.Series:
        """Strict tokens (List(String), never null) of rows with the columns that `normalise` reads."""
        return tokenise(normalise(people), self._catalogue, self._keys)["tokens"]


@dataclass(frozen=True)
class Ordered:
    """Which order an entry follows from, and what the ledger says of it."""

    order_id: str
    reason: str
    by: str
    ordered_ms: int

    @classmethod
    def of(cls, order_id: str, row: Mapping[str, Any]) -> Ordered:
        """From a row of `governance.erasure` or of `linkage.suppression`."""
        return cls(order_id, row["reason"], row["by"], row["ordered_ms"])


def entry(
    kind: Kind | Literal["lifted"], hash_: str, ordered: Ordered, until: date, looked_in: int, ids: SchemaIds
) -> tuple[bytes, bytes]:
    """Key and value of an entry. A lifted order's has no hash."""
    key = f"lifted|{ordered.order_id}" if kind == "lifted" else f"{kind}|{hash_}|{ordered.order_id}"
    row = {"kind": kind, "hash": hash_, **vars(ordered), "until": until, "looked_in": looked_in}
    return key.encode(), to_value(TOPIC, row, ids)


def parts(key: bytes) -> tuple[str, str, str]:
    """Kind, hash and order of an entry's key; no hash for `lifted`."""
    kind, _, rest = key.decode().partition("|")
    hash_, _, order_id = rest.rpartition("|")
    return kind, hash_, order_id


class Suppressed:
    """The entries of one partition that hold, to look people up in."""

    def __init__(self, rows: Iterable[tuple[bytes, bytes]], ids: SchemaIds) -> None:
        """`rows`: keys and values of `linkage.suppression`, sorted by key."""
        held = [(*parts(key), value) for key, value in rows]
        self.lifted = frozenset(order for kind, _, order, _ in held if kind == "lifted")
        self._ids = ids
        self._values: dict[str, dict[str, bytes]] = {"subject": {}, "token": {}}
        self.orders: dict[tuple[str, str], set[str]] = {}
        """By kind and hash, the orders that stand."""
        for kind, hash_, order, value in held:
            if kind != "lifted" and order not in self.lifted:
                self._values[kind].setdefault(hash_, value)
                self.orders.setdefault((kind, hash_), set()).add(order)

    def __bool__(self) -> bool:
        return bool(self.orders)

    @property
    def any_token(self) -> bool:
        """Whether anybody is refused by their details."""
        return bool(self._values["token"])

    def rulings(self, kind: Kind, hashes: pl.Series) -> dict[int, Ordered]:
        """Places in a series of hashes (String, or List(String) where any counts) that are refused, and by which
        order."""
        known = self._values[kind]
        if not known:
            return {}
        frame = pl.DataFrame({"place": pl.int_range(len(hashes), eager=True), "hash": hashes})
        if isinstance(hashes.dtype, pl.List):
            frame = frame.explode("hash")
        hit = frame.filter(pl.col("hash").is_in(list(known))).unique("place", keep="first")
        return {place: self._ordered(known[hash_]) for place, hash_ in hit.iter_rows()}

    def _ordered(self, value: bytes) -> Ordered:
        row = from_value(TOPIC, value, self._ids)
        return Ordered.of(row["order_id"], row)


def subjects_of(keys: Sequence[str | None]) -> pl.Series:
    """The subject's part of keys of the identified zone, `subject` or `subject|record`."""
    return pl.Series(list(keys), dtype=pl.String).str.split("|").list.first()
