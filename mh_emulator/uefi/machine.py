"""One side of a migration whose helper comes out of its firmware: no host has put it there."""

from __future__ import annotations

from collections.abc import Iterable

from mh_abi.image import HelperImage
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.process import UserMemory
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement
from mh_emulator.owner import GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret
from mh_emulator.uefi.firmware import Firmware, FirmwareStopped, Outcome, Setup
from mh_emulator.uefi.services import SUCCESS, Files


class FirmwareMachine(Machine):
    """As `Machine`, for an image with a home: `driver` loads it from `volume` before the guest's program starts."""

    def __init__(
        self, platform: Platform, placement: Placement, helper: HelperImage, driver: bytes, volume: Files
    ) -> None:
        super().__init__(platform, placement, helper)
        setup = Setup(driver, [volume], placement.topology.below)
        self.firmware = Firmware(setup, self.vm, 1 << platform.part.c_bit)
        self.outcome = Outcome()

    def launched_helper(self) -> list[tuple[UserMemory, int, bytes]]:
        """Nothing: the helper is in the firmware."""
        return []

    def launch(
        self,
        owner: GuestOwner,
        contents: Iterable[tuple[int, bytes]],
        secret: Secret,
        guest: Registers | None = None,
    ) -> None:
        """Launch with the firmware before `contents`, and let it load the helper: the owner knows the firmware.

        Raises `FirmwareStopped` where it does not, and `ValueError` under SEV-ES: this firmware handles no #VC.
        """
        if self.es:
            raise ValueError("this firmware runs in plain SEV only")
        super().launch(owner, [*self.firmware.contents(), *contents], secret)
        self.outcome = self.firmware.boot(self.vcpu, self.run_guest)
        if self.outcome.status != SUCCESS:
            raise FirmwareStopped(f"the loader failed: {self.outcome.debug.strip()}")
        if guest is not None:
            self.vcpu.set_registers(guest)
