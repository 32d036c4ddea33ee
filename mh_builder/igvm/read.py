"""What the headers of an IGVM file have to be together: masks, places in the file, places in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from mh_builder.firmware.errors import FirmwareError
from mh_builder.igvm.file import Header, Igvm, page_bytes, parse
from mh_builder.igvm.layout import (
    PAGE_FLAGS,
    DataType,
    GuestPolicy,
    PageData,
    Parameter,
    ParameterArea,
    ParameterInsert,
    Platform,
    RequiredMemory,
    SnpIdBlock,
    SupportedPlatform,
    VpContext,
)
from mh_builder.paging import MIB, PAGE_BYTES

GPA_LIMIT = 1 << 52
"""No part has more physical address bits."""
MEMORY_LIMIT = 512 * MIB
"""Bytes of all pages and parameter areas together; each page is a step of the digest."""


def read_igvm(data: bytes) -> Igvm:
    """Read and check a file.

    Raises `FirmwareError` with the header, its place and both numbers: what is unknown and not optional, masks of no
    platform, data outside of the file, places that are no page or that two headers fill.
    """
    igvm = parse(data)
    checks = _Checks(igvm)
    for header in igvm.headers:
        checks.look_at(header)
    if not checks.declared:
        raise FirmwareError(f"IGVM: no platform in {len(igvm.headers)} headers")
    checks.look_at_memory()
    return igvm


@dataclass
class _Checks:
    """What has been seen so far."""

    igvm: Igvm
    declared: int = 0
    """Bits of the platforms."""
    areas: dict[int, int] = field(default_factory=dict)
    """Index of each parameter area -> its bytes."""
    inserted: set[int] = field(default_factory=set)
    once: set[tuple[str, int, int]] = field(default_factory=set)
    """(name, bit of the mask, index) of what a platform has once."""
    filled: list[tuple[int, int, int, Header]] = field(default_factory=list)
    """(first GPA, GPA behind, mask, header)."""

    def look_at(self, header: Header) -> None:
        """Check a header by itself and against those before it."""
        if isinstance(header.body, SupportedPlatform):
            self._platform(header, header.body)
        else:
            self._mask(header)
        match header.body:
            case PageData() as body:
                self._page(header, body)
            case VpContext() as body:
                self._context(header, body)
            case (GuestPolicy() | SnpIdBlock()) as body:
                self._only(header, body.mask, 0)
            case RequiredMemory() as body:
                _check_place(header, body.gpa, body.size)
            case ParameterArea() as body:
                self._area(header, body)
            case Parameter() as body:
                size = self._free_area(header, body.area)
                if body.byte_offset >= size:
                    raise _error(header, f"offset {body.byte_offset:#x} of an area of {size:#x} bytes")
            case ParameterInsert() as body:
                size = self._free_area(header, body.area)
                self.inserted.add(body.area)
                self._fill(header, body.gpa, size, body.mask)

    def look_at_memory(self) -> None:
        """No place may be filled twice for one platform."""
        total = sum(end - start for start, end, _, _ in self.filled)
        if total > MEMORY_LIMIT:
            raise FirmwareError(f"IGVM: pages of {total:#x} bytes, at most {MEMORY_LIMIT:#x} are expected")
        for bit in self.igvm.platforms.values():
            behind, last = 0, None
            for start, end, _, header in sorted(entry for entry in self.filled if entry[2] & bit):
                if start < behind and last is not None:
                    raise _error(header, f"memory at {start:#x} is filled by {last.name} at {last.offset:#x} as well")
                behind, last = end, header

    def _mask(self, header: Header) -> None:
        mask = getattr(header.body, "mask", self.declared)
        if not mask or mask & ~self.declared:
            raise _error(header, f"compatibility mask {mask:#x}, the platforms are {self.declared:#x}")

    def _platform(self, header: Header, body: SupportedPlatform) -> None:
        if body.mask.bit_count() != 1 or body.mask & self.declared:
            raise _error(header, f"mask {body.mask:#x} is not one new bit beside {self.declared:#x}")
        if body.platform not in Platform.__members__.values() or body.version != 1:
            raise _error(header, f"unknown platform {body.platform:#x} of version {body.version:#x}")
        self._only(header, 1, body.platform)
        self.declared |= body.mask

    def _page(self, header: Header, body: PageData) -> None:
        if body.flags & ~PAGE_FLAGS:
            raise _error(header, f"flags {body.flags:#x}, known are {PAGE_FLAGS:#x}")
        if body.data_type not in DataType.__members__.values():
            raise _error(header, f"unknown type of page {body.data_type:#x}")
        if body.gpa % page_bytes(body):
            raise _error(header, f"GPA {body.gpa:#x} is not a multiple of {page_bytes(body):#x}")
        if body.file_offset:
            self._data(header, body.file_offset, page_bytes(body))
        self._fill(header, body.gpa, page_bytes(body), body.mask)

    def _context(self, header: Header, body: VpContext) -> None:
        if body.mask.bit_count() != 1:
            raise _error(header, f"registers of the platforms {body.mask:#x}, each has a layout of its own")
        self._only(header, body.mask, body.vp_index)
        _check_place(header, body.gpa, PAGE_BYTES)
        self._data(header, body.file_offset, PAGE_BYTES)

    def _area(self, header: Header, body: ParameterArea) -> None:
        if body.area in self.areas:
            raise _error(header, f"parameter area {body.area} is there a second time")
        if not body.size or body.size % PAGE_BYTES or body.size > MEMORY_LIMIT:
            raise _error(header, f"{body.size:#x} bytes are no number of pages of at most {MEMORY_LIMIT:#x}")
        if body.file_offset:
            self._data(header, body.file_offset, body.size)
        self.areas[body.area] = body.size

    def _free_area(self, header: Header, index: int) -> int:
        """Bytes of a parameter area that is not inserted yet."""
        if index not in self.areas or index in self.inserted:
            raise _error(header, f"parameter area {index} is not declared before, or inserted already")
        return self.areas[index]

    def _fill(self, header: Header, gpa: int, size: int, mask: int) -> None:
        _check_place(header, gpa, size)
        self.filled.append((gpa, gpa + size, mask, header))

    def _data(self, header: Header, offset: int, size: int) -> None:
        start, end = self.igvm.headers_end, len(self.igvm.data)
        if not start <= offset <= end - size:
            raise _error(header, f"{size:#x} bytes of data at {offset:#x}, data are at {start:#x} to {end:#x}")

    def _only(self, header: Header, mask: int, index: int) -> None:
        bits = [(header.name, 1 << number, index) for number in range(mask.bit_length()) if mask >> number & 1]
        if not self.once.isdisjoint(bits):
            raise _error(header, f"a second one of index {index:#x} for the platforms {mask:#x}")
        self.once.update(bits)


def _error(header: Header, what: str) -> FirmwareError:
    return FirmwareError(f"IGVM: {header.name} at {header.offset:#x}: {what}")


def _check_place(header: Header, gpa: int, size: int) -> None:
    if (gpa | size) % PAGE_BYTES or gpa + size > GPA_LIMIT:
        raise _error(header, f"GPA {gpa:#x} and {size:#x} bytes are no pages below {GPA_LIMIT:#x}")
