"""VMSAs of SEV-ES guests: their checksums, in a region of memory that no x86 core can reach.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_es.c (sev_es_setup_vmsa, sev_es_validate_vmsa), crc.c; the microcode of
VMRUN and of every exit computes the same checksum.
"""

from __future__ import annotations

import struct

from mh_builder.paging import MIB, PAGE_BYTES
from mh_emulator.psp.status import Status, require

VMSA_BYTES = PAGE_BYTES
REGION_BYTES = MIB
CHECKSUM_ADDRESS_OFFSET = 0x388
"""Where a VMSA holds the system physical address of its checksum."""
CHECKED_BYTES = 0xFC0

_POLYNOMIAL = 0x82F6_3B78
"""CRC-32C, bits reversed."""
_ALL_ONES = 0xFFFF_FFFF
_LANES = 3
_WORD = 8
_ADDRESS = struct.Struct("<Q")


class BadVmsaError(Exception):
    """A VMSA whose checksum is another one, or nowhere."""


class TrustedRegion:
    """The checksums of all VMSAs, from `spa` on, 8 bytes each."""

    def __init__(self, spa: int) -> None:
        self._spa = spa
        self._checked: dict[int, bytes] = {}
        """By address, what each checksum is of: equal bytes have equal ones, so it is computed for others alone."""
        self._untouched = spa
        self._freed: list[int] = []

    def set_up(self, vmsa: bytes) -> tuple[int, bytes]:
        """Give `vmsa` a checksum; return its address, and the VMSA with that in it. Refused if there is no room."""
        address = self._room()
        page = bytearray(vmsa)
        _ADDRESS.pack_into(page, CHECKSUM_ADDRESS_OFFSET, address)
        self._checked[address] = bytes(page[:CHECKED_BYTES])
        return address, bytes(page)

    def validate(self, vmsa: bytes) -> int:
        """Check `vmsa`, as VMRUN does; return its checksum's address, or raise `BadVmsaError`."""
        (address,) = _ADDRESS.unpack_from(vmsa, CHECKSUM_ADDRESS_OFFSET)
        known, found = self._checked.get(address), vmsa[:CHECKED_BYTES]
        if known is None or (known != found and checksum(known) != checksum(found)):
            raise BadVmsaError(f"VMSA: checksum at {address:#x} does not match")
        return int(address)

    def update(self, vmsa: bytes) -> None:
        """Remember the checksum of `vmsa` as it is now, as an exit does; raise `BadVmsaError` if it has none."""
        (address,) = _ADDRESS.unpack_from(vmsa, CHECKSUM_ADDRESS_OFFSET)
        if address not in self._checked:
            raise BadVmsaError(f"VMSA: no checksum at {address:#x}")
        self._checked[address] = vmsa[:CHECKED_BYTES]

    def free(self, address: int) -> None:
        """Forget the checksum at `address`."""
        del self._checked[address]
        self._freed.append(address)

    def _room(self) -> int:
        if self._freed:
            return self._freed.pop()
        require(self._untouched < self._spa + REGION_BYTES, Status.RESOURCE_LIMIT)
        self._untouched += _WORD
        return self._untouched - _WORD


def checksum(vmsa: bytes | bytearray) -> int:
    """CRC-64 of a VMSA: three CRC-32C over every third quadword, XORed, above the CRC-32C of the three."""
    words = [vmsa[at : at + _WORD] for at in range(0, CHECKED_BYTES, _WORD)]
    lanes = [_crc32c(b"".join(words[lane::_LANES])) for lane in range(_LANES)]
    return (lanes[0] ^ lanes[1] ^ lanes[2]) << 32 | _crc32c(struct.pack("<3I", *lanes))


def _crc32c(data: bytes) -> int:
    """Eight bytes at a time: the nth table is of a byte with n zero bytes behind it."""
    crc = _ALL_ONES
    whole = len(data) - len(data) % _WORD
    none, one, two, three, four, five, six, seven = _TABLES
    for (word,) in struct.iter_unpack("<Q", data[:whole]):
        low, high = (word ^ crc) & _ALL_ONES, word >> 32
        crc = seven[low & 0xFF] ^ six[low >> 8 & 0xFF] ^ five[low >> 16 & 0xFF] ^ four[low >> 24]
        if high:
            crc ^= three[high & 0xFF] ^ two[high >> 8 & 0xFF] ^ one[high >> 16 & 0xFF] ^ none[high >> 24]
    for byte in data[whole:]:
        crc = none[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ _ALL_ONES


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


def _tables() -> list[list[int]]:
    tables = [[_entry(byte) for byte in range(256)]]
    for _ in range(_WORD - 1):
        tables.append([tables[0][crc & 0xFF] ^ crc >> 8 for crc in tables[-1]])
    return tables


_TABLES = _tables()
