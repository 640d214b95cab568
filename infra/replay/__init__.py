"""Replay: have processors read again what they have read, and say again what follows from it."""
