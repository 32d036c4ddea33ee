"""A kernel that firmware takes from fw_cfg and starts; the loader in the firmware brings the helper."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mh_emulator.host.machine import Machine
from mh_emulator.linux.kernel import Kernel
from mh_emulator.linux.launch import Running, equip, made_of_kernel, set_up
from mh_emulator.linux.offer import offer
from mh_emulator.platform import Platform
from mh_emulator.q35 import launch, msrs
from mh_emulator.q35.board import Telling
from mh_emulator.q35.launch import Carrier
from mh_emulator.secret import Secret
from mh_emulator.snapshot.shelf import fingerprint


@dataclass(frozen=True)
class ByFirmware:
    """A `Way` in which the flash alone is measured: the owner gives the secret to that flash, and to no other."""

    carrier: Carrier
    ram_bytes: int
    kernel: Kernel
    initrd: bytes
    command_line: str

    @property
    def secret(self) -> Secret:
        """The owner's, which the flash is given."""
        return self.carrier.secret

    def made_of(self) -> dict[str, str]:
        """Kernel, initrd, command line, and flash with the helper in it."""
        found = made_of_kernel(self.kernel, self.initrd, self.command_line)
        return found | {"flash": fingerprint(self.carrier.flash)}

    def power_on(self, platform: Platform, telling: Telling) -> Running:
        """From the reset vector."""
        powered, machine = launch.power_on_with_helper(platform, self.carrier, self.ram_bytes, telling)
        powered.board.offer(offer(self.kernel, self.initrd, self.command_line))
        powered.vcpu.msrs |= msrs.OF_LINUX
        return equip(machine, powered.board)

    def expect(self, platform: Platform, source: Running) -> Running:
        """With the helper, and with the flash."""
        _, arrived = launch.expect(platform, source.board, self.carrier, self.ram_bytes)
        set_up(arrived, source.board)
        return replace(source, machine=arrived)

    def is_whole(self, machine: Machine) -> bool:
        """As the loader has to leave them."""
        return self.carrier.is_whole(machine)
