"""The boot and runtime services that the loader calls, and what they remember.

Source: UEFI 2.10, sections 7.2, 7.3 and 8.2; UEFI PI 1.8 volume 3, section 3.4.1. Every argument is checked as a strict
firmware may check it, memory comes filled with noise, and what is freed twice or was never allocated is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from mh_builder.paging import PAGE_BYTES
from mh_emulator.uefi.pool import MemoryMap, MemoryType

SUCCESS = 0
_ERROR = 1 << 63
INVALID_PARAMETER, OUT_OF_RESOURCES, NOT_FOUND = _ERROR | 2, _ERROR | 9, _ERROR | 14

FIRMWARE_VOLUME2 = UUID("220e73b6-6bdb-4413-8405-b974b108619a")
SECTION_RAW = 0x19
ALLOCATE_ANY, ALLOCATE_ADDRESS, BY_PROTOCOL = 0, 2, 2
BOOTSERVICE_ACCESS, RUNTIME_ACCESS = 2, 4

_NOISE = b"\xaf"
_LONGEST_NAME = 64


class Memory(Protocol):
    """Guest memory by GPA, as the guest sees what it maps private."""

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes."""

    def write(self, gpa: int, data: bytes) -> None:
        """Store `data`."""


Files = Mapping[UUID, Sequence[bytes]]
"""A firmware volume: name of a file -> its RAW sections."""

Placed = Mapping[UUID, Sequence[tuple[int, int]]]
"""A volume in memory: name of a file -> (GPA, bytes) of its RAW sections."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One allocation from the pool."""

    pages: int
    kind: MemoryType


