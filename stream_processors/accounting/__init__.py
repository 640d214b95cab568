"""From what lies on the topics to whether every record is accounted for: pure, over any source of records."""
