"""The attestation report, version 2.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_rmp.h (snp_attestation_report_t), sev_mcmd.c (SNP_MSG_REPORT_REQ).
"""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives import hashes

from mh_emulator.psp.ecc import ecdsa_sign
from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.id_block import ECDSA_P384_SHA384
from mh_emulator.psp.snp.processor import SnpProcessor

_VERSION = 2
_BODY = struct.Struct("<IIQ16s16sIIQQII64s48s32s48s48s32s32sQ24x64sQBBBxBBBxQ168x")
SIGNED_BYTES = _BODY.size
assert SIGNED_BYTES == 0x2A0  # noqa: S101
REPORT_BYTES = 0x4A0
_SMT_EN = 1 << 0
_MASK_CHIP_KEY = 1 << 1
_SIGNING_KEY_SHIFT, _SIGNED_BY_VCEK, _SIGNED_BY_NONE = 2, 0, 7


def make_report(sp: SnpProcessor, guest: SnpGuest, report_data: bytes, vmpl: int) -> bytes:
    """The report of `guest`, signed with the VCEK unless CONFIG masks it."""
    body = _body(sp, guest, report_data, vmpl)
    signature = b""
    if not sp.mask_chip_key:
        signature = ecdsa_sign(sp.identity.vcek(sp.tcb.reported), body, hashes.SHA384())
    return (body + signature).ljust(REPORT_BYTES, b"\0")


def _body(sp: SnpProcessor, guest: SnpGuest, report_data: bytes, vmpl: int) -> bytes:
    identity, part = guest.identity, sp.part.name
    block = identity.id_block
    signing_key = _SIGNED_BY_NONE if sp.mask_chip_key else _SIGNED_BY_VCEK
    flags = identity.author_key_en | sp.mask_chip_key * _MASK_CHIP_KEY | signing_key << _SIGNING_KEY_SHIFT
    chip_id = b"" if sp.mask_chip_id else sp.identity.chip_id
    major, minor, build = sp.build.version
    return _BODY.pack(
        _VERSION, block.guest_svn, guest.policy, block.family_id, block.image_id, vmpl, ECDSA_P384_SHA384,
        sp.tcb.current.pack(part), sp.board.smt * _SMT_EN, flags, 0, report_data, guest.digest.ld, identity.host_data,
        identity.id_key_digest, identity.author_key_digest, guest.report_id, guest.report_id_ma,
        sp.tcb.reported.pack(part), chip_id, sp.tcb.committed.pack(part), build, minor, major, build, minor, major,
        guest.launch_tcb,
    )  # fmt: skip
