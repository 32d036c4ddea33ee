"""What is wrong with a snapshot."""

from __future__ import annotations

from mh_abi.errors import MigrationHelperError


class SnapshotError(MigrationHelperError, ValueError):
    """A file that is no snapshot, is damaged, or is one of something else; one line with what was found."""
