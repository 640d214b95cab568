"""Supplier files and systems into the identified zone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producers.publisher import DeliveryError, Publisher, Receipt, RowsRefusedError

__all__ = ["DeliveryError", "Publisher", "Receipt", "RowsRefusedError"]


def __getattr__(name: str) -> Any:
    """The publisher's names, imported when first asked for: readers need no Kafka client."""
    if name in __all__:
        return getattr(import_module("producers.publisher"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
