"""The secure processor."""
