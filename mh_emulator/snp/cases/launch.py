"""Cases of a guest's life: contexts, launches, ASIDs, ID blocks, versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import ec

from mh_builder.firmware.snp import PageType, SnpPage, WholeLaunch, pages_at
from mh_emulator.psp.crypto import private_key
from mh_emulator.psp.snp.id_block import IdBlock, sign_id_block
from mh_emulator.psp.snp.launch import LaunchFinish, LaunchStart
from mh_emulator.psp.snp.platform import Config
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy
from mh_emulator.rmp.instructions import NewState
from mh_emulator.snp.channel import Channel
from mh_emulator.snp.host import Launched
from mh_emulator.snp.notes import Outcome
from mh_emulator.snp.report import read_report
from mh_emulator.snp.stage import GPA, IMAGE, Stage

_OWNERS_SECRET = b"owner".ljust(47, b"\1")


def gctx_create(stage: Stage) -> Outcome:
    """a FIRMWARE page becomes the context of a new guest"""
    stage.host.create()
    return stage.last()


def gctx_create_twice(stage: Stage) -> Outcome:
    """a context is no FIRMWARE page, so nobody starts a guest anew in it"""
    gctx = stage.host.create()
    stage.attempt(lambda: stage.host.psp.gctx_create(gctx))
    return stage.last()


def launch(stage: Stage) -> Outcome:
    """a guest is launched from two pages, and runs"""
    guest = stage.guest()
    return Outcome.WORKS if stage.host.psp.is_runnable(guest.asid) else Outcome.REFUSED


def launch_reserved_policy(stage: Stage) -> Outcome:
    """a policy bit that this firmware does not know, such as PAGE_SWAP_DISABLE of later ones"""
    start = LaunchStart(stage.host.create(), DEFAULT_POLICY | 1 << 25)
    stage.attempt(lambda: stage.host.psp.launch_start(start))
    return stage.last()


def launch_agent_without_policy(stage: Stage) -> Outcome:
    """the host binds a migration agent to a guest whose owner does not allow one"""
    agent = stage.guest()
    start = LaunchStart(stage.host.create(), DEFAULT_POLICY, agent.gctx)
    stage.attempt(lambda: stage.host.psp.launch_start(start))
    return stage.last()


def launch_agent_of_agent(stage: Stage) -> Outcome:
    """a guest with an agent is to be the agent of another one"""
    policy = DEFAULT_POLICY | SnpPolicy.MIGRATE_MA
    bound = stage.guest(start=LaunchStart(stage.host.create(), policy, stage.guest().gctx))
    start = LaunchStart(stage.host.create(), policy, bound.gctx)
    stage.attempt(lambda: stage.host.psp.launch_start(start))
    return stage.last()


def activate_with_pages(stage: Stage) -> Outcome:
    """a page was given to the ASID before ACTIVATE"""
    start = LaunchStart(stage.host.create(), DEFAULT_POLICY)
    stage.host.psp.launch_start(start)
    stage.host.update(stage.host.page(), NewState(assigned=True, gpa=GPA, asid=9))
    stage.attempt(lambda: stage.host.psp.activate(start.gctx, 9))
    return stage.last()


def activate_owned(stage: Stage) -> Outcome:
    """two guests are to have one ASID, hence one memory key"""
    guest = stage.host.start([], None)
    start = LaunchStart(stage.host.create(), DEFAULT_POLICY)
    stage.host.psp.launch_start(start)
    for spa in guest.pages.values():
        stage.host.update(spa, NewState(assigned=False))
    stage.attempt(lambda: stage.host.psp.activate(start.gctx, guest.asid))
    return stage.last()


def launch_other_page(stage: Stage) -> Outcome:
    """a page of the host's own is smuggled into the launch of an incoming image"""
    guest = stage.host.start(_marked(), LaunchStart(stage.host.create(), DEFAULT_POLICY, imi_en=True))
    stage.attempt(lambda: stage.host.launch(guest, SnpPage(PageType.NORMAL, 0, bytes(0x1000))))
    return stage.last()


