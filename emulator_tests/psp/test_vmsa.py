"""VMSAs in the launch of an SEV-ES guest."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest

from emulator_tests.psp.rig import BASE, DATA, ES_ASID, PAGE, REGION, Rig, S, status
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.status import Status
from mh_emulator.psp.vmsa import BadVmsaError, TrustedRegion, checksum

VMSA = DATA


def es_guest(rig: Rig) -> int:
    return rig.guest(policy=Policy.ES, asid=ES_ASID)


def crc32c(data: bytes) -> int:
    """Bit by bit, from the most significant one, as a circuit does it."""
    state = 0xFFFF_FFFF
    for byte in data:
        for bit in range(8):
            top = (state >> 31) ^ (byte >> bit & 1)
            state = (state << 1 & 0xFFFF_FFFF) ^ (0x1EDC_6F41 if top else 0)
    return int(f"{state ^ 0xFFFF_FFFF:032b}"[::-1], 2)


def test_checksum_against_the_circuit() -> None:
    assert crc32c(b"123456789") == 0xE306_9283
    lanes = [
        crc32c(b"".join(VMSA[at : at + 8] for at in range(first, 0xFC0, 24))) for first in (0, 8, 16)
    ]  # fmt: skip
    assert checksum(VMSA) == (lanes[0] ^ lanes[1] ^ lanes[2]) << 32 | crc32c(struct.pack("<3I", *lanes))
    assert checksum(VMSA[:0xFC0] + bytes(0x40)) == checksum(VMSA)


def test_vmsa_is_measured_as_given_and_encrypted_with_its_checksum() -> None:
    rig = Rig()
    handle = es_guest(rig)
    rig.dram.write_raw(BASE, VMSA)
    rig.fw.launch_update_vmsa(handle, BASE)
    found = rig.fw.launch_measure(handle)
    message = (
        bytes([4, *rig.fw.platform_status().version])
        + struct.pack("<I", Policy.ES)
        + hashlib.sha256(VMSA).digest()
        + found.nonce
    )
    assert found.mac == hmac.digest(bytes(16), message, "sha256")
    stored = rig.dram.read_private(ES_ASID, BASE, PAGE)
    assert stored[:0x388] + stored[0x390:] == VMSA[:0x388] + VMSA[0x390:]
    assert REGION <= int.from_bytes(stored[0x388:0x390], "little") < BASE
    assert rig.fw.region is not None
    rig.fw.region.validate(stored)


def test_region_notices_changes_and_takes_the_cpus_own() -> None:
    region = TrustedRegion(0x10_0000)
    address, stored = region.set_up(VMSA)
    assert region.validate(stored) == address
    changed = stored[:0x178] + b"X" + stored[0x179:]
    with pytest.raises(BadVmsaError, match="does not match"):
        region.validate(changed)
    region.update(changed)
    region.validate(changed)
    with pytest.raises(BadVmsaError):
        region.validate(stored)
    with pytest.raises(BadVmsaError, match="no checksum at 0x8f8e8d8c8b8a8988"):
        region.update(VMSA)


def test_another_vmsa_with_the_same_checksum_is_taken() -> None:
    """A CRC is linear: what one quadword of a lane changes in its state, the next one of that lane takes away."""
    region = TrustedRegion(0x10_0000)
    _, stored = region.set_up(VMSA)
    forged = bytearray(stored)
    first, second = 0x400, 0x400 + 3 * 8
    forged[first] ^= 1
    state = crc32c(b"\1" + bytes(7)) ^ crc32c(bytes(8))
    for at, byte in enumerate(state.to_bytes(4, "little"), second):
        forged[at] ^= byte
    assert bytes(forged) != stored
    assert checksum(forged) == checksum(stored)
    region.validate(bytes(forged))


@pytest.mark.parametrize(("size", "spa", "expected"), [
    (PAGE, BASE, S.SUCCESS), (PAGE - 16, BASE, S.INVALID_LENGTH), (2 * PAGE, BASE, S.INVALID_LENGTH),
    (0, BASE, S.INVALID_LENGTH), (PAGE, BASE + 8, S.INVALID_ADDRESS),
])  # fmt: skip
def test_arguments(size: int, spa: int, expected: Status) -> None:
    rig = Rig()
    handle = es_guest(rig)
    assert status(lambda: rig.fw.launch_update_vmsa(handle, spa, size)) is expected


def test_only_for_sev_es_guests_in_their_launch() -> None:
    rig = Rig()
    plain = rig.guest()
    assert status(lambda: rig.fw.launch_update_vmsa(plain, BASE)) is S.UNSUPPORTED
    handle = rig.fw.launch_start(Policy.ES)
    assert status(lambda: rig.fw.launch_update_vmsa(handle, BASE)) is S.INACTIVE
    rig.fw.launch_measure(handle)
    assert status(lambda: rig.fw.launch_update_vmsa(handle, BASE)) is S.INVALID_GUEST_STATE
    # The length comes before everything else, even the platform's state.
    rig.fw.shutdown()
    assert status(lambda: rig.fw.launch_update_vmsa(handle, BASE, 1)) is S.INVALID_LENGTH
    assert status(lambda: rig.fw.launch_update_vmsa(handle, BASE)) is S.INVALID_PLATFORM_STATE


def test_asids_are_split_between_kinds_of_guest() -> None:
    rig = Rig()
    es, plain = rig.fw.launch_start(Policy.ES), rig.fw.launch_start(0)
    assert status(lambda: rig.fw.activate(es, 100)) is S.INVALID_ASID
    assert status(lambda: rig.fw.activate(plain, 99)) is S.INVALID_ASID
    assert status(lambda: rig.fw.activate(es, 99)) is S.SUCCESS
    assert status(lambda: rig.fw.activate(plain, 100)) is S.SUCCESS


def test_platform_without_sev_es() -> None:
    rig = Rig(region=0)
    assert status(lambda: rig.fw.launch_start(Policy.ES)) is S.UNSUPPORTED
    assert rig.fw.region is None


def test_no_room_for_checksums_is_a_limited_resource() -> None:
    rig = Rig()
    handle = es_guest(rig)
    assert rig.fw.region is not None
    rig.fw.region._untouched = REGION + 0x10_0000 - 8
    rig.fw.launch_update_vmsa(handle, BASE)
    assert status(lambda: rig.fw.launch_update_vmsa(handle, BASE)) is S.RESOURCE_LIMIT


def test_checksums_have_no_room_before_the_first_flush() -> None:
    rig = Rig()
    rig.fw.shutdown()
    rig.fw.init(REGION)
    assert rig.fw.region is None
    rig.fw.wbinvd()
    rig.fw.df_flush()
    assert rig.fw.region is not None


def test_region_of_memory_must_be_aligned() -> None:
    rig = Rig()
    rig.fw.shutdown()
    assert status(lambda: rig.fw.init(BASE + PAGE)) is S.INVALID_ADDRESS


def test_decommission_frees_the_checksums() -> None:
    rig = Rig()
    handle = es_guest(rig)
    for page in range(3):
        rig.fw.launch_update_vmsa(handle, BASE + page * PAGE)
    stored = rig.dram.read_private(ES_ASID, BASE, PAGE)
    rig.fw.deactivate(handle)
    rig.fw.decommission(handle)
    assert rig.fw.region is not None
    with pytest.raises(BadVmsaError):
        rig.fw.region.validate(stored)
