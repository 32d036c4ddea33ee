"""What is wrong with a firmware image."""

from __future__ import annotations

from mh_abi.errors import MigrationHelperError


class FirmwareError(MigrationHelperError, ValueError):
    """A firmware image that cannot be read or changed; one line with the place and both numbers."""


class AbsentError(FirmwareError):
    """What was looked for is not in the image, which is whole all the same."""
