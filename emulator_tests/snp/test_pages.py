"""Pages that leave memory, come back, move, are joined, and are looked into."""

from __future__ import annotations

import struct

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from emulator_tests.psp.rig import status
from mh_builder.firmware.snp import SnpPage, pages_at, vmsa_page
from mh_builder.parts import PARTS
from mh_emulator.psp.snp.launch import LaunchStart
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy
from mh_emulator.psp.snp.swap import PageMove, Swap
from mh_emulator.psp.status import Status
from mh_emulator.rmp.access import Access, Guest, Kind, guest_access, vmrun
from mh_emulator.rmp.entry import ALL_PERMS, NO_PERMS, PageSize, PageState, Perm
from mh_emulator.rmp.instructions import GuestPage, NewState, psmash, pvalidate, rmpadjust
from mh_emulator.snp.host import Launched, SnpHost

S = Status
GPA, OTHER = 0x10_0000, 0x10_1000
DATA = bytes(range(256)) * 16
PAGE, LARGE = 0x1000, 0x20_0000


class Scene:
    """A running guest with one METADATA page."""

    def __init__(self, policy: int = DEFAULT_POLICY) -> None:
        self.host = SnpHost(PARTS["milan"], 5)
        pages = [SnpPage(1, GPA, DATA, vmpl=(3, 1, 0)), *pages_at(OTHER, DATA[::-1])]  # type: ignore[arg-type]
        start = LaunchStart(self.host.create(), policy)
        self.guest: Launched = self.host.run([*pages, vmsa_page(b"p" * PAGE)], start)
        self.md = self.host.donate()
        self.host.psp.md_init(self.guest.gctx, self.md)

    def freeze(self, gpa: int = GPA) -> int:
        """Make a page of the guest immutable, as it is."""
        spa = self.guest.pages[gpa]
        self.host.update(spa, NewState(True, gpa, immutable=True, asid=self.guest.asid))
        return spa

    def out(self, source: int, kind: int = 0, mdata: int | None = 0) -> int:
        """Swap a page out; return where it went."""
        destination = self.host.donate()
        entry = None if mdata is None else self.md + mdata
        self.host.psp.swap_out(Swap(self.guest.gctx, source, destination, entry, kind, software_data=77))
        return destination

    def back(self, source: int, gpa: int = 0x77_0000, kind: int = 0, mdata: int | None = 0) -> tuple[Status, int]:
        """Swap a page in, to a fresh page that the host has assigned to any GPA."""
        destination = self.host.donate() if kind == 1 else self.host.give(self.guest.asid, gpa)
        entry = None if mdata is None else self.md + mdata
        swap = Swap(self.guest.gctx, source, destination, entry, kind)
        return status(lambda: self.host.psp.swap_in(swap)), destination

    def read(self, spa: int) -> bytes:
        return self.host.dram.read_private(self.guest.asid, spa, PAGE)


def test_a_page_that_left_comes_back_as_it_was() -> None:
    scene = Scene()
    source = scene.freeze()
    stored = scene.out(source)
    assert scene.host.rmp.state(source) is PageState.PRE_GUEST
    software, iv = struct.unpack("<QQ", scene.host.dram.read_raw(scene.md, 16))
    tag = scene.host.dram.read_raw(scene.md + 16, 16)
    word, perms = struct.unpack("<Q4s", scene.host.dram.read_raw(scene.md + 0x20, 12))
    assert (software, iv, word, perms) == (77, 0, GPA | 0b11, b"\x1f\x03\x01\x00")
    oek = scene.host.psp._sp.guests[scene.guest.gctx].oek
    decryptor = Cipher(algorithms.AES(oek), modes.GCM(struct.pack("<QI", iv, 0), tag)).decryptor()
    assert decryptor.update(scene.host.dram.read_raw(stored, PAGE)) + decryptor.finalize() == DATA
    told, page = scene.back(stored)
    entry = scene.host.rmp.entry(page)
    assert (told, scene.read(page), entry.state, entry.gpa) == (S.SUCCESS, DATA, PageState.PRE_SWAP, GPA)
    assert entry.perms == (ALL_PERMS, Perm(3), Perm(1), NO_PERMS)
    scene.out(scene.freeze(OTHER), mdata=0x40)
    assert struct.unpack("<Q", scene.host.dram.read_raw(scene.md + 0x48, 8)) == (1,)
    scene.host.psp.page_reclaim(page)
    access = Access(Kind.READ, GPA, page)
    assert guest_access(scene.host.rmp, Guest(scene.guest.asid), access) is None


