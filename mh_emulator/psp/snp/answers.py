"""Guest messages about the guest itself: CPUID, KEY, REPORT, TSC_INFO. A `Refused` is the status inside of the answer.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_rmp.h, sev_mcmd.c (snp_mcmd_guest_request). No VLEK can be loaded.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mh_emulator.psp.crypto import kdf
from mh_emulator.psp.snp import cpuid, tsc
from mh_emulator.psp.snp.asked import Asked
from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.processor import SnpProcessor
from mh_emulator.psp.snp.report import REPORT_BYTES, make_report
from mh_emulator.psp.snp.tcb import Tcb
from mh_emulator.psp.status import Refused, Status, require

_KEY_LABEL = b"gmsg-keyreq"
_KEY_REQUEST = struct.Struct("<IIQIIQ")
_MIX = struct.Struct("<IIQIIQQ16s16s32s32s32s")
_KEY_ANSWER_START, _KEY_ANSWER_BYTES = 0x20, 0x40
_DERIVED_BYTES = 32
_POLICY, _IMAGE_ID, _FAMILY_ID, _MEASUREMENT, _SVN, _TCB = (1 << bit for bit in range(6))
_ALL_FIELDS = (1 << 6) - 1
_VLEK_ONLY, _KEY_SEL_MASK, _KEY_SEL_RESERVED = 2, 3, 3

_REPORT_REQUEST = struct.Struct("<64sII24s")
_TSC_ANSWER = struct.Struct("<IIQQI100x")


class _KeyRequest(NamedTuple):
    select: int
    reserved: int
    fields: int
    vmpl: int
    svn: int
    tcb: int


def answer_cpuid(asked: Asked) -> bytes:
    """CPUID: the list comes back, with the number of functions that the firmware knows."""
    payload = asked.payload
    count, *reserved = cpuid.LIST.unpack_from(payload)
    require(not any(reserved), Status.INVALID_PARAM)
    known = cpuid.check_functions(payload[cpuid.LIST.size :], count)
    end = cpuid.LIST.size + count * cpuid.FUNCTION.size
    return cpuid.LIST.pack(Status.SUCCESS, known, 0) + payload[cpuid.LIST.size : end]


def answer_key(asked: Asked) -> bytes:
    """KEY: derive a key from the chip's secret, or from the VMRK, which migrates."""
    sp, guest = asked.sp, asked.sender
    wanted = _KeyRequest(*_KEY_REQUEST.unpack_from(asked.payload))
    require(not (wanted.select >> 3 or wanted.reserved), Status.INVALID_PARAM)
    from_vmrk = wanted.select & 1
    if not from_vmrk:
        require(not sp.mask_chip_key, Status.INVALID_KEY)
        _check_key_choice(guest, wanted.select >> 1)
    require(wanted.vmpl >= asked.vmpck, Status.INVALID_PARAM)
    require(not wanted.fields & ~_ALL_FIELDS, Status.INVALID_PARAM)
    version = _version(sp, wanted.tcb) if wanted.fields & _TCB else sp.tcb.reported
    require(not wanted.fields & _SVN or wanted.svn <= guest.identity.id_block.guest_svn, Status.INVALID_PARAM)
    root = guest.vmrk if from_vmrk else sp.identity.seed(version)
    key = kdf(root, _KEY_LABEL, _mix(guest, wanted), _DERIVED_BYTES)
    return (bytes(_KEY_ANSWER_START) + key).ljust(_KEY_ANSWER_BYTES, b"\0")


def answer_report(asked: Asked) -> bytes:
    """REPORT."""
    report_data, vmpl, select, reserved = _REPORT_REQUEST.unpack_from(asked.payload)
    require(not (any(reserved) or select & ~_KEY_SEL_MASK), Status.INVALID_PARAM)
    _check_key_choice(asked.sender, select)
    require(vmpl >= asked.vmpck, Status.INVALID_PARAM)
    report = make_report(asked.sp, asked.sender, report_data, vmpl)
    return struct.pack("<II24x", Status.SUCCESS, REPORT_BYTES) + report


def answer_tsc_info(asked: Asked) -> bytes:
    """TSC_INFO."""
    require(not any(asked.payload[: _TSC_ANSWER.size]), Status.INVALID_PARAM)
    guest = asked.sender
    return _TSC_ANSWER.pack(Status.SUCCESS, 0, tsc.tsc_scale(guest.tsc_khz), guest.tsc_offset, tsc.TSC_FACTOR)


def _check_key_choice(guest: SnpGuest, select: int) -> None:
    """KEY_SEL: VLEK or VCEK, VCEK, VLEK, reserved."""
    require(select not in (_VLEK_ONLY, _KEY_SEL_RESERVED) and not guest.identity.vcek_dis, Status.INVALID_KEY)


def _version(sp: SnpProcessor, tcb: int) -> Tcb:
    wanted = Tcb.parse(tcb, sp.part.name)
    if wanted is None or wanted.exceeds(sp.tcb.committed):
        raise Refused(Status.INVALID_PARAM)
    return wanted


def _mix(guest: SnpGuest, wanted: _KeyRequest) -> bytes:
    """What goes into the key beside its root; the firmware cuts digests to 32 bytes."""
    identity, block, fields = guest.identity, guest.identity.id_block, wanted.fields
    key_select, key = 0, b""
    if identity.author_key_en:
        key_select, key = 2, identity.author_key_digest
    elif identity.id_block_en:
        key_select, key = 1, identity.id_key_digest
    return _MIX.pack(
        wanted.select & 1 | key_select << 1, 0, fields, wanted.vmpl, wanted.svn if fields & _SVN else 0,
        wanted.tcb if fields & _TCB else 0, guest.policy if fields & _POLICY else 0,
        block.image_id if fields & _IMAGE_ID else b"", block.family_id if fields & _FAMILY_ID else b"",
        guest.digest.ld if fields & _MEASUREMENT else b"", identity.host_data, key,
    )  # fmt: skip
