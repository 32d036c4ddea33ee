"""The line that the loader prints on the debug port (payload/abi.h, MH_DEBUG_MARKER)."""

from __future__ import annotations

import re

from mh_abi import abi
from mh_builder.firmware.errors import FirmwareError

_LINE = re.compile(
    re.escape(abi.MH_DEBUG_MARKER) + r"(?:([0-9a-f]{16}) ([0-9a-f]{16})|failed ([0-9a-f]{2}) ([0-9a-f]{16}))$"
)


def check_line(line: str, base: int, size: int) -> None:
    """Raise `FirmwareError` where it does not say that `size` bytes were loaded at GPA `base`."""
    match = _LINE.search(line)
    if match is None:
        raise FirmwareError(f"the loader's line on the debug port is {line!r}")
    if match[3] is not None:
        step = int(match[3], 16)
        name = next((one.name for one in abi.mh_load_step if one.value == step), f"{step:#x}")
        raise FirmwareError(f"the loader failed: step {name}, EFI_STATUS {int(match[4], 16):#x}")
    if (int(match[1], 16), int(match[2], 16)) != (base, size):
        raise FirmwareError(f"the loader says {line!r}, the image is for {base:#x}, {size:#x} bytes")
