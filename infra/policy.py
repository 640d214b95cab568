"""The retention policy of this installation."""

from __future__ import annotations

import yaml

from infra.settings import Settings
from stream_processors.retention_policy import FILE, PolicyMissingError, RetentionPolicy, load_policy


class PolicyFileError(ValueError):
    """The file that LETHE_RETENTION names cannot be used; nothing may start."""


def configured_policy(settings: Settings) -> RetentionPolicy:
    """The policy in the file that the settings name, or else in the one that comes with Lethe.

    Raises:
        PolicyFileError: it is missing, no YAML, or no complete policy.
    """
    path = settings.retention or FILE
    try:
        return load_policy(path)
    except OSError as e:
        raise PolicyFileError(f"LETHE_RETENTION: {path} cannot be read ({e.strerror})") from None
    except (ValueError, PolicyMissingError, yaml.YAMLError) as e:
        raise PolicyFileError(f"LETHE_RETENTION: {path}: {e}") from None
