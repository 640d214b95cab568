"""Matching: clean person details, derived components, match keys and their tokens."""
