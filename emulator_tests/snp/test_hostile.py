"""Noise instead of messages, contexts and entries; sizes and boards that do not fit: a status, and nothing else."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emulator_tests.psp.rig import status
from emulator_tests.snp.foreign import GPA, IMPORT, NOMA, REPORT, Line, message, pages, running
from mh_builder.firmware.snp import PageType, SnpPage, WholeLaunch
from mh_builder.parts import PARTS
from mh_emulator.dram.dram import Dram
from mh_emulator.psp.snp.firmware import SnpFirmware
from mh_emulator.psp.snp.launch import LaunchStart, LaunchUpdate
from mh_emulator.psp.snp.metadata import Mdata
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy
from mh_emulator.psp.snp.processor import Board
from mh_emulator.psp.snp.swap import Swap
from mh_emulator.psp.status import Status
from mh_emulator.rmp.entry import PageSize
from mh_emulator.rmp.instructions import NewState
from mh_emulator.rmp.table import Rmp
from mh_emulator.snp.host import SECRETS_GPA, SnpHost

S = Status
LARGE = 0x20_0000
KINDS = range(1, 18, 2)


def target() -> Line:
    """A guest that may absorb."""
    host = SnpHost(PARTS["turin"], 4)
    return Line(host, host.run(WholeLaunch().marked([*pages(), SnpPage(PageType.SECRETS, SECRETS_GPA)])))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(kind=st.sampled_from(KINDS), payload=st.binary(min_size=1, max_size=0x400))
@example(kind=1, payload=struct.pack("<IIQ", 64, 0, 0))
@example(kind=1, payload=struct.pack("<IIQ", (1 << 32) - 1, 0, 0))
def test_noise_as_a_request(kind: int, payload: bytes) -> None:
    line = target()
    told, _ = line.ask(kind, payload)
    assert told in set(Status)
    if line.host.psp._sp.guests.get(line.guest.gctx) is not None and told:
        assert line.report()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(noise=st.binary(max_size=0x200), offset=st.integers(0, 0x1F))
def test_noise_as_a_page(noise: bytes, offset: int) -> None:
    line = target()
    told, _ = line.give(noise, offset)
    assert told in (S.INVALID_PARAM, S.BAD_MEASUREMENT)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(noise=st.binary(min_size=0x300, max_size=0x300), counts=st.integers(0, (1 << 64) - 1))
@example(noise=b"\xff" * 0x300, counts=(1 << 64) - 1)
def test_noise_as_a_context(noise: bytes, counts: int) -> None:
    """Whoever is believed to have exported it: the answer comes, and the guest can be exported again, and asked."""
    line = target()
    imd = line.host.psp._sp.guests[line.guest.gctx].digest.imd
    blob = noise[:0x190] + imd + struct.pack("<4Q", *[counts] * 4) + noise[0x1E0:]
    assert line.bring(NOMA, 0, blob) == S.SUCCESS
    guest = line.host.psp._sp.guests[line.guest.gctx]
    assert len(guest.export()) == 0x300
    count = (counts + 2) % (1 << 64)
    after = replace(line, key=noise[0x50:0x70], count=count)
    asked = after.give(message(after.key, (count + 1) % (1 << 64), REPORT, bytes(0x60)))[0]
    assert asked is (S.AEAD_OFLOW if count == (1 << 64) - 2 else S.SUCCESS)
    other = running()
    told = other.bring(IMPORT, other.host.create(), noise)
    assert told in (S.SUCCESS, S.INVALID_MDATA_ENTRY)


@given(noise=st.binary(min_size=64, max_size=64))
def test_noise_as_an_entry(noise: bytes) -> None:
    entry = Mdata.parse(noise)
    assert Mdata.parse(entry.pack()) == entry


def with_large() -> tuple[SnpHost, int, int, int]:
    """A host, a guest in launch, 2 MiB of the guest's, and 2 MiB of the firmware's."""
    host = SnpHost(PARTS["milan"], 4)
    guest = host.start(pages())
    own, other = host.large_page(), host.large_page()
    host.update(own, NewState(True, 0x4000_0000, PageSize.LARGE, immutable=True, asid=guest.asid))
    host.update(other, NewState(True, immutable=True, size=PageSize.LARGE))
    return host, guest.gctx, own, other


LU = LaunchUpdate
SIZES: dict[str, tuple[Callable[[SnpHost, int, int, int], object], Status]] = {
    "VMSA": (lambda h, g, own, _o: h.psp.launch_update(LU(g, own, 2, PageSize.LARGE)), S.INVALID_PAGE_SIZE),
    "SECRETS": (lambda h, g, own, _o: h.psp.launch_update(LU(g, own, 5, PageSize.LARGE)), S.INVALID_PAGE_SIZE),
    "CPUID": (lambda h, g, own, _o: h.psp.launch_update(LU(g, own, 6, PageSize.LARGE)), S.INVALID_PAGE_SIZE),
    "other size": (lambda h, g, own, _o: h.psp.launch_update(LU(g, own)), S.INVALID_PAGE_SIZE),
    "behind the first": (lambda h, g, own, _o: h.psp.launch_update(LU(g, own + 0x1000)), S.INVALID_PAGE_STATE),
    "context": (lambda h, _g, _own, o: h.psp.gctx_create(o), S.INVALID_PAGE_SIZE),
    "reclaim": (lambda h, _g, own, _o: h.psp.page_reclaim(own), S.INVALID_PAGE_SIZE),
    "swap": (lambda h, g, own, o: h.psp.swap_out(Swap(g, own, o, None)), S.INVALID_PAGE_SIZE),
    "VMSA out": (lambda h, g, own, o: h.psp.swap_out(Swap(g, own, o, None, 2, PageSize.LARGE)), S.SUCCESS),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes(case: str) -> None:
    call, told = SIZES[case]
    host, gctx, own, other = with_large()
    assert status(lambda: call(host, gctx, own, other)) is told
    if case == "VMSA out":
        back = Swap(gctx, other, own, None, 2, PageSize.LARGE)
        assert status(lambda: host.psp.swap_in(back)) is S.INVALID_PAGE_SIZE


def test_vmsas_are_not_joined() -> None:
    host = SnpHost(PARTS["milan"], 4)
    guest = host.start(pages())
    head = host.large_page()
    for offset in range(0, LARGE, 0x1000):
        host.update(head + offset, NewState(True, 0x4000_0000 + offset, immutable=True, asid=guest.asid))
        host.rmp.replace(head + offset, host.rmp.entry(head + offset)._replace(vmsa=True))
    assert status(lambda: host.psp.page_unsmash(head)) is S.INVALID_PAGE_STATE


FUNCTION = struct.pack("<IIQQIIIIQ", 1, 0, 0, 0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize(
    "page", [struct.pack("<IIQ", 0, 1, 0), struct.pack("<IIQ", 65, 0, 0), struct.pack("<IIQ", 1, 0, 0) + FUNCTION]
)
def test_bad_cpuid_pages(page: bytes) -> None:
    host = SnpHost(PARTS["milan"], 4)
    guest = host.start(pages())
    ld = host.psp._sp.guests[guest.gctx].digest.ld
    spa = host.give(guest.asid, GPA + 0x1_0000, page)
    assert status(lambda: host.psp.launch_update(LaunchUpdate(guest.gctx, spa, 6))) is S.INVALID_PARAM
    assert (host.psp._sp.guests[guest.gctx].digest.ld, host.dram.read_raw(spa, len(page))) == (ld, page)


@pytest.mark.parametrize(
    ("board", "policy", "started", "activated"),
    [
        (Board(smt=True), SnpPolicy.MUST_BE_ONE, S.POLICY_FAILURE, S.INVALID_GUEST_STATE),
        (Board(smt=False), SnpPolicy.MUST_BE_ONE, S.SUCCESS, S.SUCCESS),
        (Board(sockets=1), DEFAULT_POLICY | SnpPolicy.SINGLE_SOCKET, S.SUCCESS, S.SUCCESS),
        (Board(sockets=2), DEFAULT_POLICY | SnpPolicy.SINGLE_SOCKET, S.SUCCESS, S.POLICY_FAILURE),
        (Board(sockets=2), DEFAULT_POLICY, S.SUCCESS, S.SUCCESS),
    ],
)
def test_boards(board: Board, policy: int, started: Status, activated: Status) -> None:
    firmware = SnpFirmware(Dram(LARGE, 0, PARTS["milan"], 1), Rmp(0, LARGE), 1, board)
    firmware.init()
    firmware.wbinvd()
    firmware.df_flush()
    firmware._sp.rmp.replace(0x1000, firmware._sp.rmp.entry(0x1000)._replace(assigned=True, immutable=True))
    firmware.gctx_create(0x1000)
    assert status(lambda: firmware.launch_start(LaunchStart(0x1000, policy))) is started
    assert status(lambda: firmware.activate(0x1000, 1)) is activated
