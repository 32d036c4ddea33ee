"""A firmware that has come to the point where it starts one driver: page tables, system table, services.

Every service is a gate in guest memory, HLT and RET; the vCPU leaves there, the service is carried out, and the vCPU
goes on. What the calling convention lets a service destroy (UEFI 2.10, section 2.3.4.2), it destroys.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from uuid import UUID

from mh_abi import abi
from mh_builder.paging import GIB, MIB, PAGE_BYTES, Span, Tables
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.process import pieces
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.vcpu import Vcpu
from mh_emulator.kvm.vm import Vm
from mh_emulator.uefi.driver import load_driver
from mh_emulator.uefi.pool import MemoryMap
from mh_emulator.uefi.services import INTERFACE_BYTES, SUCCESS, Files, Placed, Services

ARENA = 16 * MIB
"""GPA of what the firmware itself uses; what lies below is not its own."""
FREE_MEMORY = 32 * MIB

_SYSTEM_TABLE, _BOOT_SERVICES, _RUNTIME_SERVICES, _VOLUMES = (ARENA + offset for offset in (0, 0x200, 0x400, 0x800))
_GATES = ARENA + PAGE_BYTES
_DRIVER = ARENA + 2 * PAGE_BYTES
_SECTIONS = ARENA + 0x10000
_STACK_TOP = ARENA + 0x180000
_TABLES = ARENA + 2 * MIB
TABLES_BYTES = 2 * MIB
"""The page tables have a region of their own, which can be mapped read-only."""

_GATE = b"\xf4\xc3".ljust(16, b"\xcc")
_GATE_BYTES = len(_GATE)
_IMAGE_HANDLE = 0x1234

_BOOT_OFFSETS = {
    "AllocatePages": 40, "FreePages": 48, "AllocatePool": 64, "FreePool": 72, "HandleProtocol": 152,
    "InstallConfigurationTable": 192, "LocateHandleBuffer": 312,
}  # fmt: skip
_RUNTIME_OFFSETS = {"SetVariable": 88}
_VOLUME_OFFSETS = {"ReadSection": 24}
_SERVICES = (*_BOOT_OFFSETS, *_RUNTIME_OFFSETS, *_VOLUME_OFFSETS)
_ARGUMENTS = {"InstallConfigurationTable": 2, "FreePages": 2, "FreePool": 1, "AllocatePool": 3, "HandleProtocol": 3,
              "AllocatePages": 4, "LocateHandleBuffer": 5, "SetVariable": 5, "ReadSection": 7}  # fmt: skip

_NOISE = 0xDEAD_BEEF_DEAD_BEEF


class FirmwareStopped(Exception):
    """The driver did what firmware cannot go on after."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the firmware is: RAM up to GPA `ram_end`, how it maps memory, what its volumes hold."""

    driver: bytes
    volumes: Sequence[Files]
    ram_end: int
    largest_page: int = 2 * MIB
    protects_tables: bool = True
    """Map the page tables read-only, as OVMF does; not with 1 GiB pages, which are larger than they."""
    shared: Sequence[int] = ()
    """Pages that it maps shared, as a careless driver might have left them."""

    def placed(self) -> list[Placed]:
        """Where in memory the sections of the volumes lie."""
        place = _SECTIONS
        volumes: list[Placed] = []
        for volume in self.volumes:
            found: dict[UUID, list[tuple[int, int]]] = {}
            for name, sections in volume.items():
                for section in sections:
                    found.setdefault(name, []).append((place, len(section)))
                    place += -(-len(section) // 16) * 16
            volumes.append(found)
        return volumes

    def flash(self) -> bytes:
        """All of the firmware that does not depend on the machine: tables of services, gates, driver, volumes."""
        gates = _GATE * (len(_SERVICES) + 2)
        data = self._system_tables() + gates.ljust(PAGE_BYTES, b"\xcc")
        data = (data + load_driver(self.driver).image).ljust(_SECTIONS - ARENA, b"\0")
        for volume in self.volumes:
            for sections in volume.values():
                data += b"".join(section.ljust(-(-len(section) // 16) * 16, b"\0") for section in sections)
        return data.ljust(-(-len(data) // PAGE_BYTES) * PAGE_BYTES, b"\0")

    def _system_tables(self) -> bytes:
        page = bytearray(_gate(len(_SERVICES) + 1).to_bytes(8, "little") * (PAGE_BYTES // 8))
        struct.pack_into("<QQ", page, _SYSTEM_TABLE - ARENA + 88, _RUNTIME_SERVICES, _BOOT_SERVICES)
        volumes = [(_VOLUMES + number * INTERFACE_BYTES, _VOLUME_OFFSETS) for number in range(len(self.volumes))]
        for start, offsets in ((_BOOT_SERVICES, _BOOT_OFFSETS), (_RUNTIME_SERVICES, _RUNTIME_OFFSETS), *volumes):
            for name, offset in offsets.items():
                struct.pack_into("<Q", page, start - ARENA + offset, _gate(_SERVICES.index(name)))
        return bytes(page)


@dataclass
class Outcome:
    """What the driver did."""

    status: int = -1
    debug: str = ""
    calls: list[str] = field(default_factory=list)
    msr_writes: list[tuple[int, int]] = field(default_factory=list)


class GuestMemory:
    """RAM of `vm` by GPA, seen as its guest sees it through a private mapping."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes."""
        dram = self._vm.dram
        parts = [(self._spa(start), length) for start, length in pieces(gpa, size)]
        if self._vm.encrypted:
            return b"".join(dram.read_private(self._vm.asid, spa, length) for spa, length in parts)
        return b"".join(dram.read_raw(spa, length) for spa, length in parts)

    def write(self, gpa: int, data: bytes) -> None:
        """Store `data`."""
        for start, length in pieces(gpa, len(data)):
            part = data[start - gpa : start - gpa + length]
            if self._vm.encrypted:
                self._vm.dram.write_private(self._vm.asid, self._spa(start), part)
            else:
                self._vm.dram.write_raw(self._spa(start), part)

    def _spa(self, gpa: int) -> int:
        spa = self._vm.spa(gpa)
        if spa is None:
            raise FirmwareStopped(f"no RAM at {gpa:#x}")
        return spa


class Firmware:
    """One firmware of `setup` in `vm`, whose C-bit is `c_mask`, 0 without SEV.

    First its `contents` have to be put into memory, then `boot` runs the driver.
    `failures` maps (service, how often it was called before) to the status with which it then fails.
    """

    def __init__(self, setup: Setup, vm: Vm, c_mask: int) -> None:
        self.setup = setup
        self.memory = GuestMemory(vm)
        self.map = MemoryMap(FREE_MEMORY, setup.ram_end)
        self.services = Services(self.memory, self.map, setup.placed(), _VOLUMES)
        self.failures: Mapping[tuple[str, int], int] = {}
        self._entry = _DRIVER + load_driver(setup.driver).entry
        self._c_mask = c_mask

    @property
    def cr3(self) -> int:
        """The root table, with the C-bit."""
        return _TABLES | self._c_mask

    def contents(self) -> list[tuple[int, bytes]]:
        """(GPA, bytes) of all that is there before the driver starts; first what is the firmware's own."""
        return [
            (ARENA, self.setup.flash()),
            (_STACK_TOP - 8 * PAGE_BYTES, bytes(8 * PAGE_BYTES)),
            (_TABLES, self._page_tables()),
        ]

    def boot(self, vcpu: Vcpu, run: Callable[[], Exit] | None = None) -> Outcome:
        """Start the driver and serve it until it returns; `run` is KVM_RUN as a watcher of the vCPU does it."""
        stack = _STACK_TOP - 0x108
        self.memory.write(stack, _gate(len(_SERVICES)).to_bytes(8, "little"))
        state = Registers.long_mode(self._entry, stack, self.cr3)
        vcpu.set_registers(replace(state, rcx=_IMAGE_HANDLE, rdx=_SYSTEM_TABLE, rbx=_NOISE, rsi=_NOISE, r15=_NOISE))
        outcome = Outcome()
        while self._serve((run or vcpu.run)(), vcpu, outcome):
            pass
        after = vcpu.get_registers()
        if (after.rsp, after.rbx, after.rsi, after.r15) != (stack + 8, _NOISE, _NOISE, _NOISE):
            raise FirmwareStopped(f"the driver returned with other registers than it must keep: {after}")
        outcome.status = after.rax
        return outcome

    def _serve(self, exit_: Exit, vcpu: Vcpu, outcome: Outcome) -> bool:
        """Do what the guest left for; return whether it goes on."""
        if exit_.reason is Reason.IO and exit_.is_write and (exit_.port, exit_.size) == (abi.MH_DEBUG_PORT, 1):
            outcome.debug += chr(exit_.value)
            return True
        if exit_.reason is Reason.MSR and exit_.is_write:
            outcome.msr_writes.append((exit_.msr, exit_.value))
            return True
        registers = vcpu.get_registers()
        if exit_.reason is not Reason.HLT or not _GATES < registers.rip < _GATES + PAGE_BYTES:
            raise FirmwareStopped(f"the driver left with {exit_} at {registers.rip:#x}")
        number = (registers.rip - _GATES) // _GATE_BYTES
        if number == len(_SERVICES):
            return False
        if number > len(_SERVICES):
            raise FirmwareStopped("the driver called a service that is not here")
        vcpu.set_registers(self._call(_SERVICES[number], registers, outcome))
        return True

    def _call(self, name: str, registers: Registers, outcome: Outcome) -> Registers:
        if registers.rsp % 16 != 8:
            raise FirmwareStopped(f"{name}: stack {registers.rsp:#x} is not aligned")
        stacked = struct.unpack("<3Q", self.memory.read(registers.rsp + 40, 24))
        arguments = (registers.rcx, registers.rdx, registers.r8, registers.r9, *stacked)[: _ARGUMENTS[name]]
        status = self.failures.get((name, outcome.calls.count(name)), SUCCESS)
        outcome.calls.append(name)
        if status == SUCCESS:
            status = self.services.by_name()[name](*arguments)
        self.memory.write(registers.rsp + 8, _NOISE.to_bytes(8, "little") * 4)
        noise = dict.fromkeys(("rcx", "rdx", "r8", "r9", "r10", "r11"), _NOISE)
        return replace(registers, rax=status, xmm=(_NOISE,) * 6 + registers.xmm[6:], **noise)  # type: ignore[arg-type]

    def _page_tables(self) -> bytes:
        """RAM 1:1, all rights, private; up to 1 GiB where pages are that large."""
        tables = Tables(0, largest_page=self.setup.largest_page)
        end = -(-self.setup.ram_end // self.setup.largest_page) * self.setup.largest_page
        cuts = {0, end, *(edge for page in self.setup.shared for edge in (page, page + PAGE_BYTES))}
        if self.setup.protects_tables and self.setup.largest_page < GIB:
            cuts |= {_TABLES, _TABLES + TABLES_BYTES}
        edges = sorted(cuts)
        for start, stop in pairwise(edges):
            writable = start != _TABLES
            span = Span(
                start, start, stop - start, writable=writable, executable=True, private=start not in self.setup.shared
            )
            tables.map(span)
        data = tables.dumps(_TABLES, self._c_mask)
        if len(data) > TABLES_BYTES:
            raise AssertionError(f"page tables of {len(data):#x} bytes in {TABLES_BYTES:#x}")
        return data


def _gate(number: int) -> int:
    return _GATES + number * _GATE_BYTES
