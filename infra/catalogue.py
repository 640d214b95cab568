"""The catalogue of match keys as this installation uses it."""

from __future__ import annotations

from infra.settings import Settings
from stream_processors.matching.catalogue import Catalogue, load_catalogue


def configured_catalogue(settings: Settings) -> Catalogue:
    """The catalogue that comes with Lethe, less what the settings switch off.

    Raises:
        ValueError: a match key that is to be off does not exist.
    """
    off = [key.strip() for key in settings.match_keys_off.split(",") if key.strip()]
    return load_catalogue().configured(off, settings.near_matches)
