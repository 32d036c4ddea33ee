"""All devices of one guest, by port and by guest-physical address. Where none is, all ones are read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mh_emulator.host.topology import Block, Topology
from mh_emulator.q35 import cmos, debugcon, fw_cfg, i8042, lapic, pci, pm_timer, uart
from mh_emulator.q35.clock import TSC_HZ, Clock
from mh_emulator.q35.console import Console, ConsoleState
from mh_emulator.q35.flash import MemoryDevice
from mh_emulator.q35.fw_cfg import FwCfg, Offer, RawMemory
from mh_emulator.q35.interrupts import Interrupts, Silent
from mh_emulator.q35.port import PortDevice, ones

_E820 = struct.Struct("<QQI")
_E820_RAM = 1
_SYSTEM_STATES = bytes([0x80, 0, 0, 0x81, 0x80, 0x80])
"""S3 and S4 are there, as QEMU has it without options (hw/acpi/core.c, hw/isa/lpc_ich9.c)."""


@dataclass(frozen=True)
class Telling:
    """Who is told of a line on the debug port, of the first use of a device, and of a line on the serial port."""

    line: Callable[[str], None]
    use: Callable[[str], None]
    serial: Callable[[str], None] = lambda _line: None


class BoardState(NamedTuple):
    """What all devices keep, but flash, which a plain guest has not: its clock in nanoseconds, and who was used."""

    now: int
    accesses: int
    used: tuple[str, ...]
    debug: ConsoleState
    serial: ConsoleState
    apic: lapic.LocalApicState
    pci: pci.PciState
    fw_cfg: fw_cfg.FwCfgState
    cmos: cmos.CmosState
    pm_timer: dict[int, int]
    uart: uart.UartState


class Board:
    """Devices of a guest whose RAM is laid out as `topology`, in which the host sees `memory`.

    `flash` holds the variables; what is read there comes from memory without it.
    """

    def __init__(
        self, topology: Topology, memory: RawMemory, flash: MemoryDevice, telling: Telling, clock: Clock
    ) -> None:
        self.clock = clock
        self.debug, self.serial = Console(telling.line), Console(telling.serial)
        self.accesses = 0
        self._on_use = telling.use
        self._flash = flash
        self._used: set[str] = set()
        self.apic = lapic.LocalApic(self.clock)
        self.interrupts: Interrupts = Silent()
        self._pci = pci.Pci()
        self._fw_cfg = FwCfg(memory, topology.ram_bytes)
        self.offer = self._fw_cfg.offer
        self.offer(Offer({"etc/e820": _e820(topology.blocks), "etc/system-states": _SYSTEM_STATES}, {}))
        self._ports: dict[int, tuple[str, PortDevice]] = {}
        self._add("debug port", debugcon.PORTS, debugcon.DebugPort(self.debug))
        self._cmos = cmos.Cmos(topology.below, topology.above)
        self._pm_timer, self._uart = pm_timer.PmTimer(self.clock), uart.Uart(uart.COM1, self.serial)
        self._add("CMOS", cmos.PORTS, self._cmos)
        self._add("PCI", pci.PORTS, self._pci)
        self._add("fw_cfg", fw_cfg.PORTS, self._fw_cfg)
        self._add("PM timer", pm_timer.PORTS, self._pm_timer)
        self._add("keyboard controller", i8042.PORTS, i8042.KeyboardController())
        self._add("serial port", uart.COM1, self._uart)

    @property
    def state(self) -> BoardState:
        """That of its devices."""
        return BoardState(
            self.clock.now, self.accesses, tuple(sorted(self._used)), self.debug.state, self.serial.state,
            self.apic.state, self._pci.state, self._fw_cfg.state, self._cmos.state, self._pm_timer.state,
            self._uart.state,
        )  # fmt: skip

    def restore(self, state: BoardState) -> None:
        """Have all devices be as they were; nobody is told. `ValueError` for what a device cannot be in."""
        self.clock.now, self.accesses, self._used = state.now, state.accesses, set(state.used)
        self.debug.restore(state.debug)
        self.serial.restore(state.serial)
        self.apic.restore(state.apic)
        self._pci.restore(state.pci)
        self._fw_cfg.restore(state.fw_cfg)
        self._cmos.restore(state.cmos)
        self._pm_timer.restore(state.pm_timer)
        self._uart.restore(state.uart)

    def show(self, memory: RawMemory) -> None:
        """From here on the host sees the guest there: it has moved."""
        self._fw_cfg.memory = memory

    def read_port(self, port: int, size: int) -> int:
        """IN."""
        self._look()
        if port not in self._ports:
            return ones(size)
        name, device = self._ports[port]
        self._use(name)
        return device.read(port, size)

    def write_port(self, port: int, size: int, value: int) -> None:
        """OUT."""
        self._look()
        if port in self._ports:
            name, device = self._ports[port]
            self._use(name)
            device.write(port, size, value)

    def read_memory(self, gpa: int, size: int) -> int:
        """A load."""
        self._look()
        if gpa in lapic.GPAS:
            self._use("local APIC")
            return self.apic.read(gpa) & ones(size)
        if gpa in self._pci.ecam:
            self._use("ECAM")
            return self._pci.read_ecam(gpa - self._pci.ecam.start, size)
        return self._flash.read(gpa, size) if gpa in self._flash.gpas else ones(size)

    def write_memory(self, gpa: int, size: int, value: int) -> None:
        """A store."""
        self._look()
        if gpa in lapic.GPAS:
            self._use("local APIC")
            self.apic.write(gpa, value)
        elif gpa in self._pci.ecam:
            self._pci.write_ecam(gpa - self._pci.ecam.start, size, value)
        elif gpa in self._flash.gpas:
            self._use("flash")
            self._flash.write(gpa, size, value)

    def count(self) -> int:
        """RDTSC."""
        self._look()
        return self.clock.ticks(TSC_HZ)

    def vector(self) -> int | None:
        """Which interrupt waits, if one does."""
        return self.interrupts.vector()

    def acknowledge(self) -> None:
        """The vCPU has taken it."""
        self.interrupts.acknowledge()

    def sleep(self) -> bool:
        """HLT: until an interrupt waits; False where the guest is idle."""
        return self.interrupts.sleep()

    def _look(self) -> None:
        self.accesses += 1
        self.clock.look()

    def _use(self, name: str) -> None:
        if name not in self._used:
            self._used.add(name)
            self._on_use(name)

    def _add(self, name: str, ports: Iterable[int], device: PortDevice) -> None:
        self._ports.update(dict.fromkeys(ports, (name, device)))


def _e820(blocks: Iterable[Block]) -> bytes:
    """The map of RAM, as QEMU gives it to firmware."""
    return b"".join(_E820.pack(block.gpa, block.size, _E820_RAM) for block in blocks)
