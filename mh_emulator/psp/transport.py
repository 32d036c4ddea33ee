"""Guests that leave and arrive: SEND and RECEIVE.

Source: SEV API (AMD 55766), sections 6.8 to 6.14; AMD-ASPFW, sev_mcmd.c.
"""

from __future__ import annotations

from typing import NamedTuple

from mh_emulator.dram.dram import BLOCK_BYTES
from mh_emulator.psp.build import CONTEXT_DATA
from mh_emulator.psp.certificate import CERTIFICATE_BYTES, Algorithm, Certificate, Usage
from mh_emulator.psp.command import NEXT_STATE, Command
from mh_emulator.psp.crypto import IV_BYTES, KEY_BYTES, NONCE_BYTES, shared_secret
from mh_emulator.psp.guest import GuestContext
from mh_emulator.psp.identity import PlatformCertificates, validate_domain, validate_platform
from mh_emulator.psp.packet import HEADER_BYTES, Packet, seal
from mh_emulator.psp.policy import Policy, policy_version
from mh_emulator.psp.processor import Processor, need_asid, need_state, open_packet, refuse_compressed
from mh_emulator.psp.session import SESSION_BYTES, Channel, wrap_session
from mh_emulator.psp.status import Refused, Status, require
from mh_emulator.psp.system_memory import check_alignment
from mh_emulator.psp.vmsa import VMSA_BYTES, BadVmsaError


class Receiver(NamedTuple):
    """Who SEND_START sends to: its certificates, and AMD's (ASK, ARK)."""

    platform: PlatformCertificates
    amd: bytes


class Departure(NamedTuple):
    """What SEND_START returns; with the sender's PDH certificate the session opens RECEIVE_START."""

    session: bytes
    policy: int


class Outgoing(NamedTuple):
    """What SEND_UPDATE is to wrap, and how much room there is for header and data."""

    spa: int
    size: int
    header_bytes: int
    room: int


class Incoming(NamedTuple):
    """A packet for RECEIVE_UPDATE, and where its `size` bytes go."""

    packet: Packet
    spa: int
    size: int


def send_start(sp: Processor, handle: int, receiver: Receiver, session_bytes: int) -> Departure:
    """SEND_START: new transport keys for whoever has the private key of the receiver's PDH."""
    command = Command.SEND_START
    guest = sp.known(command, handle)
    if session_bytes != SESSION_BYTES:
        raise Refused(Status.INVALID_LENGTH, SESSION_BYTES)
    need_state(command, guest)
    require(not guest.policy & Policy.NOSEND, Status.POLICY_FAILURE)
    _check_receiver(sp, guest.policy, receiver)
    certificate = Certificate.parse(receiver.platform.pdh)
    certificate.check_body(Usage.PDH, Algorithm.ECDH_SHA256)
    channel = Channel(sp.random(KEY_BYTES), sp.random(KEY_BYTES))
    z = shared_secret(sp.identity.pdh, certificate.public_key())
    blob = wrap_session(z, guest.policy, channel, sp.random(NONCE_BYTES), sp.random(IV_BYTES))
    guest.channel = channel
    guest.state = NEXT_STATE[command]
    return Departure(blob, guest.policy)


def send_update(sp: Processor, command: Command, handle: int, outgoing: Outgoing) -> Packet:
    """SEND_UPDATE_DATA and SEND_UPDATE_VMSA."""
    spa, size, header_bytes, room = outgoing
    sp.need_platform(command)
    if header_bytes < HEADER_BYTES:
        raise Refused(Status.INVALID_LENGTH, HEADER_BYTES)
    guest = sp.admitted(command, handle)
    is_vmsa = command is Command.SEND_UPDATE_VMSA
    require(guest.es or not is_vmsa, Status.UNSUPPORTED)
    need_asid(guest)
    _check_size(sp, size)
    require(room >= size, Status.INVALID_LENGTH)
    check_alignment(spa)
    data = sp.memory.read_private(guest.asid, spa, size)
    if is_vmsa:
        _validate_vmsa(sp, guest, data)
    return seal(guest.channel, _context(sp, is_vmsa=is_vmsa), data, sp.random(IV_BYTES))


def receive_update(sp: Processor, command: Command, handle: int, incoming: Incoming) -> None:
    """RECEIVE_UPDATE_DATA and RECEIVE_UPDATE_VMSA: to wherever the host says, as often as it says."""
    packet, spa, size = incoming
    guest = sp.admitted(command, handle)
    is_vmsa = command is Command.RECEIVE_UPDATE_VMSA
    require(guest.es or not is_vmsa, Status.UNSUPPORTED)
    need_asid(guest)
    require(size == len(packet.data) and len(packet.header) >= HEADER_BYTES, Status.INVALID_LENGTH)
    _check_size(sp, size)
    check_alignment(spa)
    refuse_compressed(packet)
    sp.memory.check(spa, size)
    data = open_packet(guest, _context(sp, is_vmsa=is_vmsa), packet)
    if is_vmsa:
        require(size >= VMSA_BYTES, Status.INVALID_LENGTH)
        data = sp.keep_vmsa(guest, data[:VMSA_BYTES]) + data[VMSA_BYTES:]
    sp.memory.write_private(guest.asid, spa, data, evict=True)


def end(sp: Processor, command: Command, handle: int) -> None:
    """SEND_FINISH, SEND_CANCEL and RECEIVE_FINISH."""
    guest = sp.admitted(command, handle)
    if command is Command.RECEIVE_FINISH:
        sp.let_run(guest)
    guest.channel = Channel()
    guest.state = NEXT_STATE[command]


def _check_receiver(sp: Processor, policy: int, receiver: Receiver) -> None:
    pdh, chain = receiver.platform
    if policy & Policy.SEV:
        version = validate_platform(pdh, chain, receiver.amd)
        require(version >= policy_version(policy), Status.POLICY_FAILURE)
    if policy & Policy.DOMAIN:
        validate_domain(pdh, chain, sp.identity.oca_certificate)
    require(len(pdh) == CERTIFICATE_BYTES, Status.INVALID_LENGTH)


def _check_size(sp: Processor, size: int) -> None:
    # The published build fails on less than its least for a reason inside, and so with a code outside of the API's
    # table; here that is an invalid length, too.
    is_good = size % BLOCK_BYTES == 0 and sp.build.packet_min_bytes <= size <= sp.build.scratch_bytes
    require(is_good, Status.INVALID_LENGTH)


def _validate_vmsa(sp: Processor, guest: GuestContext, data: bytes) -> None:
    if sp.region is None or len(data) < VMSA_BYTES:
        raise Refused(Status.INVALID_PARAM)
    try:
        address = sp.region.validate(data[:VMSA_BYTES])
    except BadVmsaError:
        raise Refused(Status.INVALID_PARAM) from None
    require(address in guest.vmsas, Status.INVALID_PARAM)


def _context(sp: Processor, *, is_vmsa: bool) -> int:
    return sp.build.vmsa_context if is_vmsa else CONTEXT_DATA