@dataclass
class Services:
    """One firmware's state. `volumes` are its handles: 1 is the first."""

    memory: Memory
    map: MemoryMap
    volumes: Sequence[Placed]
    volume_interface: int
    """Where the protocol of the first volume lies; the others follow it at `INTERFACE_BYTES`."""
    pools: dict[int, Pool] = field(default_factory=dict)
    tables: dict[UUID, int] = field(default_factory=dict)
    """Configuration tables."""
    variables: dict[tuple[UUID, str], tuple[int, bytes]] = field(default_factory=dict)
    """(vendor, name) -> (attributes, data)."""

    def by_name(self) -> dict[str, Callable[..., int]]:
        """Name -> what carries it out; the arguments are numbers."""
        return {
            "AllocatePages": self.allocate_pages,
            "FreePages": self.free_pages,
            "AllocatePool": self.allocate_pool,
            "FreePool": self.free_pool,
            "HandleProtocol": self.handle_protocol,
            "InstallConfigurationTable": self.install_configuration_table,
            "LocateHandleBuffer": self.locate_handle_buffer,
            "SetVariable": self.set_variable,
            "ReadSection": self.read_section,
        }

    def allocate_pages(self, how: int, kind: int, pages: int, address: int) -> int:
        """EFI_BOOT_SERVICES.AllocatePages() of any pages or of those at an address."""
        if how == ALLOCATE_ADDRESS:
            return SUCCESS if self.map.take(MemoryType(kind), self._number(address), pages) else NOT_FOUND
        if how != ALLOCATE_ANY:
            return INVALID_PARAMETER
        found = self.map.find(MemoryType(kind), pages)
        if found is None:
            return OUT_OF_RESOURCES
        self.memory.write(found, _NOISE * pages * PAGE_BYTES)
        self._store(address, found)
        return SUCCESS

    def free_pages(self, start: int, pages: int) -> int:
        """EFI_BOOT_SERVICES.FreePages()."""
        return SUCCESS if self.map.free(start, pages) else NOT_FOUND

    def allocate_pool(self, kind: int, size: int, address: int) -> int:
        """EFI_BOOT_SERVICES.AllocatePool()."""
        found = self._pool(MemoryType(kind), size)
        if found is None:
            return OUT_OF_RESOURCES
        self._store(address, found)
        return SUCCESS

    def free_pool(self, address: int) -> int:
        """EFI_BOOT_SERVICES.FreePool()."""
        pool = self.pools.pop(address, None)
        if pool is None:
            return INVALID_PARAMETER
        self.map.free(address & -PAGE_BYTES, pool.pages)
        return SUCCESS

    def locate_handle_buffer(self, how: int, protocol: int, key: int, count: int, buffer: int) -> int:
        """EFI_BOOT_SERVICES.LocateHandleBuffer() by protocol."""
        if how != BY_PROTOCOL or key:
            return INVALID_PARAMETER
        if self._guid(protocol) != FIRMWARE_VOLUME2 or not self.volumes:
            return NOT_FOUND
        handles = b"".join((number + 1).to_bytes(8, "little") for number in range(len(self.volumes)))
        return self._give(handles, buffer, count, len(self.volumes))

    def handle_protocol(self, handle: int, protocol: int, interface: int) -> int:
        """EFI_BOOT_SERVICES.HandleProtocol()."""
        if self._guid(protocol) != FIRMWARE_VOLUME2 or not 1 <= handle <= len(self.volumes):
            return INVALID_PARAMETER
        self._store(interface, self.volume_interface + (handle - 1) * INTERFACE_BYTES)
        return SUCCESS

    def read_section(  # noqa: PLR0917 - the firmware's signature
        self, this: int, name: int, kind: int, instance: int, buffer: int, size: int, authentication: int
    ) -> int:
        """EFI_FIRMWARE_VOLUME2_PROTOCOL.ReadSection() into a buffer of its own."""
        if self._number(buffer):
            return INVALID_PARAMETER
        files = self.volumes[(this - self.volume_interface) // INTERFACE_BYTES]
        sections = files.get(self._guid(name), ())
        if kind != SECTION_RAW or instance >= len(sections):
            return NOT_FOUND
        self.memory.write(authentication, bytes(4))
        data = self.memory.read(*sections[instance])
        return self._give(data, buffer, size, len(data))

    def install_configuration_table(self, name: int, table: int) -> int:
        """EFI_BOOT_SERVICES.InstallConfigurationTable()."""
        guid = self._guid(name)
        if not table and guid not in self.tables:
            return NOT_FOUND
        self.tables.pop(guid, None)
        if table:
            self.tables[guid] = table
        return SUCCESS

    def set_variable(self, name: int, vendor: int, attributes: int, size: int, data: int) -> int:
        """EFI_RUNTIME_SERVICES.SetVariable(); without data, or without attributes, it deletes."""
        text = self.memory.read(name, 2 * _LONGEST_NAME).decode("utf-16-le", errors="replace").split("\0")[0]
        key = self._guid(vendor), text
        if not attributes or not size:
            return SUCCESS if self.variables.pop(key, None) else NOT_FOUND
        if attributes != BOOTSERVICE_ACCESS | RUNTIME_ACCESS:
            return INVALID_PARAMETER
        self.variables[key] = attributes, self.memory.read(data, size)
        return SUCCESS

    def _give(self, data: bytes, buffer: int, size: int, number: int) -> int:
        """Hand out `data` in a pool buffer, and `number` beside it."""
        found = self._pool(MemoryType.BOOT_SERVICES_DATA, len(data))
        if found is None:
            return OUT_OF_RESOURCES
        self.memory.write(found, data)
        self._store(buffer, found)
        self._store(size, number)
        return SUCCESS

    def _pool(self, kind: MemoryType, size: int) -> int | None:
        pages = -(-size // PAGE_BYTES)
        found = self.map.find(kind, pages)
        if found is None:
            return None
        self.memory.write(found, _NOISE * pages * PAGE_BYTES)
        # No alignment but 8 bytes is promised; where there is room, none other is given.
        found += 8 if size % PAGE_BYTES and size % PAGE_BYTES <= PAGE_BYTES - 8 else 0
        self.pools[found] = Pool(pages, kind)
        return found

    def _guid(self, address: int) -> UUID:
        return UUID(bytes_le=self.memory.read(address, 16))

    def _number(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 8), "little")

    def _store(self, address: int, number: int) -> None:
        self.memory.write(address, number.to_bytes(8, "little"))


INTERFACE_BYTES = 0x80
"""Room for one protocol's interface."""
