"""Real firmware on the emulated machine, from the reset vector; and its migration by the helper that it has loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.firmware.line import check_line
from mh_builder.firmware.units import Units
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import Part
from mh_emulator.host.machine import Machine
from mh_emulator.owner import POLICY
from mh_emulator.platform import Platform
from mh_emulator.psp.policy import Policy
from mh_emulator.q35 import saved
from mh_emulator.q35.board import Telling
from mh_emulator.q35.launch import Carrier, Powered, expect, power_on, power_on_with_helper, topology
from mh_emulator.q35.moved import Moved, move
from mh_emulator.q35.progress import Milestone, Progress
from mh_emulator.q35.run import GuestStopped, run, run_guest
from mh_emulator.q35.view import HostView
from mh_emulator.q35.whole import is_whole
from mh_emulator.secret import Secret
from mh_emulator.snapshot.shelf import Saved, Shelf, fingerprint
from mh_emulator.uefi.loaded import loaded

_MORE_DRAM = 64 << 20
"""Beyond the guest's RAM: flash, helpers, and what the platform takes."""


@dataclass
class Report:
    """One boot."""

    part: str
    ram_bytes: int
    milestones: list[Milestone]
    helper_equal: bool | None = None
    """Whether the helper's private pages are, byte for byte, what its loader has to leave there; None without one."""
    snapshot: str | None = None
    """Whether it was `saved` in this run, or `restored` from an earlier one; None without one."""
    moved: Moved | None = None
    debug: str = ""
    """What the guest has printed on the debug port, and on the serial port."""
    serial: str = ""
    cpu_seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether the firmware has come to its end, and its migration was good."""
        return self.helper_equal is not False and (self.moved is None or self.moved.good)

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self) | {"good": self.good}


@dataclass(frozen=True)
class Firmware:
    """What is to be booted."""

    part: Part
    units: Units
    ram_bytes: int
    helper: HelperImage | None = None
    """What the code carries."""
    policy: int = POLICY
    """Of the guest; with ES its registers are encrypted."""

    def made_of(self) -> dict[str, str]:
        """What has to be the same for a snapshot of it."""
        ram = f"{self.ram_bytes:#x} bytes"
        return {"part": self.part.name, "RAM": ram, "flash": fingerprint(self.units.code)}


class _Owned(NamedTuple):
    """A guest with a helper in it, to which the owner has given its secret."""

    carrier: Carrier
    powered: Powered
    machine: Machine


class Boot:
    """One boot; `on_milestone` is told of each as it comes.

    With a `shelf` it begins where the snapshot there was made, or makes one behind the loader's line.
    """

    def __init__(
        self, firmware: Firmware, on_milestone: Callable[[Milestone], None], shelf: Shelf | None = None
    ) -> None:
        self._firmware = firmware
        self._shelf = shelf
        self._progress = Progress(on_milestone)
        self._powered: Powered | None = None
        self._line = ""
        self._pauses = False
        """Whether the guest is to stop behind the loader's line."""
        self.report = Report(firmware.part.name, firmware.ram_bytes, self._progress.milestones)

    def run(self) -> Report:
        """Boot to the first HLT with interrupts on. Raises `GuestStopped`, `FirmwareError`, `SnapshotError`."""
        with self._reported():
            helper = self._firmware.helper
            if helper is None or self._firmware.policy & Policy.ES:
                self._run_alone(helper)
            else:
                owned = self._begin(helper)
                self._go_on(owned.powered, owned.machine)
                self.report.helper_equal = owned.carrier.is_whole(owned.machine)
        return self.report

    def migrate(self) -> Report:
        """Boot by way of a migration behind the loader's line.

        Raises `GuestStopped`, `FirmwareError` for what the loader says, `SnapshotError`, and what a migration raises.
        """
        with self._reported():
            if self._firmware.helper is None:
                raise GuestStopped("without a helper nobody migrates it")
            self._migrate(self._begin(self._firmware.helper))
        return self.report

    def _run_alone(self, helper: HelperImage | None) -> None:
        """A guest whose owner has no secret for a helper; one of SEV-ES may carry one."""
        firmware, platform = self._firmware, self._platform(1)
        powered = power_on(platform, firmware.units, firmware.ram_bytes, firmware.policy, self._telling())
        self._launched(powered)
        run(powered.vcpu, powered.board, powered.vcpu.run)
        if helper is not None:
            self._check_line(helper)
            read = partial(_read_private, powered, helper)
            self.report.helper_equal = is_whole(read, helper, loaded(helper, platform.part.c_bit))

    def _begin(self, helper: HelperImage) -> _Owned:
        """A guest whose loader has just said its line."""
        shelf, protection = self._shelf, abi.mh_protection.MH_PROTECTION_SEV
        secret = Secret.fresh(protection) if shelf is None else shelf.secret(protection)
        carrier = Carrier(self._firmware.units.code, helper, secret)
        ram_bytes, telling = self._firmware.ram_bytes, self._telling()
        powered, machine = power_on_with_helper(self._platform(1), carrier, ram_bytes, telling)
        self._launched(powered)
        if shelf is not None and shelf.saved is not None:
            self._restore(shelf.saved, powered, machine)
        else:
            self._pauses = True
            self._go_on(powered, machine)
            self._pauses = False
        self._check_line(helper)
        if shelf is not None and shelf.saved is None:
            state, body = saved.take(machine, powered.board)
            shelf.save(self._firmware.made_of(), secret, state, body)
            self._note_snapshot("saved")
        return _Owned(carrier, powered, machine)

    def _restore(self, found: Saved, powered: Powered, machine: Machine) -> None:
        saved.put(machine, powered.board, found.state(self._firmware.made_of()), found.contents.body)
        for line in filter(_is_loaders, powered.board.debug.lines):
            self._line = line
        self._note_snapshot("restored")

    def _note_snapshot(self, what: str) -> None:
        self.report.snapshot = what
        self._progress.reach(what)

    def _migrate(self, owned: _Owned) -> None:
        carrier, powered, source = owned
        arrived, target = expect(self._platform(2), powered.board, carrier, self._firmware.ram_bytes)
        self.report.helper_equal = carrier.is_whole(source)
        if carrier.helper.hands_over and not source.consent.allowed:
            raise GuestStopped("the loader has said its line and has not allowed the migration")
        self.report.moved = move(source, target)
        arrived.vcpu.set_registers(powered.vcpu.get_registers())
        arrived.vcpu.msrs = dict(powered.vcpu.msrs)
        arrived.board.show(HostView(topology(arrived.memory.size), arrived.memory))
        source.close()
        self._progress.reach("moved")
        self._go_on(arrived, target)

    def _launched(self, powered: Powered) -> None:
        self._powered, self._progress.clock = powered, powered.board.clock
        self._progress.reach("launched")

    @staticmethod
    def _go_on(powered: Powered, machine: Machine) -> None:
        run(powered.vcpu, powered.board, lambda: run_guest(machine))

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except GuestStopped as stopped:
            raise GuestStopped(f"{stopped}; last seen: {self.report.milestones[-1].what}") from None
        finally:
            self._note_console()
        self._progress.reach("idle")
        self.report.cpu_seconds = self._progress.cpu_seconds

    def _check_line(self, helper: HelperImage) -> None:
        if not self._line:
            raise GuestStopped("the firmware is idle, and its loader has said nothing on the debug port")
        check_line(self._line, int(helper.descriptor.home), helper.memory_bytes)

    def _telling(self) -> Telling:
        return Telling(self._on_line, self._progress.reach_use)

    def _platform(self, seed: int) -> Platform:
        return Platform(self._firmware.part, self._firmware.ram_bytes + _MORE_DRAM, seed)

    def _on_line(self, line: str) -> None:
        if _is_loaders(line) and self._powered is not None:
            self._line = line
            self._progress.reach("loader's line")
            if self._pauses:
                self._powered.vcpu.kick()

    def _note_console(self) -> None:
        if self._powered is not None:
            self.report.debug, self.report.serial = self._powered.board.debug.text, self._powered.board.serial.text


def _is_loaders(line: str) -> bool:
    return line.startswith(abi.MH_DEBUG_MARKER)


def _read_private(powered: Powered, helper: HelperImage, offset: int) -> bytes:
    """A page of the helper, which lies in the guest's memory, as the guest sees it."""
    spa = powered.vm.spa(helper.descriptor.home + offset)
    return b"" if spa is None else powered.vm.dram.read_private(powered.vm.asid, spa, PAGE_BYTES)
