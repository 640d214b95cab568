"""The commands of `lethe`, a module each."""
