"""Launch digests beside those of sev-snp-measure, for the same image and the same VMSAs."""

from __future__ import annotations

import hmac
import struct
from pathlib import Path
from uuid import UUID

import pytest
from sevsnpmeasure import guest
from sevsnpmeasure.ovmf import OVMF
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmsa import VMSA

from emulator_tests.psp.rig import ASID, BASE, ES_ASID, PAGE, TIK, Rig
from mh_builder.image.model import Image
from mh_emulator.owner import Expected
from mh_emulator.psp.policy import Policy

SIGNATURE = 0x00A0_0F11
RESET_BLOCK, FOOTER = "00f771de-1a7e-4fcb-890e-68c77e2fb44e", "96b582de-1fb2-45f7-baea-a366c55a082d"


def entry(guid: str, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + UUID(guid).bytes_le


@pytest.fixture
def firmware(images: dict[str, Image], tmp_path: Path) -> Path:
    """A firmware volume around the helper, with the table that says where an SEV-ES vCPU starts."""
    table = entry(RESET_BLOCK, struct.pack("<I", 0x0080_B004))
    table += struct.pack("<H", len(table) + 18) + UUID(FOOTER).bytes_le
    data = images["isolated"].data
    path = tmp_path / "OVMF.fd"
    path.write_bytes(data + bytes(-(len(data) + len(table) + 32) % PAGE) + table + bytes(32))
    return path


@pytest.mark.parametrize(("mode", "vcpus"), [(SevMode.SEV, 1), (SevMode.SEV_ES, 1), (SevMode.SEV_ES, 3)])
def test_digest_and_measurement(firmware: Path, mode: SevMode, vcpus: int) -> None:
    data = firmware.read_bytes()
    is_es = mode is SevMode.SEV_ES
    pages = list(VMSA(mode, OVMF(str(firmware)).sev_es_reset_eip(), SIGNATURE, 0).pages(vcpus)) if is_es else []
    rig = Rig(size=2 << 20)
    policy = Policy.NODBG | (Policy.ES if is_es else 0)
    handle = rig.fw.launch_start(policy, rig.session(policy))
    rig.fw.activate(handle, ES_ASID if is_es else ASID)
    rig.dram.write_raw(BASE, data)
    for at in range(0, len(data), 3 * PAGE):
        rig.fw.launch_update_data(handle, BASE + at, min(3 * PAGE, len(data) - at))
    for number, page in enumerate(pages):
        spa = BASE + (1 << 20) + number * PAGE
        rig.dram.write_raw(spa, bytes(page))
        rig.fw.launch_update_vmsa(handle, spa)
    measured = rig.fw.launch_measure(handle)

    digest = guest.calc_launch_digest(mode, vcpus, SIGNATURE, str(firmware), "", "", "", 0)
    message = bytes([4, 1, 55, 29]) + struct.pack("<I", policy) + digest + measured.nonce
    assert measured.mac == hmac.digest(TIK, message, "sha256")
    assert rig.fw.attestation(handle, bytes(16))[16:48] == digest
    assert Expected([data, *map(bytes, pages)]).launch_digest == digest
