"""The benchmark: each stage alone, then everything at once, on one broker in one run."""
