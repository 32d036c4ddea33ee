"""Guest messages that move a guest's context: EXPORT, IMPORT, ABSORB, ABSORB_NOMA, and VMRK.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c (snp_mcmd_guest_request), with what it does not check: docs/snp.md.
A `Refused` is the status inside of the answer.
"""

from __future__ import annotations

import struct

from mh_builder.paging import PAGE_BYTES
from mh_emulator.psp.snp import life
from mh_emulator.psp.snp.asked import Asked
from mh_emulator.psp.snp.command import SnpGuestState
from mh_emulator.psp.snp.context import BLOB_BYTES, BLOB_VERSION, KEY_BYTES, Blob, SnpGuest
from mh_emulator.psp.snp.metadata import Mdata
from mh_emulator.psp.status import Status, require

_EXPORT_REQUEST = struct.Struct("<QII")
_EXPORT_ANSWER = struct.Struct("<III20x")
_INCOMING = struct.Struct("<QII16s")
_VMRK_REQUEST = struct.Struct("<Q24s")
EXPORT_ANSWER_BYTES = PAGE_BYTES - 0x60
_SHORT_ANSWER = bytes(16)


def answer_export(asked: Asked) -> bytes:
    """EXPORT: of a guest by its agent, or of a guest without an agent by itself; with IMI_EN it goes on running."""
    sp, sender, payload = asked.sp, asked.sender, asked.payload
    gctx, flags, reserved = _EXPORT_REQUEST.unpack_from(payload)
    require(not (gctx % PAGE_BYTES or flags >> 1 or reserved), Status.INVALID_PARAM)
    guest = sp.guest(sp.memory.plain(gctx))
    require(guest.state is SnpGuestState.RUNNING, Status.INVALID_GUEST_STATE)
    is_own = guest is sender and sender.agent is None
    require(is_own or _is_agent(sender, guest), Status.INVALID_GUEST)
    require(not is_own or asked.vmpck == 0, Status.INVALID_GUEST)
    root = guest.root
    if flags:
        guest.root = Mdata()
    blob = guest.export()
    guest.root = root
    if not flags:
        life.forget(sp, guest)
    answer = _EXPORT_ANSWER.pack(Status.SUCCESS, BLOB_BYTES, BLOB_VERSION) + blob
    return answer.ljust(EXPORT_ANSWER_BYTES, b"\0")


def answer_import(asked: Asked) -> bytes:
    """IMPORT: fill a new context; its sender becomes the agent, whoever it is."""
    sp, payload = asked.sp, asked.payload
    gctx, size, version, reserved = _INCOMING.unpack_from(payload)
    require(not (gctx % PAGE_BYTES or any(reserved)), Status.INVALID_PARAM)
    _check_form(size, version)
    guest = sp.guest(sp.memory.plain(gctx))
    require(guest.state is SnpGuestState.INIT, Status.INVALID_GUEST_STATE)
    blob = _blob(payload)
    require(Mdata.parse(blob.root).valid, Status.INVALID_MDATA_ENTRY)
    guest.report_id = sp.random(KEY_BYTES)
    _take_over(guest, blob, asked.sender)
    return _SHORT_ANSWER


def answer_absorb(asked: Asked) -> bytes:
    """ABSORB: fill a context that holds the incoming image; its sender becomes the agent, whoever it is."""
    sp, payload = asked.sp, asked.payload
    gctx, size, version, reserved = _INCOMING.unpack_from(payload)
    require(not (gctx % PAGE_BYTES or any(reserved)), Status.INVALID_PARAM)
    guest = sp.guest(sp.memory.plain(gctx))
    require(guest.state is SnpGuestState.LAUNCH and guest.imi_en, Status.INVALID_GUEST_STATE)
    # The firmware looks at the context that it fills, where it could look at what comes in.
    require(not guest.root.valid, Status.INVALID_MDATA_ENTRY)
    blob = _blob(payload)
    require(blob.imd == guest.digest.ld, Status.BAD_MEASUREMENT)
    _check_form(size, version)
    _take_over(guest, blob, asked.sender)
    if guest.asid:
        sp.asids.run(guest.asid)
    return _SHORT_ANSWER


def answer_absorb_noma(asked: Asked) -> bytes:
    """ABSORB_NOMA: the sender becomes the guest that comes in; any VMPCK will do."""
    sender, payload = asked.sender, asked.payload
    address, size, version, reserved = _INCOMING.unpack_from(payload)
    require(not (address or any(reserved)), Status.INVALID_PARAM)
    require(sender.agent is None, Status.INVALID_GUEST)
    blob = _blob(payload)
    require(blob.imd == sender.digest.ld == sender.digest.imd, Status.BAD_MEASUREMENT)
    _check_form(size, version)
    blob.overwrite(sender)
    return _SHORT_ANSWER


def answer_vmrk(asked: Asked) -> bytes:
    """VMRK: the agent chooses the root of keys of a guest in launch."""
    sp, payload = asked.sp, asked.payload
    require(asked.vmpck == 0, Status.INVALID_PARAM)
    gctx, reserved = _VMRK_REQUEST.unpack_from(payload)
    require(not (gctx % PAGE_BYTES or any(reserved)), Status.INVALID_PARAM)
    guest = sp.guest(sp.memory.plain(gctx))
    require(guest.state is SnpGuestState.LAUNCH and not guest.imi_en, Status.INVALID_GUEST_STATE)
    require(_is_agent(asked.sender, guest), Status.INVALID_GUEST)
    guest.vmrk = payload[_VMRK_REQUEST.size : _VMRK_REQUEST.size + KEY_BYTES]
    return _SHORT_ANSWER


def _is_agent(sender: SnpGuest, guest: SnpGuest) -> bool:
    return guest.agent == sender.gctx and guest.report_id_ma == sender.report_id


def _check_form(size: int, version: int) -> None:
    require((size, version) == (BLOB_BYTES, BLOB_VERSION), Status.INVALID_PARAM)


def _blob(payload: bytes) -> Blob:
    return Blob.parse(payload[_INCOMING.size : _INCOMING.size + BLOB_BYTES])


def _take_over(guest: SnpGuest, blob: Blob, sender: SnpGuest) -> None:
    blob.overwrite(guest)
    blob.identify(guest)
    guest.agent, guest.report_id_ma = sender.gctx, sender.report_id
    guest.imi_en = False
    guest.state = SnpGuestState.RUNNING
