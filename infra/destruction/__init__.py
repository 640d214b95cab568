"""Destruction that can be proved: what is left on disk, the proof, the certificate, and the end of everything."""
