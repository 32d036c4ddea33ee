"""A flat image, as any loader sees it: descriptor, relocations, region tuples (payload/abi.h)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

from mh_abi import abi
from mh_abi.errors import MigrationHelperError


class ImageError(MigrationHelperError, ValueError):
    """Bytes that are no image of ours, or an image that cannot go where it should."""


@dataclass(frozen=True)
class HelperImage:
    """A flat image as read from its file, not yet relocated."""

    data: bytes
    descriptor: abi.mh_descriptor
    vmsa: bytes | None = None
    """With it the helper starts under SEV-ES: the page that the toolchain wrote for the image as linked."""

    def __post_init__(self) -> None:
        _check(self.descriptor, len(self.data))

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the helper takes."""
        return self.descriptor.memory_bytes

    @property
    def ring_offset(self) -> int:
        """Where shared memory starts, in bytes from the base."""
        return self.descriptor.ring_offset

    @property
    def home(self) -> int | None:
        """Main GPA that the image was built for, None where it is not in main VM memory."""
        home = self.descriptor.home
        return None if home == abi.MH_NO_HOME else home

    @cached_property
    def params(self) -> abi.mh_params:
        """The parameters of the code."""
        return abi.mh_params(self.data[len(abi.mh_descriptor) :])

    @cached_property
    def by_gpa(self) -> bool:
        """Whether requests name main GPAs; else they name `ram_addr`."""
        return self.params.addresses == abi.mh_address_kind.MH_ADDRESS_GPA

    @property
    def hands_over(self) -> bool:
        """Whether the guest tells the host where its helper lies, for the mirror sees it elsewhere than the guest."""
        return self.descriptor.region_count != 0

    @property
    def snp_secrets_offset(self) -> int | None:
        """Where the secrets page of an SNP guest is launched, in bytes from the base; None for other helpers."""
        if not self.descriptor.flags & abi.MH_FLAG_SNP:
            return None
        return self.descriptor.secret_offset + self.descriptor.secret_bytes

    def regions(self) -> list[abi.mh_region]:
        """The region tuples."""
        start, count = self.descriptor.region_offset, self.descriptor.region_count
        return [abi.mh_region(record) for record in _records(self.data, start, count, len(abi.mh_region))]

    def relocated(self, base: int, c_bit: int | None) -> bytes:
        """The bytes for mirror GPA `base` on a part with that C-bit, or none. Raises `ImageError` where it is fixed."""
        flags, link_base = self.descriptor.flags, self.descriptor.link_base
        if flags & abi.MH_FLAG_FIXED_BASE and base != link_base:
            raise ImageError(f"image is fixed to base {link_base:#x}, not {base:#x}")
        if c_bit is not None and flags & abi.MH_FLAG_FIXED_CBIT and c_bit != self.descriptor.c_bit:
            raise ImageError(f"image is fixed to C-bit {self.descriptor.c_bit}, the part has {c_bit}")
        self._check_base(base, c_bit)
        data = bytearray(self.data)
        start, count = self.descriptor.relocation_offset, self.descriptor.relocation_count
        for record in _records(self.data, start, count, len(abi.mh_relocation)):
            _relocate(data, abi.mh_relocation(record), base - link_base, 0 if c_bit is None else 1 << c_bit)
        return bytes(data)

    def launched(self, base: int, c_bit: int) -> bytes:
        """All private memory for that place and part, as it is launched and measured. Raises `ImageError`."""
        found = self._launched.get((base, c_bit))
        if found is None:
            found = self._launched[base, c_bit] = self.relocated(base, c_bit).ljust(self.ring_offset, b"\0")
        return found

    @cached_property
    def _launched(self) -> dict[tuple[int, int], bytes]:
        """What `launched` has given, for which place and part."""
        return {}

    def digest(self, c_bit: int, base: int | None = None) -> bytes:
        """SHA-256 of `launched`, by which a guest owner knows the helper; at the image's own base if none is given."""
        return hashlib.sha256(self.launched(self.descriptor.link_base if base is None else base, c_bit)).digest()

    def _check_base(self, base: int, c_bit: int | None) -> None:
        end = base + self.memory_bytes
        if base < 0 or base % abi.MH_PAGE_BYTES:
            raise ImageError(f"base {base:#x} is not a multiple of {abi.MH_PAGE_BYTES:#x}")
        if c_bit is not None and end > 1 << c_bit:
            raise ImageError(f"image at {base:#x} to {end:#x} reaches the C-bit {1 << c_bit:#x}")
        # Only an image with a fixed base has a hole for itself there.
        ram = self.descriptor.window
        ram_end = ram + self.descriptor.ram_limit
        if not self.descriptor.flags & abi.MH_FLAG_FIXED_BASE and base < ram_end and ram < end:
            raise ImageError(f"image at {base:#x} to {end:#x} overlaps RAM {ram:#x} to {ram_end:#x}")


