"""The launch of a guest after its start: contents, measurement, secret; and the report about it.

Source: SEV API (AMD 55766), sections 6.3 to 6.8; AMD-ASPFW, sev_mcmd.c, sev_guest.c (sev_guest_measure).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes

from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.psp.build import CONTEXT_SECRET
from mh_emulator.psp.certificate import Algorithm, Usage
from mh_emulator.psp.command import NEXT_STATE, Command
from mh_emulator.psp.crypto import MAC_BYTES, NONCE_BYTES
from mh_emulator.psp.ecc import ecdsa_sign
from mh_emulator.psp.guest import GuestContext
from mh_emulator.psp.packet import HEADER_BYTES, Packet, measure
from mh_emulator.psp.processor import Processor, need_asid, need_state, open_packet, refuse_compressed
from mh_emulator.psp.session import Channel
from mh_emulator.psp.status import Refused, Status, require
from mh_emulator.psp.system_memory import check_alignment
from mh_emulator.psp.vmsa import VMSA_BYTES

MEASUREMENT_BYTES = MAC_BYTES + NONCE_BYTES

_REPORT = struct.Struct("<16s32sIII4x144s")
REPORT_BYTES = _REPORT.size
assert REPORT_BYTES == 0xD0  # noqa: S101
_SIGNED_BYTES = 52
"""Bytes of the report that its signature covers: those before SIG_USAGE."""


class Measurement(NamedTuple):
    """What LAUNCH_MEASURE returns."""

    mac: bytes
    nonce: bytes


def update_data(sp: Processor, handle: int, spa: int, size: int) -> None:
    """LAUNCH_UPDATE_DATA."""
    guest = sp.admitted(Command.LAUNCH_UPDATE_DATA, handle)
    data = _contents(sp, guest, spa, size)
    guest.measuring.update(data)
    sp.memory.write_private(guest.asid, spa, data, evict=True)


def update_pages(sp: Processor, handle: int, spas: Sequence[int]) -> None:
    """LAUNCH_UPDATE_DATA for each of these pages in turn; where one would be refused, all are."""
    guest = sp.admitted(Command.LAUNCH_UPDATE_DATA, handle)
    need_asid(guest)
    check_alignment(*spas)
    guest.measuring.update(sp.memory.encrypt_pages(guest.asid, spas))


def update_vmsa(sp: Processor, handle: int, spa: int, size: int) -> None:
    """LAUNCH_UPDATE_VMSA: the length comes before everything else."""
    require(size == VMSA_BYTES, Status.INVALID_LENGTH)
    guest = sp.admitted(Command.LAUNCH_UPDATE_VMSA, handle)
    require(guest.es, Status.UNSUPPORTED)
    data = _contents(sp, guest, spa, size)
    page = sp.keep_vmsa(guest, data)
    guest.measuring.update(data)
    sp.memory.write_private(guest.asid, spa, page, evict=True)


def launch_measure(sp: Processor, handle: int, size: int) -> Measurement:
    """LAUNCH_MEASURE."""
    guest = sp.admitted(Command.LAUNCH_MEASURE, handle)
    if size < MEASUREMENT_BYTES:
        raise Refused(Status.INVALID_LENGTH, MEASUREMENT_BYTES)
    nonce = sp.random(NONCE_BYTES)
    guest.launch_digest = guest.measuring.digest()
    mac = measure(guest.channel.tik, sp.build.version, guest.policy, guest.launch_digest, nonce)
    guest.channel.measurement = mac
    guest.state = NEXT_STATE[Command.LAUNCH_MEASURE]
    return Measurement(mac, nonce)


def secret(sp: Processor, handle: int, packet: Packet, spa: int, size: int) -> None:
    """LAUNCH_SECRET."""
    guest = sp.known(Command.LAUNCH_SECRET, handle)
    check_alignment(spa)
    is_length_good = 0 < size <= sp.build.scratch_bytes and size % BLOCK_BYTES == 0 and size == len(packet.data)
    require(len(packet.header) == HEADER_BYTES and is_length_good, Status.INVALID_LENGTH)
    need_state(Command.LAUNCH_SECRET, guest)
    need_asid(guest)
    sp.memory.check(spa, size)
    plain = open_packet(guest, CONTEXT_SECRET, packet)
    refuse_compressed(packet)
    sp.memory.write_private(guest.asid, spa, plain, evict=True)


def finish(sp: Processor, handle: int) -> None:
    """LAUNCH_FINISH."""
    guest = sp.admitted(Command.LAUNCH_FINISH, handle)
    sp.let_run(guest)
    guest.channel = Channel()
    guest.state = NEXT_STATE[Command.LAUNCH_FINISH]


def attestation(sp: Processor, handle: int, nonce: bytes, size: int) -> bytes:
    """ATTESTATION: the digest and the policy, signed with the PEK."""
    guest = sp.admitted(Command.ATTESTATION, handle)
    if size < REPORT_BYTES:
        raise Refused(Status.INVALID_LENGTH, REPORT_BYTES)
    report = _REPORT.pack(nonce, guest.launch_digest, guest.policy, Usage.PEK, Algorithm.ECDSA_SHA256, b"")
    signature = ecdsa_sign(sp.identity.pek, report[:_SIGNED_BYTES], hashes.SHA256())
    return report[: -len(signature)] + signature


def _contents(sp: Processor, guest: GuestContext, spa: int, size: int) -> bytes:
    need_asid(guest)
    check_alignment(spa)
    require(size > 0 and size % BLOCK_BYTES == 0, Status.INVALID_LENGTH)
    return sp.memory.read(spa, size, evict=True)
