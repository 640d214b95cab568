"""Rollout: an edition beside the one in use, compared with it, put in its place, and the old one removed."""
