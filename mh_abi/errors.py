"""The roots of what this project raises when what was asked for is bad."""

from __future__ import annotations


class MigrationHelperError(Exception):
    """What was asked for is bad: a source, a layout, an image, a migration. One line, which says what is wrong."""


class DiagnosticsError(MigrationHelperError):
    """Lines of their own, each of which names a place in a source or an object."""
