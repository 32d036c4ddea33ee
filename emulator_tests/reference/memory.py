"""The memory that a helper serves: the guest's RAM, and behind it the window of VMSAs."""

from __future__ import annotations

from dataclasses import dataclass

from mh_abi import abi

PAGE = abi.MH_PAGE_BYTES
Status = abi.mh_status


@dataclass(frozen=True, slots=True)
class Window:
    """Addresses that requests may name: `size` bytes from 0, which lie from `offset` on in the memory."""

    offset: int
    size: int
    protected: tuple[range, ...] = ()
    """Addresses that are refused."""

    def refusal(self, address: int, pages: int) -> abi.mh_status:
        """What is wrong with the first wrong one of `pages` pages from `address`; MH_DONE if none is."""
        statuses = (self._page(address + number * PAGE) for number in range(pages))
        return next((status for status in statuses if status != Status.MH_DONE), Status.MH_DONE)

    def page(self, address: int) -> int:
        """The number of a page in the maps."""
        return (self.offset + address) // PAGE

    def _page(self, address: int) -> abi.mh_status:
        if address % PAGE:
            return Status.MH_NOT_ALIGNED
        if address > self.size - PAGE:
            return Status.MH_OUT_OF_RANGE
        if any(address in hole for hole in self.protected):
            return Status.MH_PROTECTED
        return Status.MH_DONE


class Memory:
    """RAM of `ram_limit` bytes, of which `protected` are refused, and MH_VMSA_BYTES of VMSAs; all zero."""

    def __init__(self, ram_limit: int, protected: range) -> None:
        self.ram = Window(0, ram_limit, (protected,))
        self.vmsas = Window(ram_limit, abi.MH_VMSA_BYTES)
        self.bytes = bytearray(ram_limit + abi.MH_VMSA_BYTES)

    def window(self, flags: int) -> Window:
        """Which of the two a batch with these flags is about."""
        return self.vmsas if flags & abi.MH_BATCH_VMSA else self.ram

    def read(self, window: Window, address: int, size: int) -> bytes:
        """`size` bytes of `window` from `address`."""
        start = window.offset + address
        return bytes(self.bytes[start : start + size])

    def write(self, window: Window, address: int, data: bytes) -> None:
        """Store `data` in `window` at `address`."""
        start = window.offset + address
        self.bytes[start : start + len(data)] = data
