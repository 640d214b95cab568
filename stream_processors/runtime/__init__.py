"""How processors run: in transactions on Kafka, or without a broker."""
