"""A flash image of OVMF: the compressed volumes, and among them the one with the drivers."""

from __future__ import annotations

from dataclasses import dataclass
from mmap import mmap

from mh_builder.firmware import guids
from mh_builder.firmware.compressed import decompress
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.executable import machine_of
from mh_builder.firmware.section import GUIDED, VOLUME_IMAGE, Section, guided, read_sections
from mh_builder.firmware.volume import (
    TYPE_DXE_CORE,
    TYPE_SMM_CORE,
    TYPE_VOLUME,
    Contents,
    File,
    Volume,
    find_volumes,
    read_files,
    read_volume,
)

LARGEST_FLASH = 64 << 20
"""Bytes; what is larger is no OVMF."""


@dataclass(frozen=True)
class Flash:
    """A flash image, taken apart; offsets of `drivers` are in `inner`, all others in `data`."""

    data: bytes
    volumes: tuple[Volume, ...]
    """Those with a file system."""
    carrier_volume: Volume
    carrier: File
    """The file that is the compressed section."""
    inner: bytes
    """What is compressed."""
    drivers: Volume
    """The volume that DXE dispatches from."""

    @property
    def needs_smm(self) -> bool:
        """Whether it is built so that only SMM may write variables."""
        return any(file.kind == TYPE_SMM_CORE for file in self.driver_files().files)

    @property
    def core_machine(self) -> int | None:
        """The machine of the DXE core, which dispatches drivers of no other; None without a core that can be read."""
        cores = [file for file in self.driver_files().files if file.kind == TYPE_DXE_CORE]
        return machine_of(self.inner, cores[0]) if cores else None

    def driver_files(self) -> Contents:
        """The files of `drivers`."""
        return read_files(self.inner, self.drivers)


def read_flash(data: bytes) -> Flash:
    """Take an OVMF image apart. Raises `FirmwareError` where there is no compressed volume of drivers."""
    check_size(data)
    volumes = tuple(volume for volume in find_volumes(data) if volume.first_file is not None)
    for volume in volumes:
        for file in read_files(data, volume).files:
            if file.kind != TYPE_VOLUME:
                continue
            for section in read_sections(data, file.body, file.end):
                inner = _contents(data, section)
                drivers = None if inner is None else _drivers(inner)
                if inner is not None and drivers is not None:
                    return Flash(data, volumes, volume, file, inner, drivers)
    raise FirmwareError(f"no compressed volume {guids.DXEFV} (DXEFV) in {_found(data, volumes)}")


def _found(data: bytes, volumes: tuple[Volume, ...]) -> str:
    """The volumes that there are, and what lies before them where their head may be missing."""
    if not volumes:
        return f"{len(data):#x} bytes without any firmware volume"
    found = "the firmware volumes (at " + ", ".join(f"{volume.offset:#x}" for volume in volumes) + ")"
    head = data[: volumes[0].offset]
    if len(volumes) == 1 or head.count(head[:1]) != len(head):
        found += f"; {len(head):#x} bytes come before them: is the head of the image missing?"
    return found


def check_size(data: bytes | mmap) -> None:
    """Raise `FirmwareError` where `data` is larger than any OVMF."""
    if len(data) > LARGEST_FLASH:
        raise FirmwareError(f"{len(data):#x} bytes, a flash image has at most {LARGEST_FLASH:#x}")


def _contents(data: bytes, section: Section) -> bytes | None:
    if section.kind != GUIDED:
        return None
    guid, start = guided(data, section)
    return decompress(data, start, section.end) if guid == guids.LZMA else None


def _drivers(inner: bytes) -> Volume | None:
    for section in read_sections(inner, 0, len(inner)):
        if section.kind == VOLUME_IMAGE:
            volume = read_volume(inner, section.body, section.end)
            if volume.name == guids.DXEFV:
                return volume
    return None
