"""The memory that a helper shares with its host: rings, one behind the other."""

from __future__ import annotations

from mh_abi import abi


class Shared:
    """The rings of `rings` vCPUs, all zero; host and helper see the same bytes."""

    def __init__(self, rings: int) -> None:
        self.bytes = bytearray(rings * abi.MH_RING_BYTES)

    def read_raw(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`."""
        return bytes(self.bytes[offset : offset + size])

    def write_raw(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`."""
        self.bytes[offset : offset + len(data)] = data