def parse_image(data: bytes, vmsa: bytes | None = None) -> HelperImage:
    """Read a flat image, and the VMSA with which an SEV-ES vCPU starts it.

    Raises `ImageError` with what is wrong and both numbers.
    """
    if len(data) < len(abi.mh_descriptor):
        raise ImageError(f"image of {len(data):#x} bytes has no room for a descriptor of {len(abi.mh_descriptor):#x}")
    image = HelperImage(data, abi.mh_descriptor(data), vmsa)
    if vmsa is not None and (len(vmsa) != abi.MH_PAGE_BYTES or not image.descriptor.flags & abi.MH_FLAG_ES):
        raise ImageError(f"VMSA of {len(vmsa):#x} bytes for an image with flags {image.descriptor.flags:#x}")
    return image


def _check(descriptor: abi.mh_descriptor, size: int) -> None:
    if descriptor.magic != abi.MH_DESCRIPTOR_MAGIC:
        raise ImageError(f"image starts with {descriptor.magic:#x}, not {abi.MH_DESCRIPTOR_MAGIC:#x}")
    if descriptor.version != abi.MH_ABI_VERSION:
        raise ImageError(f"image has ABI version {descriptor.version}, not {abi.MH_ABI_VERSION}")
    if descriptor.image_bytes != size:
        raise ImageError(f"image has {size:#x} bytes, its descriptor says {descriptor.image_bytes:#x}")
    tables = (
        ("relocations", descriptor.relocation_offset, descriptor.relocation_count, abi.mh_relocation),
        ("regions", descriptor.region_offset, descriptor.region_count, abi.mh_region),
    )
    for what, offset, count, kind in tables:
        if offset + count * len(kind) > size:
            raise ImageError(f"image's {what} end at {offset + count * len(kind):#x}, its file at {size:#x}")
    if not size <= descriptor.ring_offset <= descriptor.memory_bytes:
        raise ImageError(f"image's ring at {descriptor.ring_offset:#x} is not behind its {size:#x} bytes")
    secrets_end = descriptor.secret_offset + descriptor.secret_bytes + abi.MH_PAGE_BYTES
    if descriptor.flags & abi.MH_FLAG_SNP and secrets_end > descriptor.ring_offset:
        raise ImageError(
            f"image's secrets page ends at {secrets_end:#x}, behind its ring at {descriptor.ring_offset:#x}"
        )


def _records(data: bytes, offset: int, count: int, size: int) -> list[bytes]:
    return [data[offset + i * size : offset + (i + 1) * size] for i in range(count)]


def _relocate(data: bytearray, run: abi.mh_relocation, delta: int, c_mask: int) -> None:
    words = struct.Struct(f"<{run.count}Q")
    if run.offset + words.size > len(data):
        raise ImageError(f"relocation ends at {run.offset + words.size:#x}, the image at {len(data):#x}")
    add = delta if run.kinds & abi.MH_RELOCATE_BASE else 0
    mask = c_mask if run.kinds & abi.MH_RELOCATE_CBIT else 0
    values = [(value + add) % (1 << 64) | mask for value in words.unpack_from(data, run.offset)]
    words.pack_into(data, run.offset, *values)
