"""The loader and an image, put into a prebuilt OVMF image.

Both become files of the volume that DXE dispatches from: SEC decompresses it into private memory, and it is part of
what is measured.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

from mh_abi import abi
from mh_abi.image import ImageError, parse_image
from mh_builder.firmware import guids
from mh_builder.firmware.bridge import with_entry
from mh_builder.firmware.compressed import compress
from mh_builder.firmware.driver import build_loader
from mh_builder.firmware.errors import AbsentError, FirmwareError
from mh_builder.firmware.executable import X64, machine_name
from mh_builder.firmware.flash import Flash, read_flash
from mh_builder.firmware.kind import check_kind
from mh_builder.firmware.section import (
    GUIDED_HEADER_BYTES,
    PE32,
    RAW,
    USER_INTERFACE,
    depex,
    join,
    make_guided,
    make_section,
    read_sections,
)
from mh_builder.firmware.table import read_table
from mh_builder.firmware.volume import (
    ERASED,
    FILE_HEADER,
    TYPE_DRIVER,
    TYPE_FREEFORM,
    TYPE_PAD,
    File,
    aligned,
    file_header,
    read_files,
)
from mh_builder.schemes import name_of

_OWN_FILES = (guids.LOADER_FILE, guids.IMAGE_FILE)


@dataclass(frozen=True, slots=True)
class Carried:
    """What a flash image carries: our image, and what its GUIDed table says of it."""

    blob: bytes
    entry: abi.mh_firmware_entry


def inject(flash: bytes, blob: bytes) -> bytes:
    """`flash` with the flat binary `blob` and the loader in it, in place of earlier ones. Raises `FirmwareError`."""
    parts = _target(flash, firmware_entry(blob).dumps())
    return _with_contents(parts, _with_files(parts, blob))


def check_target(flash: bytes) -> None:
    """Raise `FirmwareError` where no helper could be injected, whatever its size: before one is built."""
    check_kind(flash)
    _target(flash, bytes(len(abi.mh_firmware_entry)))


def _target(flash: bytes, entry: bytes) -> Flash:
    """The flash image with our entry in its table. Raises `FirmwareError` where our files cannot go into it."""
    parts = read_flash(with_entry(flash, entry))
    machine = parts.core_machine
    if machine != X64:
        raise FirmwareError(
            f"DXE core in {guids.DXEFV} (DXEFV): {machine_name(machine)}, not X64: it dispatches no X64 driver, "
            "so no helper would be loaded"
        )
    _check_carrier(parts)
    return parts


def firmware_entry(blob: bytes) -> abi.mh_firmware_entry:
    """Our entry's data for an image. Raises `FirmwareError` where nothing is to be loaded in the guest."""
    try:
        image = parse_image(blob)
    except ImageError as error:
        raise FirmwareError(str(error)) from None
    descriptor = image.descriptor
    if image.home is None:
        name = name_of(descriptor.scheme, descriptor.window)
        raise FirmwareError(f"{name}: the helper lies in memory that only the mirror maps; no firmware loads it")
    return abi.mh_firmware_entry(
        base=descriptor.home,
        memory_bytes=descriptor.memory_bytes,
        ring_offset=descriptor.ring_offset,
        scheme=descriptor.scheme,
    )


def extract(flash: bytes) -> Carried:
    """What was injected. Raises `AbsentError` where there is nothing, `FirmwareError` where its parts disagree."""
    parts = read_flash(flash)
    inner = parts.inner
    files = [file for file in parts.driver_files().files if file.guid == guids.IMAGE_FILE]
    if not files:
        raise AbsentError(f"no image of the migration helper: no file {guids.IMAGE_FILE} in {guids.DXEFV} (DXEFV)")
    raw = [section for section in read_sections(inner, files[0].body, files[0].end) if section.kind == RAW]
    if len(raw) != 2:
        raise FirmwareError(f"image file at {files[0].offset:#x}: {len(raw)} RAW sections, not 2")
    blob, digest = (inner[section.body : section.end] for section in raw)
    if hashlib.sha256(blob).digest() != digest:
        raise FirmwareError(f"image file: SHA-256 {hashlib.sha256(blob).hexdigest()}, its file says {digest.hex()}")
    entry = read_table(flash).find(guids.FIRMWARE_ENTRY)
    if entry is None:
        raise FirmwareError("GUIDed table: there is an image of the migration helper, but no entry for it")
    expected = firmware_entry(blob)
    found = entry.data(flash)[: len(expected)]
    if found != expected.dumps():
        raise FirmwareError(f"GUIDed table: our entry says {found.hex()}, the image {expected.dumps().hex()}")
    return Carried(blob, expected)


