"""How a guest begins: the session that brings its transport keys, and the memory key, new or another guest's.

Source: AMD-ASPFW, sev_mcmd.c (sev_mcmd_launch_start, sev_mcmd_receive_start), sev_guest.c (sev_guest_verify_policy).
"""

from __future__ import annotations

from mh_emulator.psp.certificate import CERTIFICATE_BYTES, Algorithm, Certificate, Usage
from mh_emulator.psp.command import NEXT_STATE, Command
from mh_emulator.psp.crypto import KEY_BYTES, BadMacError, shared_secret
from mh_emulator.psp.guest import GuestContext
from mh_emulator.psp.policy import RESERVED_POLICY, Policy, policy_version
from mh_emulator.psp.processor import Processor
from mh_emulator.psp.session import SESSION_BYTES, Channel, Session, unwrap_session
from mh_emulator.psp.status import Refused, Status, require


def launch_start(sp: Processor, policy: int, session: Session | None, shared_handle: int) -> int:
    """LAUNCH_START: without a session the firmware checks neither the version nor the reserved bits."""
    sp.need_platform(Command.LAUNCH_START)
    channel = Channel() if session is None else _open(sp, policy, session)
    return _begin(sp, Command.LAUNCH_START, policy, channel, shared_handle)


def receive_start(sp: Processor, policy: int, session: Session, shared_handle: int) -> int:
    """RECEIVE_START: whoever knows the platform's public key can be the other end."""
    sp.need_platform(Command.RECEIVE_START)
    return _begin(sp, Command.RECEIVE_START, policy, _open(sp, policy, session), shared_handle)


def _begin(sp: Processor, command: Command, policy: int, channel: Channel, shared_handle: int) -> int:
    seed = _shared_seed(sp, policy, shared_handle) if shared_handle else sp.random(KEY_BYTES)
    return sp.add_guest(GuestContext(policy, seed, channel, NEXT_STATE[command]))


def _open(sp: Processor, policy: int, session: Session) -> Channel:
    require(len(session.blob) == SESSION_BYTES, Status.INVALID_LENGTH)
    require(len(session.certificate) == CERTIFICATE_BYTES, Status.INVALID_LENGTH)
    certificate = Certificate.parse(session.certificate)
    certificate.check_body(Usage.PDH, Algorithm.ECDH_SHA256)
    z = shared_secret(sp.identity.pdh, certificate.public_key())
    try:
        channel = unwrap_session(z, policy, session.blob)
    except BadMacError:
        raise Refused(Status.BAD_MEASUREMENT) from None
    require(policy_version(policy) <= sp.build.version[:2], Status.POLICY_FAILURE)
    require(not policy & RESERVED_POLICY, Status.POLICY_FAILURE)
    return channel


def _shared_seed(sp: Processor, policy: int, handle: int) -> bytes:
    shared = sp.guests.get(handle)
    require(policy == shared.policy and not shared.policy & Policy.NOKS, Status.POLICY_FAILURE)
    return shared.key_seed
