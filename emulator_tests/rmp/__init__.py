"""The reverse map table."""