def launch_image_and_finish(stage: Stage) -> Outcome:
    """an incoming image is to run on its own, without a guest that it takes in"""
    guest = stage.host.start(_marked(), LaunchStart(stage.host.create(), DEFAULT_POLICY, imi_en=True))
    stage.attempt(lambda: stage.host.psp.launch_finish(LaunchFinish(guest.gctx)))
    return stage.last()


def launch_elsewhere(stage: Stage) -> Outcome:
    """the helper is launched at another GPA: reports show another digest"""
    digests = {_measured(stage, stage.guest(pages_at(gpa, IMAGE))) for gpa in (GPA, GPA + 0x1000)}
    return stage.found("compare digests", "different" if len(digests) == 2 else "")


def id_block(stage: Stage) -> Outcome:
    """the owner's ID block for this very launch, signed"""
    return _identified(stage, bytes(0))


def id_block_of_another_guest(stage: Stage) -> Outcome:
    """the owner's ID block, and a guest with another digest"""
    return _identified(stage, b"\1" * 48)


def decommission(stage: Stage) -> Outcome:
    """a running guest is forgotten, and its ASID is clean again after WBINVD and DF_FLUSH"""
    guest = stage.guest()
    stage.host.psp.decommission(guest.gctx)
    stage.host.psp.wbinvd()
    stage.host.psp.df_flush()
    stage.host.psp.shutdown()
    return stage.last()


def stale_context(stage: Stage) -> Outcome:
    """a context is used after DECOMMISSION"""
    guest = stage.guest()
    stage.host.psp.decommission(guest.gctx)
    stage.attempt(lambda: stage.host.psp.guest_status(guest.gctx))
    return stage.last()


def tcb_report_more(stage: Stage) -> Outcome:
    """the host has reports show a newer TCB than is committed"""
    committed = stage.host.psp.platform_status().reported_tcb
    stage.attempt(lambda: stage.host.psp.config(Config(committed + (1 << 56))))
    return stage.last()


def tcb_downgrade(stage: Stage) -> Outcome:
    """the host goes back to firmware below what is committed"""
    stage.host.psp.download_firmware_ex(23)
    stage.host.psp.commit()
    stage.attempt(lambda: stage.host.psp.download_firmware_ex(22))
    return stage.last()


def _marked() -> list[SnpPage]:
    return WholeLaunch().marked(pages_at(GPA, IMAGE))


def _measured(stage: Stage, guest: Launched) -> bytes:
    return read_report(stage, Channel.of(stage.host, guest))[0x90:0xC0]


def _identified(stage: Stage, ld: bytes) -> Outcome:
    host = stage.host
    seen = _measured(stage, stage.guest())
    guest = host.start(pages_at(GPA, IMAGE))
    block = IdBlock(ld or seen, version=1, policy=int(DEFAULT_POLICY))
    key: ec.EllipticCurvePrivateKey = private_key(_OWNERS_SECRET)
    spas = host.page(block.pack()), host.page(sign_id_block(block, key))
    stage.attempt(lambda: host.psp.launch_finish(LaunchFinish(guest.gctx, *spas)))
    return stage.last()


LAUNCH: Mapping[str, Callable[[Stage], Outcome]] = MappingProxyType(
    {
        "gctx-create": gctx_create,
        "gctx-create-twice": gctx_create_twice,
        "launch": launch,
        "launch-reserved-policy": launch_reserved_policy,
        "launch-agent-without-policy": launch_agent_without_policy,
        "launch-agent-of-agent": launch_agent_of_agent,
        "activate-with-pages": activate_with_pages,
        "activate-owned-asid": activate_owned,
        "launch-other-page": launch_other_page,
        "launch-image-and-finish": launch_image_and_finish,
        "launch-elsewhere": launch_elsewhere,
        "id-block": id_block,
        "id-block-of-another-guest": id_block_of_another_guest,
        "decommission": decommission,
        "stale-context": stale_context,
        "tcb-report-more": tcb_report_more,
        "tcb-downgrade": tcb_downgrade,
    }
)
