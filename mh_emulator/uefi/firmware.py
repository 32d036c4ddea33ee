"""A firmware that has come to the point where it starts one driver: page tables, system table, services.

Every service is a gate in guest memory (`gates.s`); the vCPU leaves there, the service is carried out, and the vCPU
goes on. What the calling convention lets a service destroy (UEFI 2.10, section 2.3.4.2), it destroys. Under SEV-ES the
firmware has a handler of #VC, as OVMF has by then, so a driver need not know of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

from mh_abi import abi
from mh_builder.flat_segments import CS, GDT, SS
from mh_builder.paging import GIB, MIB, PAGE_BYTES, Span, Tables, whole_pages
from mh_emulator.cpu.registers import CR4_LA57, Registers, Table
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.vm import Vm
from mh_emulator.uefi import configuration, gates, layout
from mh_emulator.uefi.driver import load_driver
from mh_emulator.uefi.errors import FirmwareStopped
from mh_emulator.uefi.gates import SERVICES, gate
from mh_emulator.uefi.memory import GuestMemory
from mh_emulator.uefi.pool import MemoryMap
from mh_emulator.uefi.services import INTERFACE_BYTES, SUCCESS, Files, Placed, Services

_ARGUMENTS = {"InstallConfigurationTable": 2, "FreePages": 2, "FreePool": 1, "AllocatePool": 3, "HandleProtocol": 3,
              "AllocatePages": 4, "LocateHandleBuffer": 5, "SetVariable": 5, "ReadSection": 7}  # fmt: skip

_NOISE = 0xDEAD_BEEF_DEAD_BEEF
_RUNTIME_SERVICES = layout.SYSTEM_TABLE - layout.ARENA + 88
_KEPT = ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15")
_STACK = layout.STACK_TOP - 0x100


@dataclass(frozen=True, slots=True)
class Setup:
    """What the firmware is: RAM up to GPA `ram_end`, how it maps memory, what its volumes hold."""

    driver: bytes
    volumes: Sequence[Files]
    ram_end: int
    levels: int = 4
    """Of its page tables."""
    largest_page: int = 2 * MIB
    protects_tables: bool = True
    """Map the page tables read-only, as OVMF does; not with 1 GiB pages, which are larger than they."""
    shared: Sequence[int] = ()
    """Pages that it maps shared, as a careless driver might have left them."""
    svsm_bytes: int | None = None
    """Under SNP, of its SVSM: 0 without one."""

    def placed(self) -> list[Placed]:
        """Where in memory the sections of the volumes lie."""
        place = layout.SECTIONS
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
        data = self._system_tables() + gates.code()
        data = (data + load_driver(self.driver).image).ljust(layout.SECTIONS - layout.ARENA, b"\0")
        for volume in self.volumes:
            for sections in volume.values():
                data += b"".join(section.ljust(-(-len(section) // 16) * 16, b"\0") for section in sections)
        return data.ljust(whole_pages(len(data)), b"\0")

    def _system_tables(self) -> bytes:
        page = bytearray(gate(gates.MISSING).to_bytes(8, "little") * (PAGE_BYTES // 8))
        count, _ = configuration.tables(self.svsm_bytes)
        found = (layout.RUNTIME_SERVICES, layout.BOOT_SERVICES, count, layout.CONFIGURATION)
        struct.pack_into("<4Q", page, _RUNTIME_SERVICES, *found)
        tables = [(layout.BOOT_SERVICES, gates.BOOT_OFFSETS), (layout.RUNTIME_SERVICES, gates.RUNTIME_OFFSETS)]
        tables += [
            (layout.VOLUMES + number * INTERFACE_BYTES, gates.VOLUME_OFFSETS) for number in range(len(self.volumes))
        ]
        for start, offsets in tables:
            for name, offset in offsets.items():
                struct.pack_into("<Q", page, start - layout.ARENA + offset, gate(SERVICES.index(name)))
        return bytes(page)


@dataclass
class Outcome:
    """What the driver did."""

    status: int = -1
    debug: str = ""
    calls: list[str] = field(default_factory=list)
    refused: list[tuple[str, int]] = field(default_factory=list)
    """Services that it used wrongly or in vain, and their status; not those that were to fail."""
    msr_writes: list[tuple[int, int]] = field(default_factory=list)


class Firmware:
    """One firmware of `setup` in `vm`, whose C-bit is `c_mask`, 0 without SEV.

    First its `contents` have to be put into memory and the vCPU has to begin at `start`, then `boot` runs the driver.
    `failures` maps (service, how often it was called before) to the status with which it then fails.
    """

    def __init__(self, setup: Setup, vm: Vm, c_mask: int) -> None:
        self.setup = setup
        self.memory = GuestMemory(vm)
        self.map = MemoryMap(layout.FREE_MEMORY, setup.ram_end)
        self.services = Services(self.memory, self.map, setup.placed(), layout.VOLUMES)
        self.failures: Mapping[tuple[str, int], int] = {}
        self._entry = layout.DRIVER + load_driver(setup.driver).entry
        self._start = gates.symbol("start_es" if vm.has_protected_state else "start")
        self._c_mask = c_mask

    @property
    def cr3(self) -> int:
        """The root table, with the C-bit."""
        return layout.TABLES | self._c_mask

    @property
    def start(self) -> Registers:
        """How the vCPU begins."""
        state = Registers.long_mode(self._start, _STACK, self.cr3)
        return state.with_changes(
            **dict.fromkeys(_KEPT, _NOISE),
            rax=self._entry,
            cs=CS,
            ss=SS,
            gdtr=Table(layout.DESCRIPTORS, len(GDT) - 1),
            idtr=Table(gates.IDT, gates.IDT_LIMIT),
            cr4=state.cr4 | (CR4_LA57 if self.setup.levels == 5 else 0),
        )

    def contents(self) -> list[tuple[int, bytes]]:
        """(GPA, bytes) of all that is there before the driver starts; first what is the firmware's own."""
        return [
            (layout.ARENA, self.setup.flash()),
            (layout.CALL, gates.idle() + gates.descriptors()),
            (layout.CONFIGURATION, configuration.tables(self.setup.svsm_bytes)[1]),
            (layout.STACK_TOP - layout.STACK_BYTES, bytes(layout.STACK_BYTES)),
            (layout.TABLES, self._page_tables()),
        ]

    def boot(self, run: Callable[[], Exit]) -> Outcome:
        """Let the driver run, which begins at `start`, and serve it until it returns; `run` is KVM_RUN of its vCPU."""
        self.memory.write(layout.CALL, gates.idle())
        outcome = Outcome()
        while (after := self._serve(run(), outcome)) is None:
            pass
        if after["rsp"] != _STACK or any(after[name] != _NOISE for name in _KEPT):
            raise FirmwareStopped(f"the driver returned with other registers than it must keep: {after}")
        outcome.status = after["rax"]
        return outcome

    def _serve(self, exit_: Exit, outcome: Outcome) -> Mapping[str, int] | None:
        """Do what the guest left for; return the registers with which the driver has returned, if that is it."""
        if exit_.reason is Reason.IO and exit_.is_write and (exit_.port, exit_.size) == (abi.MH_DEBUG_PORT, 1):
            outcome.debug += chr(exit_.value)
            return None
        if exit_.reason is Reason.MSR and exit_.is_write:
            outcome.msr_writes.append((exit_.msr, exit_.value))
            return None
        call = gates.read_call(self.memory.read(layout.CALL, PAGE_BYTES))
        if exit_.reason is not Reason.HLT or call is None:
            raise FirmwareStopped(f"the driver left with {exit_}")
        if call.number == gates.RETURNED:
            return call.registers
        if not 0 <= call.number < gates.MISSING:
            raise FirmwareStopped("the driver called a service that is not here")
        status = self._call(SERVICES[call.number], call.registers, outcome)
        self.memory.write(layout.CALL, call.returning(status, _NOISE).dumps())
        return None

    def _call(self, name: str, registers: Mapping[str, int], outcome: Outcome) -> int:
        """Carry a service out; return its status."""
        stack = registers["rsp"]
        if stack % 16 != 8:
            raise FirmwareStopped(f"{name}: stack {stack:#x} is not aligned")
        stacked = struct.unpack("<3Q", self.memory.read(stack + 40, 24))
        arguments = (*(registers[which] for which in ("rcx", "rdx", "r8", "r9")), *stacked)[: _ARGUMENTS[name]]
        status = self.failures.get((name, outcome.calls.count(name)), SUCCESS)
        outcome.calls.append(name)
        if status == SUCCESS:
            status = self.services.by_name()[name](*arguments)
            outcome.refused += [(name, status)] if status != SUCCESS else []
        self.memory.write(stack + 8, _NOISE.to_bytes(8, "little") * 4)
        return status

    def _page_tables(self) -> bytes:
        """RAM 1:1, all rights, private; up to 1 GiB where pages are that large. Then the GHCB."""
        tables = Tables(0, self.setup.levels, self.setup.largest_page)
        end = -(-self.setup.ram_end // self.setup.largest_page) * self.setup.largest_page
        cuts = {0, end, *(edge for page in self.setup.shared for edge in (page, page + PAGE_BYTES))}
        if self.setup.protects_tables and self.setup.largest_page < GIB:
            cuts |= {layout.TABLES, layout.TABLES + layout.TABLES_BYTES}
        for start, stop in pairwise(sorted(cuts)):
            writable = start != layout.TABLES
            span = Span(
                start, start, stop - start, writable=writable, executable=True, private=start not in self.setup.shared
            )
            tables.map(span)
        tables.map(Span(layout.GHCB_VIEW, layout.GHCB, PAGE_BYTES, writable=True, executable=False, private=False))
        data = tables.dumps(layout.TABLES, self._c_mask)
        if len(data) > layout.TABLES_BYTES:
            raise AssertionError(f"page tables of {len(data):#x} bytes in {layout.TABLES_BYTES:#x}")
        return data
