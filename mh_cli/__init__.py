"""The command line: one module a verb; the only package that knows both builder and emulator."""

__version__ = "0.1.0"
"""Of the whole distribution: pyproject.toml reads it from here."""
