"""The migration helper: its assembly sources and its ABI."""
