"""What failed, looked at in bulk: which of it is still there, which may go back, and how it goes back exactly once."""
