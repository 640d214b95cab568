"""The local stack: where its programs come from, and how they run."""
