"""Exit codes, and the errors that carry them to the user."""

from __future__ import annotations

GOOD, BAD, USAGE = 0, 1, 2
INTERRUPTED = 130
"""As a shell reports SIGINT."""


class UsageError(Exception):
    """The command cannot be carried out as it was given: exit code 2."""
