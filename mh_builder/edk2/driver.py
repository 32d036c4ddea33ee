"""The driver's folder in an edk2 tree: its sources, the ABI header that they include, and the image it is to load."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path
from uuid import UUID

from mh_abi import abi
from mh_builder.edk2.tree import TreeError
from mh_builder.firmware.inject import firmware_entry
from ovmf_patches import DRIVER

HOME = "OvmfPkg/MigrationHelperDxe"
"""The folder, from the top of the tree."""

FLAG = "MIGRATION_HELPER_ENABLE"
"""What a build defines to have the helper in its image."""

_PLACEHOLDER = re.compile(rb"@(\w+)@")
_MODULE = "MigrationHelperDxe.inf"


def driver_files(image: bytes) -> dict[str, bytes]:
    """Path in the tree -> contents, for the flat binary `image`. Raises `FirmwareError` where no firmware loads it."""
    values = _values(image)
    files = {path.name: _filled(path.read_bytes(), values) for path in sorted(DRIVER.iterdir())}
    files |= {
        **{f"Include/{header.name}": header.read_bytes() for header in abi.HEADERS},
        "Image.bin": image,
        "Image.sha256": hashlib.sha256(image).digest(),
    }
    return {f"{HOME}/{name}": contents for name, contents in files.items()}


def check_place(root: Path) -> None:
    """Whether the folder is free, or ours from an earlier time. Raises `TreeError`."""
    folder, module = root / HOME, root / HOME / _MODULE
    if not folder.exists() and not folder.is_symlink():
        return
    if not module.is_file() or abi.MH_LOADER_FILE_GUID.encode() not in module.read_bytes():
        raise TreeError(f"{folder}: is there, and is not the migration helper's")


def _values(image: bytes) -> dict[bytes, str]:
    """What stands for each placeholder: GUIDs as edk2 writes them, and struct mh_firmware_entry as nasm does."""
    entry = struct.unpack("<4I", firmware_entry(image).dumps())
    return {
        b"MH_LOADER_FILE_GUID": abi.MH_LOADER_FILE_GUID,
        b"MH_IMAGE_FILE_GUID": abi.MH_IMAGE_FILE_GUID,
        b"ENTRY": ",".join(f"{number:#x}" for number in entry),
        b"ENTRY_GUID": ",".join(f"{byte:#04x}" for byte in UUID(abi.MH_FIRMWARE_ENTRY_GUID).bytes_le),
    }


def _filled(text: bytes, values: dict[bytes, str]) -> bytes:
    return _PLACEHOLDER.sub(lambda match: values[match[1]].encode(), text)