def driver_file() -> bytes:
    """The loader as a firmware file. It needs volatile variables, and starts as soon as it can have them."""
    name = "MigrationHelperLoader\0".encode("utf-16-le")
    sections = [
        depex(guids.VARIABLE_ARCH, guids.FIRMWARE_VOLUME2),
        make_section(PE32, build_loader()),
        make_section(USER_INTERFACE, name),
    ]
    return _file(guids.LOADER_FILE, TYPE_DRIVER, join(sections))


def image_file(blob: bytes) -> bytes:
    """An image as a firmware file (payload/abi.h)."""
    sections = [make_section(RAW, blob), make_section(RAW, hashlib.sha256(blob).digest())]
    return _file(guids.IMAGE_FILE, TYPE_FREEFORM, join(sections))


def _file(guid: UUID, kind: int, body: bytes) -> bytes:
    return file_header(guid, kind, 0, body) + body


def _with_files(parts: Flash, blob: bytes) -> bytes:
    """The compressed volumes with our two files behind all others of the drivers' volume."""
    inner = bytearray(parts.inner)
    contents = parts.driver_files()
    offset = _remove_own(inner, contents.files, contents.free)
    volume = parts.drivers
    for file in (driver_file(), image_file(blob)):
        if offset + len(file) > volume.end:
            raise FirmwareError(
                f"DXEFV: no room, a file of {len(file):#x} bytes at {offset - volume.offset:#x} of {volume.size:#x}"
            )
        inner[offset : offset + len(file)] = file
        offset = volume.offset + aligned(offset + len(file) - volume.offset)
    return bytes(inner)


def _remove_own(inner: bytearray, files: tuple[File, ...], free: int) -> int:
    """Erase our files at the end of the volume, make pads of those elsewhere; return where free space starts then."""
    kept = list(files)
    while kept and kept[-1].guid in _OWN_FILES:
        last = kept.pop()
        inner[last.offset : free] = ERASED * (free - last.offset)
        free = last.offset
    for file in kept:
        if file.guid in _OWN_FILES:
            body = ERASED * (file.size - FILE_HEADER.size)
            header = file_header(guids.PAD_FILE, TYPE_PAD, 0, body)
            inner[file.offset : file.end] = header + body
    return free


def _with_contents(parts: Flash, inner: bytes) -> bytes:
    """The flash image with other compressed volumes of the same size."""
    flash, volume, old = parts.data, parts.carrier_volume, parts.carrier
    room = volume.end - old.body - GUIDED_HEADER_BYTES
    body = make_guided(guids.LZMA, compress(inner, room))
    file = file_header(old.guid, old.kind, old.attributes, body) + body
    if old.offset + len(file) > volume.end:
        raise FirmwareError(
            f"{volume.title}: no room, its compressed file needs {len(file):#x} bytes, "
            f"{volume.end - old.offset:#x} are there"
        )
    end = old.offset + len(file)
    rest = ERASED * (max(read_files(flash, volume).free, end) - end)
    return flash[: old.offset] + file + rest + flash[end + len(rest) :]


def _check_carrier(parts: Flash) -> None:
    """The compressed file is the last of its volume, and all there is in it is the compressed section."""
    file, volume = parts.carrier, parts.carrier_volume
    sections = list(read_sections(parts.data, file.body, file.end))
    if len(sections) != 1 or file.header_bytes != FILE_HEADER.size:
        raise FirmwareError(f"compressed file at {file.offset:#x}: {len(sections)} sections, not 1")
    other = read_files(parts.data, volume).files[-1]
    if other != file:
        raise FirmwareError(f"{volume.title}: file {other.guid} at {other.offset:#x} follows the compressed section")
