"""Theorems about linked code: what holds for every input, not for those that a test thought of."""
