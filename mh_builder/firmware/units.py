"""The two flash devices of a machine: one with the firmware's code, one with its variables.

Source: edk2, OvmfPkg/OvmfPkgX64.fdf (OVMF.fd is OVMF_VARS.fd and behind it OVMF_CODE.fd).
"""

from __future__ import annotations

from dataclasses import dataclass

from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.volume import find_volumes


@dataclass(frozen=True)
class Units:
    """What each of them holds; `variables` is empty where there is no such device."""

    code: bytes
    variables: bytes = b""


def split(image: bytes) -> Units:
    """The units of a flash image, which may begin with a variable store."""
    first = next(iter(find_volumes(image)), None)
    if first is None or first.offset or first.first_file is not None:
        return Units(image)
    return Units(image[first.end :], image[: first.end])


def check_variables(data: bytes) -> None:
    """Raise `FirmwareError` for what is no variable store and nothing else."""
    units = split(data)
    if units.code or not units.variables:
        raise FirmwareError("no variable store: OVMF_VARS.fd is one")
