"""Cases of a context that moves: by the guest itself, by its agent, and what the published firmware does not check."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from mh_builder.firmware.snp import PageType, SnpPage, WholeLaunch, pages_at
from mh_emulator.psp.snp.command import SnpGuestState
from mh_emulator.psp.snp.launch import LaunchFinish, LaunchStart
from mh_emulator.psp.snp.message import MessageType
from mh_emulator.psp.snp.metadata import SwapType
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy
from mh_emulator.psp.snp.swap import Swap
from mh_emulator.snp.channel import Channel
from mh_emulator.snp.host import SECRETS_GPA, Launched, SnpHost
from mh_emulator.snp.notes import Outcome
from mh_emulator.snp.stage import GPA, IMAGE, Stage

_WITH_AGENT = DEFAULT_POLICY | SnpPolicy.MIGRATE_MA
_KEY = bytes(range(32))
_NOT_THE_IMAGE = bytes(0x1000)


def export_itself(stage: Stage) -> Outcome:
    """a guest without an agent exports itself, and goes on running (IMI_EN)"""
    source = _source(stage)
    stage.export(Channel.of(stage.host, source), source.gctx, 1)
    return stage.last()


def export_itself_and_die(stage: Stage) -> Outcome:
    """a guest exports itself, and its context is gone before the answer arrives"""
    source = _source(stage)
    stage.export(Channel.of(stage.host, source), source.gctx, 0)
    return Outcome.REFUSED if stage.attempt(lambda: stage.host.psp.guest_status(source.gctx)) else Outcome.WORKS


def export_by_vmpl1(stage: Stage) -> Outcome:
    """VMPL1 exports the guest"""
    source = _source(stage)
    stage.export(Channel.of(stage.host, source, 1), source.gctx, 1)
    return stage.last()


def export_by_stranger(stage: Stage) -> Outcome:
    """a guest exports another one, whose agent it is not"""
    source, stranger = _source(stage), stage.guest()
    stage.export(Channel.of(stage.host, stranger), source.gctx, 1)
    return stage.last()


def export_by_agent(stage: Stage) -> Outcome:
    """an agent exports its guest, VMPCKs and VMRK included"""
    agent, guest = _bound(stage)
    blob = stage.export(Channel.of(stage.host, agent), guest.gctx, 0)
    has_keys = Channel.of(stage.host, guest).key == blob[0x50:0x70]
    return stage.last() if has_keys else Outcome.REFUSED


def export_by_agent_vmpl3(stage: Stage) -> Outcome:
    """code at VMPL3 of an agent exports the agent's guest: any VMPCK of the agent will do"""
    agent, guest = _bound(stage)
    stage.export(Channel.of(stage.host, agent, 3), guest.gctx, 1)
    return _trap(stage)


def export_by_replaced_agent(stage: Stage) -> Outcome:
    """the host puts a guest of its own into the page in which the agent's context was"""
    agent, guest = _bound(stage)
    stage.host.psp.decommission(agent.gctx)
    stage.host.psp.gctx_create(agent.gctx)
    impostor = stage.guest(start=LaunchStart(agent.gctx, DEFAULT_POLICY))
    stage.export(Channel.of(stage.host, impostor), guest.gctx, 1)
    return stage.last()


def export_with_agent_by_itself(stage: Stage) -> Outcome:
    """a guest that has an agent exports itself"""
    _, guest = _bound(stage)
    stage.export(Channel.of(stage.host, guest), guest.gctx, 1)
    return stage.last()


def import_(stage: Stage) -> Outcome:
    """an agent imports a guest that was swapped out whole, on another machine"""
    blob = _swapped_blob(stage)
    host = stage.another_host()
    agent, gctx = host.run(pages_at(GPA, IMAGE)), host.create()
    stage.bring(Channel.of(host, agent), MessageType.IMPORT_REQ, gctx, blob)
    host.psp.activate(gctx, 40)
    return Outcome.WORKS if host.psp.is_runnable(40) else Outcome.REFUSED


def import_without_pages(stage: Stage) -> Outcome:
    """a context comes in, but no page of the guest has been swapped out with it"""
    agent, guest = _bound(stage)
    channel = Channel.of(stage.host, agent)
    blob = stage.export(channel, guest.gctx, 0)
    stage.bring(channel, MessageType.IMPORT_REQ, stage.host.create(), blob)
    return stage.last()


def import_by_stranger(stage: Stage) -> Outcome:
    """a guest that is nobody's agent imports a context, and becomes its agent"""
    blob = _swapped_blob(stage)
    stranger = stage.guest()
    stage.bring(Channel.of(stage.host, stranger), MessageType.IMPORT_REQ, stage.host.create(), blob)
    return _trap(stage)


