"""COPY, which moves private memory, and DBG, which lets a host into the memory of a guest whose owner allows that.

Source: SEV API (AMD 55766), sections 6.18 to 6.20; AMD-ASPFW, sev_mcmd.c, x86_copy.c.
"""

from __future__ import annotations

from typing import NamedTuple

from mh_builder.paging import MIB, PAGE_BYTES
from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.psp.command import Command
from mh_emulator.psp.guest import GuestContext
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.processor import Processor, need_asid
from mh_emulator.psp.status import Status, require
from mh_emulator.psp.system_memory import check_alignment

COPY_WINDOW_BYTES = 64 * MIB


class Move(NamedTuple):
    """From where to where, and how many bytes."""

    source: int
    destination: int
    size: int


def copy(sp: Processor, handle: int, move: Move) -> None:
    """COPY: neither the guest's state nor its policy matters."""
    guest = sp.known(Command.COPY, handle)
    source, destination, size = move
    need_asid(guest)
    require(size > 0 and size % PAGE_BYTES == 0, Status.INVALID_LENGTH)
    require((source | destination) % PAGE_BYTES == 0, Status.INVALID_ADDRESS)
    if sp.memory.plain(source) == sp.memory.plain(destination):
        return
    for start in (source, destination):
        is_in_window = start // COPY_WINDOW_BYTES == (start + size - 1) // COPY_WINDOW_BYTES
        require(is_in_window, Status.INVALID_PARAM)
    data = sp.memory.read_private(guest.asid, source, size)
    sp.memory.write_private(guest.asid, destination, data)


def decrypt(sp: Processor, handle: int, move: Move) -> None:
    """DBG_DECRYPT."""
    guest = _debuggable(sp, Command.DBG_DECRYPT, handle, move)
    sp.memory.write(move.destination, sp.memory.read_private(guest.asid, move.source, move.size))


def encrypt(sp: Processor, handle: int, move: Move) -> None:
    """DBG_ENCRYPT."""
    guest = _debuggable(sp, Command.DBG_ENCRYPT, handle, move)
    sp.memory.write_private(guest.asid, move.destination, sp.memory.read(move.source, move.size), evict=True)


def _debuggable(sp: Processor, command: Command, handle: int, move: Move) -> GuestContext:
    sp.need_platform(command)
    source, destination, size = move
    check_alignment(source, destination)
    require(size % BLOCK_BYTES == 0, Status.INVALID_LENGTH)
    guest = sp.guests.get(handle)
    require(not guest.policy & Policy.NODBG, Status.POLICY_FAILURE)
    need_asid(guest)
    # This fails inside of the published build, with a code outside of the API's table.
    require(size > 0, Status.INVALID_LENGTH)
    return guest
