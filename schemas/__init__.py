"""Contracts: the Avro schemas of every topic, how each field is classified, the codec and the registry."""
