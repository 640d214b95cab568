"""Tokens: a person's match keys as keyed hashes, and the blocks in which they meet others.

Message: the values of a match key's components, in the catalogue's order, joined by U+001F, which no
component holds; since the key of the HMAC is derived for that match key and that list of components, equal
messages under one key mean equal components, one by one. Key: HKDF-SHA256 (RFC 5869) of the master key.
Token: HMAC-SHA256 (RFC 2104), the first 128 bits.
"""

from __future__ import annotations

import polars as pl
import polars_hash  # noqa: F401  adds the `chash` namespace to expressions
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stream_processors.matching.catalogue import Catalogue, MatchKey, Pass
from stream_processors.matching.components import components

SEPARATOR = "\x1f"
TOKEN_HEX_DIGITS = 32
TOKEN_TAIL = 1 + TOKEN_HEX_DIGITS
"""Characters of a token after the name of its match key: a colon and the digits."""
_LIST_SEPARATOR = ","


class TokenKeys:
    """Keys of one epoch for match keys and blocks, each derived from the master key for one purpose only.

    A derived key tells nothing of the master key or of other derived keys. Deleting the master key makes
    every token unreproducible.
    """

    def __init__(self, master: bytes, epoch: int) -> None:
        """`master`: at least 32 bytes of a good random source.

        Raises `ValueError` for fewer bytes or a negative epoch.
        """
        if len(master) < 32:
            raise ValueError("the master key must have at least 32 bytes")
        if epoch < 0:
            raise ValueError("an epoch is 0 or more")
        self._master = bytes(master)
        self.epoch = epoch

    def __repr__(self) -> str:
        return f"TokenKeys(epoch={self.epoch})"

    def match_key(self, key: MatchKey) -> str:
        """HMAC key of a match key, info `lethe/1/epoch/<e>/match-key/<id>/<components joined by +>`.

        Other components make another key.
        """
        return self.derive(f"match-key/{key.id}/{'+'.join(key.components)}")

    def block(self, block: Pass) -> str:
        """HMAC key of a pass's blocks: `lethe/1/epoch/<e>/block/<pass>/<components joined by +>`."""
        return self.derive(f"block/{block.number}/{'+'.join(block.block)}")

    def derive(self, purpose: str) -> str:
        """Key for `purpose` in this epoch, as 64 hex digits.

        HKDF-SHA256 without salt, info `lethe/1/epoch/<epoch>/<purpose>`.
        """
        info = f"lethe/1/epoch/{self.epoch}/{purpose}".encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._master).hex()


def hmac_hex(expr: pl.Expr, key: str) -> pl.Expr:
    """First 128 bits of the HMAC-SHA256 of text, as 32 lower-case hex digits; null for null.

    Text and `key` are taken as their UTF-8 bytes.
    """
    digest: pl.Expr = expr.chash.hmac_sha256(key=key)  # type: ignore[attr-defined]
    return digest.str.slice(0, TOKEN_HEX_DIGITS)


def tokenise(normalised: pl.DataFrame, catalogue: Catalogue, keys: TokenKeys) -> pl.DataFrame:
    """Add tokens and blocks to rows of `normalise`; rows, their order and all other columns stay as they are.

    Adds, both List(String) and never null:

    - `tokens`: `<match key id>:<32 hex digits>` of each enabled match key whose components are all present,
      strictest first;
    - `blocks`: `<pass>:<32 hex digits>` of each pass whose block components are all present, in order.

    Each row's tokens depend on that row, the catalogue and the keys alone. Raises
    `polars.exceptions.ColumnNotFoundError` if `normalised` does not come from `normalise`.
    """
    matched = catalogue.enabled
    lists = [*(p.block for p in catalogue.passes), *(key.components for key in matched)]
    used = dict.fromkeys(name for names in lists for name in names)
    values = components(normalised, tuple(used))
    tokens = [_labelled(key.id, key.components, keys.match_key(key)) for key in matched]
    blocks = [_labelled(str(p.number), p.block, keys.block(p)) for p in catalogue.passes]
    made = values.lazy().select(tokens=_as_list(tokens), blocks=_as_list(blocks)).collect()
    return normalised.with_columns(made.get_columns())


def _labelled(label: str, names: tuple[str, ...], key: str) -> pl.Expr:
    """`<label>:<token>` of the components, or null if one is missing."""
    message = pl.concat_str([pl.col(name) for name in names], separator=SEPARATOR)
    return pl.concat_str(pl.lit(f"{label}:"), hmac_hex(message, key))


def _as_list(texts: list[pl.Expr]) -> pl.Expr:
    """The texts that are not null, as a list.

    Joining and splitting is eight times faster than `concat_list` and `drop_nulls`.
    """
    joined = pl.concat_str(texts, separator=_LIST_SEPARATOR, ignore_nulls=True)
    none = pl.lit([], dtype=pl.List(pl.String))
    return pl.when(joined == "").then(none).otherwise(joined.str.split(_LIST_SEPARATOR))
