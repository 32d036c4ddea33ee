"""GUEST_REQUEST: open a guest's message, carry it out, seal the answer.

What the host did wrong is the command's status; what the guest did wrong is a status inside of a sealed answer.
Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c (snp_mcmd_guest_request). The firmware sees only at the end that an
answer does not fit into the page of the response; here nothing has happened then.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mh_builder.paging import PAGE_BYTES
from mh_emulator.psp.snp import answers, migration
from mh_emulator.psp.snp.asked import Asked
from mh_emulator.psp.snp.command import SnpGuestState
from mh_emulator.psp.snp.context import BLOB_BYTES, BLOB_VERSION, VMPCKS, SnpGuest
from mh_emulator.psp.snp.message import (
    AES_256_GCM,
    HEADER_BYTES,
    HEADER_VERSION,
    MESSAGE_VERSION,
    PAYLOAD_UNIT,
    Header,
    MessageType,
    seal,
    unseal,
)
from mh_emulator.psp.snp.processor import SnpProcessor
from mh_emulator.psp.snp.report import REPORT_BYTES
from mh_emulator.psp.status import Refused, Status, require
from mh_emulator.rmp.entry import PageSize, PageState

_COUNTS = 1 << 64
_SHORT_BYTES = 16
_ANSWER_BYTES = {
    MessageType.KEY_REQ: 0x40,
    MessageType.REPORT_REQ: 0x20 + REPORT_BYTES,
    MessageType.EXPORT_REQ: migration.EXPORT_ANSWER_BYTES,
    MessageType.TSC_INFO_REQ: 0x80,
}
_ANSWERS: Mapping[MessageType, Callable[[Asked], bytes]] = MappingProxyType(
    {
        MessageType.CPUID_REQ: answers.answer_cpuid,
        MessageType.KEY_REQ: answers.answer_key,
        MessageType.REPORT_REQ: answers.answer_report,
        MessageType.EXPORT_REQ: migration.answer_export,
        MessageType.IMPORT_REQ: migration.answer_import,
        MessageType.ABSORB_REQ: migration.answer_absorb,
        MessageType.VMRK_REQ: migration.answer_vmrk,
        MessageType.ABSORB_NOMA_REQ: migration.answer_absorb_noma,
        MessageType.TSC_INFO_REQ: answers.answer_tsc_info,
    }
)


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """What GUEST_REQUEST takes: a context, and where the message lies and the answer goes."""

    gctx: int
    request: int
    response: int


def guest_request(sp: SnpProcessor, wanted: GuestRequest) -> None:
    """GUEST_REQUEST."""
    (gctx,) = sp.begin(wanted.gctx)
    request, response = sp.memory.plain(wanted.request), sp.memory.plain(wanted.response)
    guest = sp.guest(gctx)
    require(sp.rmp.state(response) is PageState.FIRMWARE, Status.INVALID_PAGE_STATE)
    sizes = {sp.rmp.entry(spa).size for spa in (request, response)}
    require(sizes == {PageSize.SMALL}, Status.INVALID_PAGE_SIZE)
    require(guest.state is SnpGuestState.RUNNING, Status.INVALID_GUEST_STATE)
    header, payload = _open(sp, guest, request)
    kind = MessageType(header.kind)
    size = _answer_bytes(kind, header)
    require(response % PAGE_BYTES + HEADER_BYTES + size <= PAGE_BYTES, Status.INVALID_PARAM)
    key = guest.vmpcks[header.vmpck]
    answer = _answer(Asked(sp, guest, header.vmpck, payload), kind)[:size].ljust(size, b"\0")
    reply = Header(header.seqno + 1, kind + 1, size, header.vmpck)
    guest.message_counts[header.vmpck] = (guest.message_counts[header.vmpck] + 2) % _COUNTS
    sp.memory.write(response, seal(key, reply, answer))


def _open(sp: SnpProcessor, guest: SnpGuest, request: int) -> tuple[Header, bytes]:
    """Check and decrypt a message."""
    room = PAGE_BYTES - request % PAGE_BYTES - HEADER_BYTES
    require(room >= 0, Status.INVALID_PARAM)
    clear = sp.memory.read(request, HEADER_BYTES)
    header = Header.parse(clear)
    form = header.header_version, header.header_bytes, header.algorithm
    require(form == (HEADER_VERSION, HEADER_BYTES, AES_256_GCM), Status.INVALID_PARAM)
    require(header.size and header.size % PAYLOAD_UNIT == 0 and header.size <= room, Status.INVALID_PARAM)
    sealed = sp.memory.read(request + HEADER_BYTES, header.size)
    require(header.vmpck < VMPCKS, Status.INVALID_PARAM)
    payload = unseal(guest.vmpcks[header.vmpck], clear, sealed)
    if payload is None:
        raise Refused(Status.BAD_MEASUREMENT)
    count = guest.message_counts[header.vmpck]
    require(count != _COUNTS - 2 and header.seqno == (count + 1) % _COUNTS, Status.AEAD_OFLOW)
    is_known = header.kind in set(MessageType) and header.version == MESSAGE_VERSION
    require(is_known, Status.INVALID_PARAM)
    return header, payload.ljust(PAGE_BYTES, b"\0")


def _answer_bytes(kind: MessageType, header: Header) -> int:
    return header.size if kind is MessageType.CPUID_REQ else _ANSWER_BYTES.get(kind, _SHORT_BYTES)


def _answer(asked: Asked, kind: MessageType) -> bytes:
    try:
        return _ANSWERS[kind](asked)
    except Refused as refusal:
        return _refusal(kind, refusal.status)


def _refusal(kind: MessageType, status: Status) -> bytes:
    """What an answer says beside a status that is not 0."""
    if kind is MessageType.REPORT_REQ:
        return struct.pack("<II", status, REPORT_BYTES)
    if kind is MessageType.EXPORT_REQ:
        return struct.pack("<III", status, BLOB_BYTES, BLOB_VERSION)
    return struct.pack("<I", status)
