"""The launch of a guest whose firmware loads the helper: no host has put it there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mh_emulator.cpu.registers import Registers
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.site import Site
from mh_emulator.owner import GuestOwner
from mh_emulator.secret import Secret
from mh_emulator.uefi.errors import FirmwareStopped
from mh_emulator.uefi.firmware import Firmware, Outcome, Setup
from mh_emulator.uefi.services import SUCCESS, Files


@dataclass(frozen=True)
class Boot:
    """For an image with a home: `driver` loads it from `volume` before the guest's program starts."""

    driver: bytes
    volume: Files
    levels: int = 4
    """Of the firmware's page tables."""

    def launch(
        self,
        site: Site,
        owner: GuestOwner,
        contents: Iterable[tuple[int, bytes]],
        secret: Secret,
        registers: Registers | None = None,
    ) -> Machine:
        """Launch with the firmware before `contents`, and let it load the helper; see `booted`."""
        return self.booted(site, owner, contents, secret, registers)[0]

    def booted(
        self,
        site: Site,
        owner: GuestOwner,
        contents: Iterable[tuple[int, bytes]],
        secret: Secret,
        registers: Registers | None = None,
    ) -> tuple[Machine, Outcome]:
        """The guest, and what its driver said. The owner knows the firmware.

        `registers` are those of the program that the firmware starts in the end. Raises `FirmwareStopped` where it does
        not load the helper, and `ValueError` for a program under SEV-ES: nobody gives a vCPU registers there.
        """
        if site.es and registers is not None:
            raise ValueError("under SEV-ES this firmware starts no program")
        setup = Setup(self.driver, [self.volume], site.placement.topology.below, self.levels)
        firmware = Firmware(setup, site.vm, 1 << site.platform.part.c_bit)
        machine = launch(replace(site, loaded=()), owner, [*firmware.contents(), *contents], secret, firmware.start)
        outcome = firmware.boot(machine.run_guest)
        if outcome.status != SUCCESS:
            raise FirmwareStopped(f"the loader failed: {outcome.debug.strip()}")
        if registers is not None:
            machine.vcpu.set_registers(registers)
        return machine, outcome
