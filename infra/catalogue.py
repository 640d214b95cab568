"""The catalogue of match keys as this installation uses it."""

from __future__ import annotations

import yaml
from pydantic import ValidationError

from infra.settings import Settings
from stream_processors.matching.catalogue import Catalogue, load_catalogue
from stream_processors.matching.near_model import load_near


def configured_catalogue(settings: Settings) -> Catalogue:
    """The catalogue that comes with Lethe, less what the settings switch off, with the weights that they name.

    Raises:
        ValueError: a match key that is to be off does not exist, or the file of weights cannot be used.
    """
    off = [key.strip() for key in settings.match_keys_off.split(",") if key.strip()]
    catalogue = load_catalogue()
    if settings.near_weights is not None and settings.near_matches:
        try:
            catalogue = catalogue.with_near(load_near(settings.near_weights))
        except (OSError, yaml.YAMLError, ValidationError) as e:
            raise ValueError(f"{settings.near_weights} holds no weights of near matches ({type(e).__name__})") from None
    return catalogue.configured(off, settings.near_matches)