def absorb(stage: Stage) -> Outcome:
    """an agent puts a guest into a context that holds exactly the guest's incoming image"""
    host, target = _target(stage)
    _absorb(stage, host, target, host.run(pages_at(GPA, IMAGE)))
    return stage.last() if host.psp.is_runnable(target.asid) else Outcome.REFUSED


def absorb_other_image(stage: Stage) -> Outcome:
    """the target's host has launched another helper than the one in the guest's IMD"""
    host = stage.another_host()
    start = LaunchStart(host.create(), _WITH_AGENT, imi_en=True)
    target = host.start(WholeLaunch().marked(pages_at(GPA, IMAGE[::-1])), start)
    _absorb(stage, host, target, host.run(pages_at(GPA, IMAGE)))
    return stage.last()


def absorb_twice(stage: Stage) -> Outcome:
    """the same guest is put into the same context again, to roll it back"""
    host, target = _target(stage)
    agent = host.run(pages_at(GPA, IMAGE))
    blob = _blob(stage)
    channel = Channel.of(host, agent)
    for _ in range(2):
        stage.bring(channel, MessageType.ABSORB_REQ, target.gctx, blob)
    return stage.last()


def absorb_by_stranger(stage: Stage) -> Outcome:
    """ABSORB asks neither for the agent nor for MIGRATE_MA: who has the blob owns the guest anyway"""
    host = stage.another_host()
    agent = host.run(pages_at(GPA, IMAGE))
    target = host.start(_image(), LaunchStart(host.create(), _WITH_AGENT, agent.gctx, imi_en=True))
    _absorb(stage, host, target, host.run(pages_at(GPA, IMAGE)))
    return _trap(stage)


def absorb_noma(stage: Stage) -> Outcome:
    """a helper that was launched as the incoming image becomes the guest, and has its keys from then on"""
    source = _source(stage)
    blob = stage.export(Channel.of(stage.host, source), source.gctx, 1)
    host, helper = _launched_image(stage)
    stage.bring(Channel.of(host, helper), MessageType.ABSORB_NOMA_REQ, 0, blob)
    return stage.last()


def absorb_noma_beside_the_image(stage: Stage) -> Outcome:
    """the target was launched with a page beside the incoming image: LD is not IMD"""
    source = _source(stage)
    blob = stage.export(Channel.of(stage.host, source), source.gctx, 1)
    host = stage.another_host()
    helper = host.run([*_image(), SnpPage(PageType.NORMAL, 0, _NOT_THE_IMAGE)])
    stage.bring(Channel.of(host, helper), MessageType.ABSORB_NOMA_REQ, 0, blob)
    return stage.last()


def absorb_noma_by_vmpl3(stage: Stage) -> Outcome:
    """code at VMPL3 with VMPCK3 overwrites the whole context: a helper must not leave lower VMPCKs to others"""
    source = _source(stage)
    blob = stage.export(Channel.of(stage.host, source), source.gctx, 1)
    host, helper = _launched_image(stage)
    stage.bring(Channel.of(host, helper, 3), MessageType.ABSORB_NOMA_REQ, 0, blob)
    return _trap(stage)


def two_copies(stage: Stage) -> Outcome:
    """after EXPORT with IMI_EN source and target both run: only the helper can keep the source silent"""
    source = _source(stage)
    blob = stage.export(Channel.of(stage.host, source), source.gctx, 1)
    host, helper = _launched_image(stage)
    stage.bring(Channel.of(host, helper), MessageType.ABSORB_NOMA_REQ, 0, blob)
    states = {stage.host.psp.guest_status(source.gctx).state, host.psp.guest_status(helper.gctx).state}
    return Outcome.SUCCEEDS if states == {SnpGuestState.RUNNING} else Outcome.REFUSED


def keys_after_a_move(stage: Stage) -> Outcome:
    """keys of the VMRK are the same on the target, keys of the chip are lost"""
    source = _source(stage)
    channel = Channel.of(stage.host, source)
    before = _keys(stage, channel)
    blob = stage.export(channel, source.gctx, 1)
    host, helper = _launched_image(stage)
    stage.bring(Channel.of(host, helper), MessageType.ABSORB_NOMA_REQ, 0, blob)
    after = _keys(stage, Channel(host, helper.gctx, channel.key, count=channel.count))
    return Outcome.WORKS if before[0] != after[0] and before[1] == after[1] else Outcome.REFUSED


