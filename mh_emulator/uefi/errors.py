"""What ends the firmware."""

from __future__ import annotations


class FirmwareStopped(Exception):
    """The driver did what firmware cannot go on after."""
