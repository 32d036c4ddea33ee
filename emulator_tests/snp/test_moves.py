"""The context of a guest moves: by itself, by its agent, and by whom it should not."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.asymmetric import ec

from emulator_tests.psp.rig import status
from emulator_tests.snp.foreign import (
    ABSORB,
    IMPORT,
    NOMA,
    REPORT,
    TSC,
    VMRK,
    Line,
    key,
    message,
    pages,
    parse_report,
    running,
)
from mh_builder.firmware.snp import PageType, SnpPage, WholeLaunch, pages_at
from mh_builder.parts import PARTS
from mh_emulator.psp.snp.command import SnpGuestState
from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.id_block import IdBlock, sign_id_block
from mh_emulator.psp.snp.launch import LaunchFinish, LaunchStart
from mh_emulator.psp.snp.metadata import SwapType
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy
from mh_emulator.psp.snp.swap import Swap
from mh_emulator.psp.status import Status
from mh_emulator.rmp.entry import PageState
from mh_emulator.snp.host import SECRETS_GPA, Launched, SnpHost

S = Status


def state(line: Line) -> SnpGuestState:
    return line.host.psp.guest_status(line.guest.gctx).state


def incoming(seed: int = 7) -> Line:
    """A guest of the incoming image alone, as a target is and, here, a source too."""
    host = SnpHost(PARTS["milan"], seed)
    marked = WholeLaunch().marked([*pages(), SnpPage(PageType.SECRETS, SECRETS_GPA)])
    return Line(host, host.run(marked))


def test_export_of_oneself_and_absorb_without_an_agent() -> None:
    source, target = incoming(), incoming(8)
    before = source.report()
    told, blob = source.export(source.guest.gctx, 1)
    assert told == S.SUCCESS
    assert state(source) is SnpGuestState.RUNNING
    assert target.bring(NOMA, 0, blob) == S.SUCCESS
    old_key = target.key
    assert target.give(message(old_key, 3, REPORT, bytes(0x60)))[0] is S.BAD_MEASUREMENT
    # The counts are those before the source's EXPORT, and ABSORB_NOMA itself has been counted on top.
    after = Line(target.host, target.guest, count=source.count, key=source.key)
    fields = parse_report(after.report())
    assert fields["measurement"] == parse_report(before)["measurement"]
    assert fields["chip_id"] != parse_report(before)["chip_id"]
    assert key(source, 1)[1] == key(after, 1)[1]
    assert key(source)[1] != key(after)[1]
    # Two copies run: only the helper can prevent that.
    assert state(source) is state(target) is SnpGuestState.RUNNING
    # Exported before IMI_EN, it dies inside of the call, and the answer still arrives.
    assert source.export(source.guest.gctx, 0)[0] == S.SUCCESS
    assert source.host.rmp.state(source.guest.gctx) is PageState.FIRMWARE
    assert status(lambda: source.host.psp.guest_status(source.guest.gctx)) is S.INVALID_GUEST


def test_double_absorb() -> None:
    """The digest of the whole guest is not that of its image, so what has absorbed a guest absorbs no other one."""
    source = running()
    marked = WholeLaunch().marked(pages())
    host = source.host
    whole = host.start([*marked, *pages_at(0x20_0000, bytes(4096))])
    host.psp.launch_finish(LaunchFinish(whole.gctx))
    line = Line(host, whole)
    _, blob = line.export(whole.gctx, 1)
    target_host = SnpHost(PARTS["milan"], 12)
    target = target_host.start(marked, LaunchStart(target_host.create(), DEFAULT_POLICY, imi_en=True))
    imd = host.psp._sp.guests[whole.gctx].digest.imd
    assert blob[0x190:0x1C0] == imd
    agent = Line(target_host, target_host.run(pages()))
    assert agent.bring(ABSORB, target.gctx, blob) == S.BAD_MEASUREMENT
    fitting = blob[:0x190] + target_host.psp._sp.guests[target.gctx].digest.ld + blob[0x1C0:]
    assert agent.bring(ABSORB, target.gctx, fitting, version=2) == S.INVALID_PARAM
    assert agent.bring(ABSORB, target.gctx, fitting) == S.SUCCESS
    assert target_host.psp.is_runnable(target.asid)
    assert agent.bring(ABSORB, target.gctx, fitting) == S.INVALID_GUEST_STATE
    own = incoming(13)
    assert own.bring(NOMA, 0, fitting) == S.SUCCESS
    absorbed = Line(own.host, own.guest, key=line.key, count=line.count)
    assert absorbed.bring(NOMA, 0, fitting) == S.BAD_MEASUREMENT


def test_agent() -> None:
    """EXPORT, VMRK and IMPORT of a guest with a migration agent, and who else may not."""
    host = SnpHost(PARTS["milan"], 5)
    agent, stranger = (Line(host, host.run(pages())) for _ in range(2))
    policy = DEFAULT_POLICY | SnpPolicy.MIGRATE_MA
    guest = host.start(pages(), LaunchStart(host.create(), policy, agent.guest.gctx))
    vmrk = struct.pack("<Q24x", guest.gctx) + b"k" * 32
    assert [line.ask(VMRK, vmrk)[0] for line in (agent, stranger)] == [S.SUCCESS, S.INVALID_GUEST]
    assert Line(host, agent.guest, vmpck=1).ask(VMRK, vmrk)[0] == S.INVALID_PARAM
    assert agent.export(guest.gctx, 1)[0] == S.INVALID_GUEST_STATE
    host.psp.launch_finish(LaunchFinish(guest.gctx))
    line = Line(host, guest)
    assert agent.ask(VMRK, vmrk)[0] == S.INVALID_GUEST_STATE
    assert parse_report(line.report())["report_id_ma"] == parse_report(agent.report())["report_id"]
    assert [other.export(guest.gctx, 1)[0] for other in (stranger, line)] == [S.INVALID_GUEST] * 2
    assert Line(host, agent.guest, vmpck=3).export(guest.gctx, 1)[0] == S.SUCCESS
    told, blob = agent.export(guest.gctx, 0)
    assert (told, blob[0xD0:0xF0]) == (S.SUCCESS, b"k" * 32)
    assert host.rmp.state(guest.gctx) is PageState.FIRMWARE
    assert agent.export(guest.gctx, 0)[0] == S.INVALID_GUEST
    gctx = host.create()
    assert agent.bring(IMPORT, gctx, blob) == S.INVALID_MDATA_ENTRY
    with_root = blob[:0x200] + b"\1" + blob[0x201:]
    assert stranger.bring(IMPORT, gctx, with_root, size=0x2FF) == S.INVALID_PARAM
    # Whoever has the blob imports it, agent or not.
    assert stranger.bring(IMPORT, gctx, with_root) == S.SUCCESS
    assert stranger.bring(IMPORT, gctx, with_root) == S.INVALID_GUEST_STATE
    host.psp.activate(gctx, 50)
    assert host.psp.is_runnable(50)
    back = Line(host, Launched(gctx, 50, {}), key=line.key, count=struct.unpack_from("<Q", blob, 0x1C0)[0])
    ids = parse_report(back.report())
    assert ids["report_id_ma"] == parse_report(stranger.report())["report_id"]
    assert ids["report_id"] != blob[0x170:0x190]
    assert agent.export(gctx, 1)[0] == S.INVALID_GUEST


def context(line: Line) -> SnpGuest:
    return line.host.psp._sp.guests[line.guest.gctx]


REPORT_ID, FLAGS, ID_BLOCK, COUNTS = slice(0x170, 0x190), slice(0x220, 0x228), slice(0x240, 0x2A0), slice(0x1C0, 0x1E0)


def without(blob: bytes, *fields: slice) -> bytes:
    rest = bytearray(blob)
    for field in fields:
        rest[field] = bytes(field.stop - field.start)
    return bytes(rest)


def identified(host: SnpHost, start: LaunchStart) -> Line:
    """A running guest of the incoming image alone with an ID block, which has used every part of its context."""
    guest = host.start(WholeLaunch().marked([*pages(), SnpPage(PageType.SECRETS, SECRETS_GPA)]), start)
    ld = host.psp._sp.guests[guest.gctx].digest.ld
    block = IdBlock(ld, b"f" * 16, b"i" * 16, 1, 9, start.policy)
    keys = [ec.derive_private_key(number, ec.SECP384R1()) for number in (21, 22)]
    spas = host.page(block.pack()), host.page(sign_id_block(block, *keys))
    host.psp.launch_finish(LaunchFinish(guest.gctx, *spas, author_key_en=True, vcek_dis=True, host_data=b"h" * 32))
    mdata, out = host.donate(), host.donate()
    host.psp.md_init(guest.gctx, mdata)
    host.psp.swap_out(Swap(guest.gctx, mdata, out, None, SwapType.METADATA, software_data=5))
    host.psp._sp.guests[guest.gctx].tsc_offset = 99
    for vmpck in range(4):
        for _ in range(vmpck + 1):
            Line(host, guest, vmpck, host.psp._sp.guests[guest.gctx].message_counts[vmpck]).ask(TSC, bytes(0x80))
    return Line(host, guest, count=2)


def test_all_of_a_context_arrives() -> None:
    """What IMPORT, and what ABSORB_NOMA, takes of an exported context: the latter neither ID block nor its flags."""
    host = SnpHost(PARTS["milan"], 5)
    agent = Line(host, host.run(pages()))
    policy = DEFAULT_POLICY | SnpPolicy.MIGRATE_MA
    start = LaunchStart(host.create(), policy, agent.guest.gctx, tsc_khz=1_000_000, gosvw=b"g" * 16)
    line = identified(host, start)
    exported = context(line).export()
    assert [struct.unpack_from("<Q", exported, 0x1C0 + 8 * n)[0] for n in range(4)] == [2, 4, 6, 8]
    assert not any(exported[at : at + 8] == bytes(8) for at in range(0, 0x1E0, 8))
    assert agent.export(line.guest.gctx, 1) == (S.SUCCESS, without(exported, slice(0x1E0, 0x220)))
    blob = agent.export(line.guest.gctx, 0)[1]
    assert blob == exported
    gctx = host.create()
    assert agent.bring(IMPORT, gctx, blob) == S.SUCCESS
    imported = host.psp._sp.guests[gctx].export()
    assert without(imported, REPORT_ID, FLAGS) == without(blob, REPORT_ID, FLAGS)
    assert (blob[0x220], imported[0x220]) == (0b111, 0b011)
    target = incoming(8)
    assert target.bring(NOMA, 0, blob) == S.SUCCESS
    absorbed = context(target).export()
    changed = REPORT_ID, FLAGS, ID_BLOCK, COUNTS
    assert without(absorbed, *changed) == without(blob, *changed)
    assert (absorbed[FLAGS], absorbed[ID_BLOCK]) == (bytes(8), bytes(0x60))
    assert struct.unpack("<4Q", absorbed[COUNTS]) == (4, 4, 6, 8)


def test_both_digests_of_the_target_count() -> None:
    """A launch without marks has the right LD for whoever makes up the IMD, but no IMD of its own."""
    target = running()
    source = incoming()
    _, blob = source.export(source.guest.gctx, 1)
    made_up = blob[:0x190] + context(target).digest.ld + blob[0x1C0:]
    assert target.bring(NOMA, 0, made_up) == S.BAD_MEASUREMENT
    assert target.bring(NOMA, 0, blob) == S.BAD_MEASUREMENT


def test_a_target_that_has_swapped_absorbs_nobody() -> None:
    host = SnpHost(PARTS["milan"], 5)
    agent, source = Line(host, host.run(pages())), incoming()
    marked = WholeLaunch().marked([*pages(), SnpPage(PageType.SECRETS, SECRETS_GPA)])
    target = host.start(marked, LaunchStart(host.create(), DEFAULT_POLICY, imi_en=True))
    _, blob = source.export(source.guest.gctx, 1)
    mdata, out = host.donate(), host.donate()
    host.psp.md_init(target.gctx, mdata)
    host.psp.swap_out(Swap(target.gctx, mdata, out, None, SwapType.METADATA))
    assert agent.bring(ABSORB, target.gctx, blob) == S.INVALID_MDATA_ENTRY
    host.psp.swap_in(Swap(target.gctx, out, host.donate(), None, SwapType.METADATA))
    assert agent.bring(ABSORB, target.gctx, blob) == S.SUCCESS
