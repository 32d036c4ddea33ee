"""The state of the secure processor that all commands share."""

from __future__ import annotations

import random

from mh_emulator.dram.dram import Dram
from mh_emulator.psp.asid import Asids
from mh_emulator.psp.build import BUILDS
from mh_emulator.psp.command import GUEST_STATES, PLATFORM_STATES, Command, PlatformState
from mh_emulator.psp.crypto import BadMacError
from mh_emulator.psp.guest import GuestContext, Guests
from mh_emulator.psp.identity import Identity
from mh_emulator.psp.packet import FLAG_COMPRESSED, Packet, unseal
from mh_emulator.psp.status import Refused, Status, require
from mh_emulator.psp.system_memory import SystemMemory
from mh_emulator.psp.vmsa import TrustedRegion


class Processor:
    """What lies in memory that no x86 core reaches, and the way to the memory that they do."""

    def __init__(self, dram: Dram, seed: int) -> None:
        self.part = dram.part
        self.build = BUILDS[dram.part.firmware]
        self.random = random.Random(f"psp {seed}").randbytes  # noqa: S311
        self.identity = Identity(self.random, self.build.version[:2])
        self.memory = SystemMemory(dram)
        self.state = PlatformState.UNINIT
        self.guests = Guests()
        self.asids = Asids(dram)
        self.region_spa = 0
        self.region: TrustedRegion | None = None

    def need_platform(self, command: Command) -> None:
        """Refuse a command in the wrong state of the platform."""
        require(self.state in PLATFORM_STATES[command], Status.INVALID_PLATFORM_STATE)

    def known(self, command: Command, handle: int) -> GuestContext:
        """The guest of a command that looks at its state later, or never."""
        self.need_platform(command)
        return self.guests.get(handle)

    def admitted(self, command: Command, handle: int) -> GuestContext:
        """The guest, in one of the states that the command accepts."""
        guest = self.known(command, handle)
        need_state(command, guest)
        return guest

    def add_guest(self, guest: GuestContext) -> int:
        """Give a guest that passed all checks but these a handle."""
        guest.handle = self.guests.free_handle()
        require(not guest.es or self.region_spa, Status.UNSUPPORTED)
        self.guests.add(guest)
        self.state = PlatformState.WORKING
        return guest.handle

    def let_run(self, guest: GuestContext) -> None:
        """The end of a launch or of a migration: an ASID that the guest already has becomes valid."""
        if guest.asid:
            self.asids.run(guest.asid)

    def keep_vmsa(self, guest: GuestContext, vmsa: bytes) -> bytes:
        """Give a VMSA its checksum; return it with the checksum's address."""
        if self.region is None:
            raise Refused(Status.RESOURCE_LIMIT)
        address, page = self.region.set_up(vmsa)
        guest.vmsas.append(address)
        return page


def need_state(command: Command, guest: GuestContext) -> None:
    """Refuse a command in the wrong state of the guest."""
    require(guest.state in GUEST_STATES[command], Status.INVALID_GUEST_STATE)


def need_asid(guest: GuestContext) -> None:
    """Refuse a guest that is not activated."""
    require(guest.asid, Status.INACTIVE)


def open_packet(guest: GuestContext, context: int, packet: Packet) -> bytes:
    """The plaintext of a packet in the guest's channel."""
    try:
        return unseal(guest.channel, context, packet)
    except BadMacError:
        raise Refused(Status.BAD_MEASUREMENT) from None


def refuse_compressed(packet: Packet) -> None:
    """Refuse what no build supports."""
    require(not packet.flags & FLAG_COMPRESSED, Status.UNSUPPORTED)