def vmrk(stage: Stage) -> Outcome:
    """an agent chooses the root of keys of its guest in launch"""
    return _set_vmrk(stage, 0)


def vmrk_by_stranger(stage: Stage) -> Outcome:
    """another guest chooses the root of keys"""
    return _set_vmrk(stage, 1)


def _set_vmrk(stage: Stage, by_stranger: int) -> Outcome:
    agents = stage.guest(), stage.guest()
    guest = stage.host.start(_image(), LaunchStart(stage.host.create(), _WITH_AGENT, agents[0].gctx))
    channel = Channel.of(stage.host, agents[by_stranger])
    stage.ask(channel, MessageType.VMRK_REQ, struct.pack("<Q24x", guest.gctx) + _KEY)
    return stage.last()


def _keys(stage: Stage, channel: Channel) -> list[bytes]:
    """A key of the chip, and one of the VMRK."""
    requests = [struct.pack("<IIQIIQ", root, 0, 0, 0, 0, 0) for root in (0, 1)]
    return [stage.ask(channel, MessageType.KEY_REQ, request) for request in requests]


def _trap(stage: Stage) -> Outcome:
    return Outcome.SUCCEEDS if stage.last() is Outcome.WORKS else Outcome.REFUSED


def _image() -> list[SnpPage]:
    return WholeLaunch().marked([*pages_at(GPA, IMAGE), SnpPage(PageType.SECRETS, SECRETS_GPA)])


def _source(stage: Stage) -> Launched:
    """A guest with firmware beside the incoming image."""
    return stage.guest([*_image(), SnpPage(PageType.NORMAL, 0, _NOT_THE_IMAGE)])


def _launched_image(stage: Stage) -> tuple[SnpHost, Launched]:
    host = stage.another_host()
    return host, host.run(_image())


def _target(stage: Stage) -> tuple[SnpHost, Launched]:
    """A context with the incoming image, which waits for a guest."""
    host = stage.another_host()
    return host, host.start(_image(), LaunchStart(host.create(), _WITH_AGENT, imi_en=True))


def _bound(stage: Stage) -> tuple[Launched, Launched]:
    """An agent, and a running guest of its own."""
    agent = stage.guest()
    start = LaunchStart(stage.host.create(), _WITH_AGENT, agent.gctx)
    guest = stage.host.start([*_image(), SnpPage(PageType.NORMAL, 0, _NOT_THE_IMAGE)], start)
    stage.host.psp.launch_finish(LaunchFinish(guest.gctx))
    return agent, guest


def _blob(stage: Stage) -> bytes:
    agent, guest = _bound(stage)
    return stage.export(Channel.of(stage.host, agent), guest.gctx, 1)


def _swapped_blob(stage: Stage) -> bytes:
    """The context of a guest with a METADATA page that has left: its entry is the root."""
    agent, guest = _bound(stage)
    page, out = stage.host.donate(), stage.host.donate()
    stage.host.psp.md_init(guest.gctx, page)
    stage.host.psp.swap_out(Swap(guest.gctx, page, out, None, SwapType.METADATA))
    return stage.export(Channel.of(stage.host, agent), guest.gctx, 0)


def _absorb(stage: Stage, host: SnpHost, target: Launched, agent: Launched) -> None:
    blob = _blob(stage)
    stage.bring(Channel.of(host, agent), MessageType.ABSORB_REQ, target.gctx, blob)


MOVES: Mapping[str, Callable[[Stage], Outcome]] = MappingProxyType(
    {
        "export-itself": export_itself,
        "export-itself-and-die": export_itself_and_die,
        "export-by-vmpl1": export_by_vmpl1,
        "export-by-stranger": export_by_stranger,
        "export-by-agent": export_by_agent,
        "export-by-agent-vmpl3": export_by_agent_vmpl3,
        "export-by-replaced-agent": export_by_replaced_agent,
        "export-with-agent-by-itself": export_with_agent_by_itself,
        "import": import_,
        "import-without-pages": import_without_pages,
        "import-by-stranger": import_by_stranger,
        "absorb": absorb,
        "absorb-other-image": absorb_other_image,
        "absorb-twice": absorb_twice,
        "absorb-by-stranger": absorb_by_stranger,
        "absorb-noma": absorb_noma,
        "absorb-noma-beside-the-image": absorb_noma_beside_the_image,
        "absorb-noma-by-vmpl3": absorb_noma_by_vmpl3,
        "two-copies": two_copies,
        "keys-after-a-move": keys_after_a_move,
        "vmrk": vmrk,
        "vmrk-by-stranger": vmrk_by_stranger,
    }
)
