"""The flow: a module for each processor, and what they share."""
