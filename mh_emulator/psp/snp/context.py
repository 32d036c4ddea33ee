"""A guest's context: what the secure processor keeps in a CONTEXT page, and the part of it that can be exported.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_rmp.h (guest_context_page_t, snp_msg_gctx_t), sev_mcmd.c. The page is
encrypted with a key that only the processor has, so it is modelled as an object and not as bytes in DRAM.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from mh_builder.firmware.snp import DIGEST_BYTES, SnpDigest
from mh_emulator.psp.snp.command import SnpGuestState
from mh_emulator.psp.snp.id_block import ID_BLOCK_BYTES, IdBlock
from mh_emulator.psp.snp.metadata import MDATA_BYTES, Mdata

KEY_BYTES = 32
VMPCKS = 4
NO_REPORT_ID = b"\xff" * 32

_BLOB = struct.Struct(
    f"<48s32s128s32s32s48s48s32s48s4Q{MDATA_BYTES}sQQB7xQ{ID_BLOCK_BYTES}s16sI4xQQ56x"
)  # fmt: skip
BLOB_BYTES = _BLOB.size
BLOB_VERSION = 3
_AUTHOR_KEY, _ID_BLOCK, _VCEK_DIS = 1 << 0, 1 << 1, 1 << 2


@dataclass(slots=True)
class Identity:
    """What LAUNCH_FINISH fixes."""

    host_data: bytes = bytes(32)
    id_block_en: bool = False
    author_key_en: bool = False
    vcek_dis: bool = False
    id_block: IdBlock = field(default_factory=IdBlock)
    id_key_digest: bytes = bytes(DIGEST_BYTES)
    author_key_digest: bytes = bytes(DIGEST_BYTES)


@dataclass(slots=True)
class SnpGuest:
    """One guest."""

    gctx: int
    """System physical address of its CONTEXT page."""
    key_seed: bytes = field(repr=False)
    """The VEK's; it is never exported."""
    launch_tcb: int
    state: SnpGuestState = SnpGuestState.INIT
    asid: int = 0
    """0 while not activated."""
    policy: int = 0
    agent: int | None = None
    """Context of its migration agent."""
    imi_en: bool = False
    digest: SnpDigest = field(default_factory=SnpDigest)
    identity: Identity = field(default_factory=Identity)
    oek: bytes = field(default=bytes(KEY_BYTES), repr=False)
    vmpcks: list[bytes] = field(default_factory=lambda: [bytes(KEY_BYTES)] * VMPCKS, repr=False)
    vmrk: bytes = field(default=bytes(KEY_BYTES), repr=False)
    message_counts: list[int] = field(default_factory=lambda: [0] * VMPCKS)
    report_id: bytes = bytes(32)
    report_id_ma: bytes = bytes(32)
    root: Mdata = field(default_factory=Mdata)
    oek_iv: int = 0
    gosvw: bytes = bytes(16)
    tsc_khz: int = 0
    tsc_offset: int = 0

    def export(self) -> bytes:
        """What EXPORT puts into its answer."""
        identity = self.identity
        flags = identity.author_key_en * _AUTHOR_KEY | identity.id_block_en * _ID_BLOCK | identity.vcek_dis * _VCEK_DIS
        return _BLOB.pack(
            self.digest.ld, self.oek, b"".join(self.vmpcks), self.vmrk, identity.host_data, identity.id_key_digest,
            identity.author_key_digest, self.report_id, self.digest.imd, *self.message_counts, self.root.pack(), flags,
            self.policy, self.state, self.oek_iv, identity.id_block.pack(), self.gosvw, self.tsc_khz, self.tsc_offset,
            self.launch_tcb,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Blob:
    """An exported context as read."""

    ld: bytes
    oek: bytes = field(repr=False)
    vmpcks: bytes = field(repr=False)
    vmrk: bytes = field(repr=False)
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    imd: bytes
    count0: int
    count1: int
    count2: int
    count3: int
    root: bytes
    flags: int
    policy: int
    state: int
    oek_iv: int
    id_block: bytes
    gosvw: bytes
    tsc_khz: int
    tsc_offset: int
    launch_tcb: int

    @classmethod
    def parse(cls, data: bytes) -> Blob:
        """Read `BLOB_BYTES` bytes."""
        return cls(*_BLOB.unpack(data))

    def overwrite(self, guest: SnpGuest) -> None:
        """Put into `guest` what IMPORT, ABSORB and ABSORB_NOMA all take."""
        guest.digest.ld, guest.digest.imd = self.ld, self.imd
        guest.oek, guest.vmrk = self.oek, self.vmrk
        guest.vmpcks = [self.vmpcks[at : at + KEY_BYTES] for at in range(0, len(self.vmpcks), KEY_BYTES)]
        guest.message_counts = [self.count0, self.count1, self.count2, self.count3]
        guest.identity.host_data = self.host_data
        guest.identity.id_key_digest = self.id_key_digest
        guest.identity.author_key_digest = self.author_key_digest
        guest.root = Mdata.parse(self.root)
        guest.policy, guest.oek_iv, guest.gosvw = self.policy, self.oek_iv, self.gosvw
        guest.tsc_khz, guest.tsc_offset, guest.launch_tcb = self.tsc_khz, self.tsc_offset, self.launch_tcb

    def identify(self, guest: SnpGuest) -> None:
        """Put the ID block into `guest`, which ABSORB_NOMA leaves out; VCEK_DIS is never taken."""
        guest.identity.author_key_en = bool(self.flags & _AUTHOR_KEY)
        guest.identity.id_block_en = bool(self.flags & _ID_BLOCK)
        guest.identity.id_block = IdBlock.parse(self.id_block)
