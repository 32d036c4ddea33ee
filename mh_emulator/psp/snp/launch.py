"""The launch of a guest: LAUNCH_START, LAUNCH_UPDATE, LAUNCH_FINISH.

Source: AMD-ASPFW (SEV firmware 1.55.25), sev_mcmd.c, sev_mcmd.h. Not modelled: the tweak of VMSAs (VmsaRegProt).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from mh_builder.firmware.snp import PageType, SnpPage
from mh_builder.paging import PAGE_BYTES
from mh_emulator.psp.snp import cpuid, secrets, tsc
from mh_emulator.psp.snp.command import SnpGuestState
from mh_emulator.psp.snp.context import KEY_BYTES, NO_REPORT_ID, VMPCKS, Identity, SnpGuest
from mh_emulator.psp.snp.id_block import ECDSA_P384_SHA384, ID_AUTH_BYTES, ID_BLOCK_BYTES, IdAuth, IdBlock
from mh_emulator.psp.snp.policy import RESERVED_POLICY, SnpPolicy, policy_version
from mh_emulator.psp.snp.processor import SnpProcessor, need_asid, need_owner
from mh_emulator.psp.status import Status, require
from mh_emulator.rmp.entry import PageSize, PageState, Perm, RmpEntry

_REPORT_ID_BYTES = 32
_ONLY_SMALL = (PageType.VMSA, PageType.SECRETS, PageType.CPUID)
_ZEROED = (PageType.ZERO, PageType.SECRETS)
_KINDS = {kind.value: kind for kind in PageType}
_NO_CONTENTS = bytes(PAGE_BYTES)


@dataclass(frozen=True, slots=True)
class LaunchStart:
    """What LAUNCH_START takes."""

    gctx: int
    policy: int
    agent: int | None = None
    """Context of the migration agent; None with MA_EN clear."""
    imi_en: bool = False
    tsc_khz: int = 0
    gosvw: bytes = bytes(16)


class LaunchUpdate(NamedTuple):
    """What LAUNCH_UPDATE takes."""

    gctx: int
    page: int
    kind: int = PageType.NORMAL
    size: PageSize = PageSize.SMALL
    imi: bool = False
    vmpl: tuple[int, int, int] = (0, 0, 0)
    """Permissions of VMPL1, VMPL2 and VMPL3."""


@dataclass(frozen=True, slots=True)
class LaunchFinish:
    """What LAUNCH_FINISH takes."""

    gctx: int
    id_block: int | None = None
    """Address of the ID block; None with ID_BLOCK_EN clear."""
    id_auth: int = 0
    author_key_en: bool = False
    vcek_dis: bool = False
    host_data: bytes = bytes(32)


def start(sp: SnpProcessor, wanted: LaunchStart) -> None:
    """LAUNCH_START."""
    gctx, agent_gctx = sp.begin(wanted.gctx, wanted.agent or 0)
    guest = sp.guest(gctx)
    require(guest.state is SnpGuestState.INIT, Status.INVALID_GUEST_STATE)
    agent = None if wanted.agent is None else sp.guest(agent_gctx)
    _check_policy(sp, wanted.policy, agent)
    guest.policy, guest.imi_en, guest.gosvw, guest.tsc_khz = wanted.policy, wanted.imi_en, wanted.gosvw, wanted.tsc_khz
    guest.agent = None if agent is None else agent.gctx
    guest.oek = sp.random(KEY_BYTES)
    guest.vmpcks = [sp.random(KEY_BYTES) for _ in range(VMPCKS)]
    guest.vmrk = sp.random(KEY_BYTES)
    guest.report_id = sp.random(_REPORT_ID_BYTES)
    guest.report_id_ma = NO_REPORT_ID if agent is None else agent.report_id
    guest.state = SnpGuestState.LAUNCH


def update(sp: SnpProcessor, wanted: LaunchUpdate) -> None:
    """LAUNCH_UPDATE: measure, encrypt in place, and hand over as Guest-Valid."""
    gctx, spa = sp.begin(wanted.gctx, wanted.page)
    guest = sp.guest(gctx)
    entry = sp.need_page(spa, PageState.PRE_GUEST)
    require(entry.size is wanted.size, Status.INVALID_PAGE_SIZE)
    # That an entry of 2 MiB is at an address of 2 MiB is checked too, but RMPUPDATE makes no other.
    require(wanted.kind in _KINDS, Status.INVALID_PARAM)
    kind = _KINDS[wanted.kind]
    require(kind not in _ONLY_SMALL or wanted.size is PageSize.SMALL, Status.INVALID_PAGE_SIZE)
    require(guest.state is SnpGuestState.LAUNCH, Status.INVALID_GUEST_STATE)
    need_asid(guest)
    need_owner(entry, guest)
    require(wanted.imi or not guest.imi_en, Status.INVALID_PARAM)
    if kind is PageType.CPUID:
        cpuid.check_page(sp.memory.read(spa, PAGE_BYTES, evict=True))
    for offset in range(0, wanted.size.bytes, PAGE_BYTES):
        page = sp.memory.encrypt_pages(guest.asid, [spa + offset])
        guest.digest.add(SnpPage(kind, entry.gpa + offset, page, wanted.imi, wanted.vmpl))
        contents = _contents(sp, guest, kind, page)
        if contents != page:
            sp.memory.write_private(guest.asid, spa + offset, contents, evict=True)
    sp.rmp.replace(spa, _handed_over(entry, kind, wanted.vmpl))


def finish(sp: SnpProcessor, wanted: LaunchFinish) -> None:
    """LAUNCH_FINISH: check who the guest is, if its owner says so, and let it run."""
    (gctx,) = sp.begin(wanted.gctx)
    guest = sp.guest(gctx)
    require(guest.state is SnpGuestState.LAUNCH and not guest.imi_en, Status.INVALID_GUEST_STATE)
    need_asid(guest)
    guest.identity = _identity(sp, guest, wanted)
    sp.asids.run(guest.asid)
    guest.state = SnpGuestState.RUNNING


def _check_policy(sp: SnpProcessor, policy: int, agent: SnpGuest | None) -> None:
    is_good = (
        policy & SnpPolicy.MUST_BE_ONE
        and (policy & SnpPolicy.SMT or not sp.board.smt)
        and policy_version(policy) <= sp.build.version[:2]
        and not policy & RESERVED_POLICY
    )
    if agent is not None:
        is_bound_to_socket = policy & SnpPolicy.SINGLE_SOCKET
        is_good = (
            is_good
            and policy & SnpPolicy.MIGRATE_MA
            and agent.agent is None
            and (not is_bound_to_socket or agent.policy & SnpPolicy.SINGLE_SOCKET)
        )
    require(is_good, Status.POLICY_FAILURE)


def _contents(sp: SnpProcessor, guest: SnpGuest, kind: PageType, page: bytes) -> bytes:
    """What the guest finds in a page."""
    if kind is PageType.SECRETS:
        return secrets.make_page(guest, sp.part.signature)
    if kind is PageType.VMSA:
        return tsc.set_in_vmsa(page, guest.tsc_khz, 0)
    return _NO_CONTENTS if kind in _ZEROED else page


def _handed_over(entry: RmpEntry, kind: PageType, vmpl: tuple[int, int, int]) -> RmpEntry:
    return RmpEntry(
        assigned=entry.assigned,
        validated=True,
        immutable=False,
        vmsa=entry.vmsa or kind is PageType.VMSA,
        size=entry.size,
        asid=entry.asid,
        gpa=entry.gpa,
        perms=(entry.perms[0], *_perms(vmpl)),
    )


@cache
def _perms(vmpl: tuple[int, int, int]) -> tuple[Perm, ...]:
    return tuple(map(Perm, vmpl))


def _identity(sp: SnpProcessor, guest: SnpGuest, wanted: LaunchFinish) -> Identity:
    identity = Identity(wanted.host_data, author_key_en=wanted.author_key_en, vcek_dis=wanted.vcek_dis)
    if wanted.id_block is None:
        return identity
    block = sp.memory.read(wanted.id_block, ID_BLOCK_BYTES)
    auth = IdAuth.parse(sp.memory.read(wanted.id_auth, ID_AUTH_BYTES))
    identity.id_block_en, identity.id_block = True, IdBlock.parse(block)
    require(identity.id_block.ld == guest.digest.ld, Status.BAD_MEASUREMENT)
    require(identity.id_block.policy == guest.policy, Status.POLICY_FAILURE)
    algorithms = [auth.id_algorithm] + [auth.author_algorithm] * wanted.author_key_en
    require(set(algorithms) == {ECDSA_P384_SHA384}, Status.INVALID_PARAM)
    identity.id_key_digest = auth.check_id(block)
    if wanted.author_key_en:
        identity.author_key_digest = auth.check_author()
    return identity
