"""Container images of the broker and the registry."""
