"""A process that does a share of a comparison."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_THP_DISABLE = 41
"""Source: Linux, include/uapi/linux/prctl.h."""


def prepare() -> None:
    """Leave Ctrl-C to the process that waits, and have memory in small pages.

    For each of its engines unicorn asks for pages of 2 MiB; hundreds of them run for milliseconds each here, and it
    takes the kernel as long to fill such a page with zeros.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