def test_swap_replay() -> None:
    """Neither an old page nor an old entry can be brought back."""
    scene = Scene()
    source = scene.freeze()
    old = scene.out(source)
    old_bytes, old_entry = scene.host.dram.read_raw(old, PAGE), scene.host.dram.read_raw(scene.md, 64)
    told, page = scene.back(old)
    assert told is S.SUCCESS
    assert scene.back(old)[0] is S.INVALID_MDATA_ENTRY
    scene.host.dram.write_private(scene.guest.asid, page, DATA[::-1])
    new = scene.out(page)
    assert scene.back(old)[0] is S.BAD_MEASUREMENT
    # The host cannot write the entry: its page is assigned. Had it a page of its own with the old entry in it, it
    # could not make that a METADATA page.
    own = scene.host.page(old_entry)
    scene.host.update(own, NewState(True, immutable=True))
    swap = Swap(scene.guest.gctx, scene.host.page(old_bytes), scene.host.give(scene.guest.asid, GPA), own)
    assert status(lambda: scene.host.psp.swap_in(swap)) is S.INVALID_PAGE_STATE
    scene.host.psp.md_init(scene.guest.gctx, own)
    assert status(lambda: scene.host.psp.swap_in(swap)) is S.INVALID_MDATA_ENTRY
    assert scene.back(new)[0] is S.SUCCESS


def test_entries_leave_too_and_the_root_is_in_the_context() -> None:
    scene = Scene()
    stored = scene.out(scene.freeze(), mdata=0x40)
    entries = scene.out(scene.md, 1, None)
    assert scene.host.rmp.state(scene.md) is PageState.FIRMWARE
    told, scene.md = scene.back(entries, kind=1, mdata=None)
    assert (told, scene.host.rmp.state(scene.md)) == (S.SUCCESS, PageState.METADATA)
    assert scene.back(entries, kind=1, mdata=None)[0] is S.INVALID_MDATA_ENTRY
    assert scene.read(scene.back(stored, mdata=0x40)[1]) == DATA


def test_a_vmsa_leaves_as_what_the_host_calls_it() -> None:
    """The published firmware compares the type with the entry, and neither with the RMP: data become a VMSA."""
    scene = Scene()
    vmsa = scene.freeze(0xFFFF_FFFF_F000)
    assert scene.host.rmp.entry(vmsa).vmsa
    stored = scene.out(vmsa, 2)
    assert scene.back(stored)[0] is S.INVALID_MDATA_ENTRY
    told, page = scene.back(stored, kind=2)
    assert (told, scene.host.rmp.entry(page).vmsa, scene.read(page)) == (S.SUCCESS, True, b"p" * PAGE)
    data = scene.out(scene.freeze(), 2, 0x40)
    told, page = scene.back(data, kind=2, mdata=0x40)
    assert told is S.SUCCESS
    scene.host.psp.page_reclaim(page)
    assert vmrun(scene.host.rmp, Guest(scene.guest.asid), page)


def test_what_was_not_validated_comes_back_so() -> None:
    scene = Scene()
    spa = scene.host.give(scene.guest.asid, 0x50_0000)
    told, page = scene.back(scene.out(spa))
    assert (told, scene.host.rmp.state(page)) == (S.SUCCESS, PageState.PRE_GUEST)


def test_swap_in_place() -> None:
    scene = Scene()
    spa = scene.freeze()
    sealed = scene.host.dram.read_raw(scene.out(spa), PAGE)
    scene.host.psp.page_reclaim(spa)
    scene.host.update(spa, NewState(False))
    scene.host.dram.write_raw(spa, sealed)
    scene.host.update(spa, NewState(True, 0x9000, immutable=True, asid=scene.guest.asid))
    scene.host.psp.swap_in(Swap(scene.guest.gctx, spa, spa, scene.md, in_place=True))
    assert (scene.read(spa), scene.host.rmp.entry(spa).gpa) == (DATA, GPA)


def test_number_of_pages_that_can_leave() -> None:
    scene = Scene()
    scene.host.psp._sp.guests[scene.guest.gctx].oek_iv = (1 << 64) - 2
    with pytest.raises(Exception, match="SNP_SWAP_OUT: AEAD_OFLOW"):
        scene.out(scene.freeze())


def test_page_move_changes_nothing_but_the_place() -> None:
    scene = Scene()
    source, target = scene.freeze(), scene.host.give(scene.guest.asid, 0x66_0000)
    before = scene.host.rmp.entry(source)
    scene.host.psp.page_move(PageMove(scene.guest.gctx, source, target))
    after = scene.host.rmp.entry(target)
    assert (after.state, after.gpa, after.perms) == (PageState.GUEST_VALID, GPA, before.perms)
    assert scene.read(target) == DATA
    assert scene.host.rmp.state(source) is PageState.GUEST_INVALID


