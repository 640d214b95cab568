"""Around the flow: settings, topics, keys, the local stack, and the `lethe` command."""
