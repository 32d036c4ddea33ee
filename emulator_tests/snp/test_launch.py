"""Launches of SNP guests: what is measured, what the guest finds, who it is."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sevsnpmeasure import guest as theirs
from sevsnpmeasure.id_block import snp_calc_id_block
from sevsnpmeasure.vmm_types import VMMType

from emulator_tests.firmware.conftest import Find, stock
from emulator_tests.psp.rig import status
from mh_builder.firmware.measure import FlashLaunch, Vcpus
from mh_builder.firmware.snp import Imi, PageType, SnpPage, WholeLaunch, pages_at, pages_of_type, vmsa_page
from mh_builder.parts import PARTS
from mh_emulator.dram.dram import Dram
from mh_emulator.psp.snp.command import SnpGuestState
from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.firmware import SnpFirmware
from mh_emulator.psp.snp.id_block import IdBlock, sign_id_block
from mh_emulator.psp.snp.launch import LaunchFinish, LaunchStart, LaunchUpdate
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.psp.status import Status
from mh_emulator.rmp.entry import PageSize, PageState
from mh_emulator.rmp.instructions import NewState
from mh_emulator.rmp.table import Rmp
from mh_emulator.snp.host import SECRETS_GPA, Launched, SnpHost

__all__ = ["stock"]

HELPER_GPA = 0x40_0000_0000
HELPER = b"helper".ljust(0x3000, b"\xf4")
VMSA = bytes(range(251)) * 16 + bytes(80)
S = Status


def context(host: SnpHost, guest: Launched) -> SnpGuest:
    return host.psp._sp.guests[guest.gctx]


def host_of(part: str = "milan") -> SnpHost:
    return SnpHost(PARTS[part], 3)


def helper() -> Iterator[SnpPage]:
    yield from pages_at(HELPER_GPA, HELPER)
    yield from pages_of_type(PageType.ZERO, HELPER_GPA + 0x3000, 0x2000)
    yield vmsa_page(VMSA)
    yield SnpPage(PageType.SECRETS, SECRETS_GPA)


@pytest.mark.parametrize("part", ["milan", "turin"])
def test_ld_of_a_whole_firmware_is_sev_snp_measures(stock: Find, part: str) -> None:
    path = stock("X64")
    signature = PARTS[part].signature
    host = host_of(part)
    guest = host.run(FlashLaunch(path.read_bytes(), Vcpus(2, signature)).snp_pages())
    expected = theirs.snp_calc_launch_digest(2, signature, str(path), "", "", "", 1, "", VMMType.QEMU)
    assert context(host, guest).digest.ld == expected
    assert context(host, guest).digest.imd == bytes(48)


def test_incoming_image_alone_has_one_digest_and_any_firmware_before_it_leaves_imd_as_it_is() -> None:
    incoming = Imi((range(HELPER_GPA, HELPER_GPA + 0x5000), range(SECRETS_GPA, SECRETS_GPA + 0x1000)), vmsas=True)
    host = host_of()
    target = context(host, host.run(WholeLaunch().marked(helper())))
    assert target.digest.ld == target.digest.imd != bytes(48)
    sources = [
        context(host, host.run(incoming.marked([*pages_at(0xFFFF_F000, firmware), *helper()])))
        for firmware in (bytes(4096), b"\xf4" * 4096)
    ]
    assert {source.digest.imd for source in sources} == {target.digest.imd}
    assert len({source.digest.ld for source in (*sources, target)}) == 3


def test_an_incoming_image_takes_no_other_pages_and_is_not_finished() -> None:
    host = host_of()
    start = LaunchStart(host.create(), DEFAULT_POLICY, imi_en=True)
    guest = host.start(WholeLaunch().marked(helper()), start)
    before = context(host, guest).digest.ld
    assert status(lambda: host.launch(guest, SnpPage(PageType.ZERO, 0x1000))) is S.INVALID_PARAM
    assert status(lambda: host.psp.launch_finish(LaunchFinish(guest.gctx))) is S.INVALID_GUEST_STATE
    assert context(host, guest).digest.ld == before


def test_guest_finds_what_was_launched() -> None:
    host = host_of("genoa")
    cpuid = struct.pack("<IIQ", 1, 0, 0) + struct.pack("<IIQQIIIIQ", 1, 0, 0, 0, 1, 2, 3, 4, 0)
    kinds = {
        PageType.NORMAL: b"n" * 4096, PageType.UNMEASURED: b"u" * 4096, PageType.ZERO: b"z" * 4096,
        PageType.CPUID: cpuid.ljust(4096, b"\0"), PageType.SECRETS: b"s" * 4096,
    }  # fmt: skip
    guest = host.start([], LaunchStart(host.create(), DEFAULT_POLICY, gosvw=b"g" * 16))
    for number, (kind, data) in enumerate(kinds.items()):
        spa = host.give(guest.asid, number << 12, data)
        host.psp.launch_update(LaunchUpdate(guest.gctx, spa, kind, vmpl=(1, 3, 15)))
        seen = host.dram.read_private(guest.asid, spa, 4096)
        entry = host.rmp.entry(spa)
        assert (entry.state, [int(perm) for perm in entry.perms[1:]]) == (PageState.GUEST_VALID, [1, 3, 15])
        if kind is PageType.SECRETS:
            keys = b"".join(context(host, guest).vmpcks)
            assert seen[:16] == struct.pack("<IIII", 3, 0, PARTS["genoa"].signature, 0)
            assert (seen[0x10:0x20], seen[0x20:0xA0]) == (b"g" * 16, keys)
            assert struct.unpack_from("<I", seen, 0x160) == (200,)
        else:
            assert seen == (bytes(4096) if kind is PageType.ZERO else data)
            assert host.dram.peek_raw(spa) != seen


def test_secure_tsc_is_the_platforms_and_not_measured() -> None:
    vmsa = bytearray(VMSA)
    struct.pack_into("<Q", vmsa, 0x3B0, 1 << 9 | 1)
    host = host_of()
    digests = set()
    for khz in (99_800, 3_000_000):
        start = LaunchStart(host.create(), DEFAULT_POLICY, tsc_khz=khz)
        guest = host.start([vmsa_page(bytes(vmsa))], start)
        digests.add(context(host, guest).digest.ld)
        spa = guest.pages[0xFFFF_FFFF_F000]
        scale, offset = struct.unpack("<QQ", host.dram.read_private(guest.asid, spa + 0x2F0, 16))
        assert (scale, offset) == (-(-(khz << 32) // 99_800), 0)
        assert host.rmp.entry(spa).vmsa
    assert len(digests) == 1


def test_two_mib_are_measured_by_pages() -> None:
    host, others = host_of(), host_of()
    gpa, data = 0x4000_0000, b"m" * 0x20_0000
    guest = host.start([])
    spa = host.large_page()
    host.dram.write_raw(spa, data)
    host.update(spa, NewState(True, gpa, PageSize.LARGE, immutable=True, asid=guest.asid))
    host.psp.launch_update(LaunchUpdate(guest.gctx, spa, size=PageSize.LARGE))
    small = others.start([SnpPage(PageType.SECRETS, SECRETS_GPA), *pages_at(gpa, data)])
    assert context(host, guest).digest.ld == context(others, small).digest.ld
    assert host.dram.read_private(guest.asid, spa + 0x1F_F000, 4096) == data[:4096]
    assert host.rmp.state(spa) is PageState.GUEST_VALID


@pytest.fixture(scope="module")
def keys() -> list[ec.EllipticCurvePrivateKey]:
    return [ec.derive_private_key(number, ec.SECP384R1()) for number in (12345, 67890)]


def identified(
    host: SnpHost, guest: Launched, block: bytes, auth: bytes, *, author: bool = False, wanted: int = 1
) -> Status:
    """LAUNCH_FINISH with an ID block."""
    finish = LaunchFinish(guest.gctx, host.page(block) if wanted else None, host.page(auth), author_key_en=author)
    return status(lambda: host.psp.launch_finish(finish))


def test_sev_snp_measures_id_block_is_taken(keys: list[ec.EllipticCurvePrivateKey], tmp_path: Path) -> None:
    names = []
    for number, key in enumerate(keys):
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        names.append(tmp_path / f"{number}.pem")
        names[-1].write_bytes(pem)
    host = host_of()
    guest = host.start(helper())
    text = snp_calc_id_block(context(host, guest).digest.ld, str(names[0]), str(names[1]))
    block, auth, *digests = (base64.b64decode(found) for found in re.findall(r"(?:=|: )([\w+/]+=*)", text))
    assert len(block) == 96
    assert identified(host, guest, block, auth, author=True) is S.SUCCESS
    identity = context(host, guest).identity
    assert [identity.id_key_digest, identity.author_key_digest] == digests
    assert context(host, guest).state is SnpGuestState.RUNNING


BAD: dict[str, tuple[dict[str, Any], dict[int, bytes], Status]] = {
    "another guest": ({"ld": b"\1" * 48}, {}, S.BAD_MEASUREMENT),
    "another policy": ({"policy": 0xB0000}, {}, S.POLICY_FAILURE),
    "algorithm": ({}, {0: b"\2"}, S.INVALID_PARAM),
    "author's algorithm": ({}, {4: b"\2"}, S.INVALID_PARAM),
    "curve": ({}, {0x240: b"\3"}, S.BAD_SIGNATURE),
    "no point": ({}, {0x244: bytes(8)}, S.BAD_SIGNATURE),
    "signature": ({}, {0x40: bytes(8)}, S.BAD_SIGNATURE),
    "author's signature": ({}, {0x680: bytes(8)}, S.BAD_SIGNATURE),
    "author's point": ({}, {0x884: bytes(8)}, S.BAD_SIGNATURE),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_id_blocks(keys: list[ec.EllipticCurvePrivateKey], case: str) -> None:
    fields, patches, told = BAD[case]
    host = host_of()
    guest = host.start([])
    good: dict[str, Any] = {"ld": context(host, guest).digest.ld, "policy": int(DEFAULT_POLICY), "guest_svn": 7}
    block = IdBlock(**(good | fields))
    auth = bytearray(sign_id_block(block, *keys))
    for offset, patch in patches.items():
        auth[offset : offset + len(patch)] = patch
    assert identified(host, guest, block.pack(), bytes(auth), author=True) is told
    assert context(host, guest).identity.id_block == IdBlock()
    assert not host.psp.is_runnable(guest.asid)
    block = IdBlock(**good)
    assert identified(host, guest, block.pack(), sign_id_block(block, keys[0])) is S.SUCCESS
    assert context(host, guest).identity.id_block.guest_svn == 7


def test_parts_without_snp() -> None:
    with pytest.raises(ValueError, match="rome has no SEV-SNP, milan, genoa, turin have"):
        SnpHost(PARTS["rome"], 1)


def test_an_rmp_of_pages_that_are_no_dram() -> None:
    dram = Dram(0x40_0000, 0x1000_0000, PARTS["milan"], 1)
    for base, size in ((0xFE0_0000, 0x40_0000), (0x1020_0000, 0x40_0000), (0x1000_0000, 0x60_0000)):
        with pytest.raises(ValueError, match=r"^RMP of 0x\w+\.\.0x\w+ is not for DRAM of 0x10000000\.\.0x10400000$"):
            SnpFirmware(dram, Rmp(base, size), 1)
