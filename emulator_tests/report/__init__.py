"""Reading, walking, auditing, comparing and drawing address spaces."""