def test_two_mib_joined_swapped_and_smashed() -> None:
    scene = Scene(DEFAULT_POLICY | SnpPolicy.DEBUG)
    host, guest = scene.host, Guest(scene.guest.asid)
    head = host.large_page()
    gpa = 0x4000_0000
    for offset in range(0, LARGE, PAGE):
        host.update(head + offset, NewState(True, gpa + offset, asid=guest.asid))
        assert pvalidate(host.rmp, guest, GuestPage(gpa + offset, head + offset), validated=True) == (0, False)
    host.dram.write_private(guest.asid, head + LARGE - PAGE, DATA)
    assert status(lambda: host.psp.page_unsmash(head)) is S.INVALID_PAGE_STATE
    rmpadjust(host.rmp, guest, GuestPage(gpa + PAGE, head + PAGE), 1, Perm.READ)
    for offset in range(0, LARGE, PAGE):
        host.update(head + offset, NewState(True, gpa + offset, immutable=True, asid=guest.asid))
    assert status(lambda: host.psp.page_unsmash(head)) is S.INVALID_PAGE_STATE
    host.psp.page_reclaim(head + PAGE)
    rmpadjust(host.rmp, guest, GuestPage(gpa + PAGE, head + PAGE), 1, NO_PERMS)
    host.update(head + PAGE, NewState(True, gpa + PAGE, immutable=True, asid=guest.asid))
    host.psp.page_unsmash(head)
    assert (host.rmp.state(head), host.rmp.entry(head).size) == (PageState.PRE_SWAP, PageSize.LARGE)
    assert status(lambda: host.psp.page_unsmash(head)) is S.INVALID_PAGE_STATE
    seen = host.donate()
    host.psp.dbg_decrypt(scene.guest.gctx, head + LARGE - PAGE, seen)
    assert host.dram.read_raw(seen, PAGE) == DATA
    out, back = host.large_page(), host.large_page()
    host.update(out, NewState(True, immutable=True, size=PageSize.LARGE))
    host.update(back, NewState(True, 0, PageSize.LARGE, immutable=True, asid=guest.asid))
    host.psp.swap_out(Swap(scene.guest.gctx, head, out, scene.md, size=PageSize.LARGE))
    host.psp.swap_in(Swap(scene.guest.gctx, out, back, scene.md, size=PageSize.LARGE))
    assert scene.read(back + LARGE - PAGE) == DATA
    host.psp.page_reclaim(back, PageSize.LARGE)
    assert psmash(host.rmp, back) == 0
    assert guest_access(host.rmp, guest, Access(Kind.READ, gpa + PAGE, back + PAGE)) is None


@pytest.mark.parametrize("policy", [DEFAULT_POLICY, DEFAULT_POLICY | SnpPolicy.DEBUG])
def test_debugging_only_where_the_owner_allows_it(policy: int) -> None:
    scene = Scene(policy)
    host, gctx = scene.host, scene.guest.gctx
    seen, page = host.donate(), scene.guest.pages[GPA]
    told = S.SUCCESS if policy & SnpPolicy.DEBUG else S.POLICY_FAILURE
    assert status(lambda: host.psp.dbg_decrypt(gctx, page, seen)) is told
    assert (host.dram.read_raw(seen, PAGE) == DATA) is (told is S.SUCCESS)
    frozen = scene.freeze(OTHER)
    assert status(lambda: host.psp.dbg_encrypt(gctx, host.page(b"x" * PAGE), frozen)) is told
    assert (scene.read(frozen) == b"x" * PAGE) is (told is S.SUCCESS)


def test_a_page_of_another_guest() -> None:
    scene = Scene(DEFAULT_POLICY | SnpPolicy.DEBUG)
    other = scene.host.run(pages_at(GPA, DATA), LaunchStart(scene.host.create(), DEFAULT_POLICY | SnpPolicy.DEBUG))
    page, out = scene.freeze(), scene.host.donate()
    calls = [
        lambda: scene.host.psp.dbg_decrypt(other.gctx, page, out),
        lambda: scene.host.psp.dbg_encrypt(other.gctx, scene.host.page(), page),
        lambda: scene.host.psp.swap_out(Swap(other.gctx, page, out, None)),
        lambda: scene.host.psp.swap_out(Swap(other.gctx, page, out, scene.md)),
        lambda: scene.host.psp.swap_out(Swap(other.gctx, scene.md, out, None, 1)),
        lambda: scene.host.psp.page_move(PageMove(other.gctx, page, scene.host.give(other.asid, 0x1000))),
    ]
    assert [status(call) for call in calls] == [S.INVALID_PAGE_OWNER] * len(calls)
