"""The GHCB: the page that an SEV-ES guest shares to say what it wants emulated.

Source: GHCB specification (AMD 56421), section 2.6 and tables 3 to 5; Linux, arch/x86/include/asm/svm.h
(struct ghcb) and arch/x86/kvm/svm/sev.c (sev_es_sync_from_ghcb, sev_es_sync_to_ghcb).
"""

from __future__ import annotations

from enum import IntEnum

from mh_builder.paging import PAGE_BYTES
from mh_builder.save_area import OFFSETS
from mh_emulator.cpu.mmu import VECTOR_GP
from mh_emulator.dram.dram import Dram

_EXIT_CODE, _EXIT_INFO_1, _EXIT_INFO_2, _SCRATCH, _XCR0 = 0x390, 0x398, 0x3A0, 0x3A8, 0x3E8
_BITMAP, _BITMAP_BYTES = 0x3F0, 16
_USAGE, _USAGE_BYTES = 0xFFC, 4

_FIELDS = {
    **{name: OFFSETS[name] for name in ("rax", "rbx", "rcx", "rdx", "rsi")},
    "cpl": OFFSETS["cpl"],
    "exit_code": _EXIT_CODE,
    "exit_info_1": _EXIT_INFO_1,
    "exit_info_2": _EXIT_INFO_2,
    "scratch": _SCRATCH,
    "xcr0": _XCR0,
}
_WORD = 8

SHARED_BUFFER, SHARED_BUFFER_END = 0x800, 0xFF0
"""Where scratch space in the GHCB itself lies."""

_EVENT_EXCEPTION, _EVENT_VALID = 3 << 8, 1 << 31


class Response(IntEnum):
    """What the low half of SW_EXITINFO1 tells the guest."""

    NO_ACTION = 0
    ISSUE_EXCEPTION = 1
    MALFORMED_INPUT = 2


class Malformed(IntEnum):
    """SW_EXITINFO2 of MALFORMED_INPUT."""

    INVALID_USAGE = 2
    INVALID_SCRATCH_AREA = 3
    MISSING_INPUT = 4
    INVALID_INPUT = 5
    INVALID_EVENT = 6


class MalformedError(Exception):
    """A request that KVM does not carry out."""

    def __init__(self, reason: Malformed) -> None:
        super().__init__(reason)
        self.reason = reason


class Ghcb:
    """The request that lies in the page at `spa` (of GPA `gpa`), read once; answers are written back to it."""

    privilege: int

    def __init__(self, dram: Dram, spa: int, gpa: int) -> None:
        self._dram = dram
        self._spa = spa
        self.gpa = gpa
        page = dram.read_raw(spa, PAGE_BYTES)
        self.usage = int.from_bytes(page[_USAGE : _USAGE + _USAGE_BYTES], "little")
        self._valid = int.from_bytes(page[_BITMAP : _BITMAP + _BITMAP_BYTES], "little")
        self._values = {name: self._given(page, name) for name in _FIELDS}
        self.privilege = self._values["cpl"]
        dram.write_raw(spa + _BITMAP, bytes(_BITMAP_BYTES))

    def has(self, *names: str) -> bool:
        """Whether the guest has marked all these fields as valid."""
        return all(self._valid >> _FIELDS[name] // _WORD & 1 for name in names)

    def read(self, name: str) -> int:
        """A field as the guest gave it, 0 if it did not; changed by `write`."""
        return self._values[name]

    def write(self, name: str, value: int) -> None:
        """Set a register; the guest sees RAX to RDX, and only after `done`."""
        self._values[name] = value

    def done(self) -> None:
        """Answer that nothing is left to do."""
        self.respond(Response.NO_ACTION, 0)

    def fault(self) -> None:
        """Answer that the guest has to raise #GP."""
        self.respond(Response.ISSUE_EXCEPTION, VECTOR_GP | _EVENT_EXCEPTION | _EVENT_VALID)

    def respond(self, response: Response, detail: int) -> None:
        """Write RAX to RDX, marked as valid, and the two words of the answer."""
        bitmap = 0
        for name in ("rax", "rbx", "rcx", "rdx"):
            self._put(_FIELDS[name], self._values[name])
            bitmap |= 1 << _FIELDS[name] // _WORD
        for offset, value in ((_EXIT_INFO_1, response), (_EXIT_INFO_2, detail)):
            self._put(offset, value)
            bitmap |= 1 << offset // _WORD
        self._dram.write_raw(self._spa + _BITMAP, bitmap.to_bytes(_BITMAP_BYTES, "little"))

    def scratch(self, size: int) -> int:
        """GPA of `size` bytes of scratch space; raise `MalformedError` where it is none that KVM takes."""
        start = self._values["scratch"]
        in_page = start - self.gpa
        outside = 0 <= in_page < PAGE_BYTES and not SHARED_BUFFER <= in_page <= SHARED_BUFFER_END - size
        if not start or outside:
            raise MalformedError(Malformed.INVALID_SCRATCH_AREA)
        return start

    def _given(self, page: bytes, name: str) -> int:
        start = _FIELDS[name]
        size = 1 if name == "cpl" else _WORD
        is_valid = self._valid >> start // _WORD & 1
        return int.from_bytes(page[start : start + size], "little") if is_valid else 0

    def _put(self, offset: int, value: int) -> None:
        self._dram.write_raw(self._spa + offset, value.to_bytes(_WORD, "little"))
