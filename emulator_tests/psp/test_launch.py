"""Sessions, measurements and secrets of a launch, recomputed without the code under test."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from emulator_tests.psp.rig import (
    ASID,
    BASE,
    DATA,
    ES_ASID,
    OTHER_ASID,
    PAGE,
    TIK,
    Rig,
    S,
    dh_certificate,
    packet,
    point,
    status,
)
from mh_emulator.psp.packet import Packet
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.session import Session
from mh_emulator.psp.status import CommandError, Status

VERSIONS = {"naples": (0, 17, 48), "rome": (0, 24, 14), "milan": (1, 55, 29), "genoa": (1, 55, 25)}


@pytest.mark.parametrize("part", VERSIONS)
def test_launch_with_a_session_measurement_and_secret_made_independently(part: str) -> None:
    rig, policy = Rig(part), 0x3
    handle = rig.fw.launch_start(policy, rig.session(policy))
    asid = 5 if part == "naples" else ASID
    rig.fw.activate(handle, asid)
    rig.dram.write_raw(BASE, DATA)
    rig.dram.write_raw(BASE + PAGE, DATA[::-1])
    rig.fw.launch_update_data(handle, BASE, PAGE)
    rig.fw.launch_update_data(handle, BASE + PAGE, 0x100)
    found = rig.fw.launch_measure(handle)
    digest = hashlib.sha256(DATA + DATA[::-1][:0x100]).digest()
    message = bytes([4, *VERSIONS[part]]) + struct.pack("<I", policy) + digest + found.nonce
    assert found.mac == hmac.digest(TIK, message, "sha256")

    secret = b"sixteen bytes ok" * 3
    good = packet(1, secret, bound=found.mac)
    rig.fw.launch_secret(handle, good, BASE + 0x200, 48)
    assert rig.dram.read_private(asid, BASE + 0x200, 48) == secret
    for bad, expected in (
        (Packet(good.header, good.data[:-1] + bytes([good.data[-1] ^ 1])), S.BAD_MEASUREMENT),
        (packet(1, secret, bound=bytes(32)), S.BAD_MEASUREMENT),
        (packet(2, secret, bound=found.mac), S.BAD_MEASUREMENT),
        (packet(1, secret, bound=found.mac, flags=1), S.UNSUPPORTED),
        (Packet(good.header[:-1], good.data), S.INVALID_LENGTH),
        (Packet(good.header + b"x", good.data), S.INVALID_LENGTH),
    ):
        assert status(lambda: rig.fw.launch_secret(handle, bad, BASE, 48)) is expected  # noqa: B023
    assert not rig.fw.is_runnable(asid)
    rig.fw.launch_finish(handle)
    assert rig.fw.is_runnable(asid)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (0x01 << 16 | 55 << 24, S.SUCCESS),
        (0x01 << 16 | 56 << 24, S.POLICY_FAILURE),
        (0x02 << 16, S.POLICY_FAILURE),
        (1 << 6, S.POLICY_FAILURE),
        (1 << 15, S.POLICY_FAILURE),
        (Policy.NODBG | Policy.SEV, S.SUCCESS),
    ],
)
def test_version_and_reserved_bits_matter_only_with_a_session(policy: int, expected: Status) -> None:
    rig = Rig()
    assert status(lambda: rig.fw.launch_start(policy, rig.session(policy))) is expected
    assert status(lambda: rig.fw.receive_start(policy, rig.session(policy))) is expected
    assert status(lambda: rig.fw.launch_start(policy)) is S.SUCCESS


@pytest.mark.parametrize("offset", [0, 20, 50, 70, 100])
def test_a_session_changed_anywhere_is_refused(offset: int) -> None:
    rig = Rig()
    good = rig.session(0)
    blob = bytearray(good.blob)
    blob[offset] ^= 1
    changed = Session(good.certificate, bytes(blob))
    assert status(lambda: rig.fw.launch_start(0, changed)) is S.BAD_MEASUREMENT
    assert status(lambda: rig.fw.receive_start(0, changed)) is S.BAD_MEASUREMENT


def test_a_session_for_another_policy_or_platform_or_an_earlier_key() -> None:
    rig = Rig()
    good = rig.session(0)
    assert status(lambda: rig.fw.launch_start(1, good)) is S.BAD_MEASUREMENT
    assert status(lambda: Rig(seed=4).fw.launch_start(0, good)) is S.BAD_MEASUREMENT
    assert status(lambda: rig.fw.launch_start(0, good)) is S.SUCCESS
    rig.fw.pdh_gen()
    assert status(lambda: rig.fw.launch_start(0, good)) is S.BAD_MEASUREMENT
    assert status(lambda: rig.fw.launch_start(0, rig.session(0))) is S.SUCCESS


def test_the_other_ends_certificate() -> None:
    rig = Rig()
    good = rig.session(0)
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    off_curve = bytearray(good.certificate)
    off_curve[20] ^= 1
    other_curve = bytearray(good.certificate)
    other_curve[16] = 1
    version = bytearray(good.certificate)
    version[0] = 2
    for certificate, blob, expected in (
        (good.certificate, good.blob[:-1], S.INVALID_LENGTH),
        (good.certificate[:-1], good.blob, S.INVALID_LENGTH),
        (dh_certificate(key, usage=0x1002), good.blob, S.INVALID_CERTIFICATE),
        (dh_certificate(key, algorithm=2), good.blob, S.INVALID_CERTIFICATE),
        (bytes(off_curve), good.blob, S.INVALID_CERTIFICATE),
        (bytes(other_curve), good.blob, S.INVALID_CERTIFICATE),
        (bytes(version), good.blob, S.INVALID_CERTIFICATE),
        (dh_certificate(key), good.blob, S.BAD_MEASUREMENT),
    ):
        assert status(lambda: rig.fw.launch_start(0, Session(certificate, blob))) is expected  # noqa: B023
        assert status(lambda: rig.fw.receive_start(0, Session(certificate, blob))) is expected  # noqa: B023


def test_every_measurement_has_a_nonce_of_its_own() -> None:
    rig = Rig()
    found = [rig.fw.launch_measure(rig.guest(asid=asid)) for asid in (ASID, OTHER_ASID)]
    assert found[0].nonce != found[1].nonce
    assert found[0].mac != found[1].mac


def test_launch_update_data_encrypts_in_place_and_nothing_beside() -> None:
    rig = Rig()
    handle = rig.guest()
    rig.dram.write_raw(BASE, DATA)
    rig.fw.launch_update_data(handle, BASE + 0x100, 0x200)
    raw = rig.dram.read_raw(BASE, PAGE)
    assert raw[:0x100] + raw[0x300:] == DATA[:0x100] + DATA[0x300:]
    assert rig.dram.read_private(ASID, BASE + 0x100, 0x200) == DATA[0x100:0x300]


@pytest.mark.parametrize("policy", [0, Policy.NODBG | Policy.NOKS])
def test_attestation_report_is_signed_by_the_platform(policy: int) -> None:
    rig = Rig()
    handle = rig.guest(policy=policy)
    rig.dram.write_raw(BASE, DATA)
    rig.fw.launch_update_data(handle, BASE, PAGE)
    rig.fw.launch_measure(handle)
    report = rig.fw.attestation(handle, b"n" * 16)
    assert len(report) == 0xD0
    assert report[:16] == b"n" * 16
    assert report[16:48] == hashlib.sha256(DATA).digest()
    assert struct.unpack_from("<IIII", report, 48) == (policy, 0x1002, 2, 0)
    r, s = (int.from_bytes(report[at : at + 72], "little") for at in (64, 136))
    pek = point(rig.fw.pdh_cert_export().chain)
    pek.verify(encode_dss_signature(r, s), report[:52], ec.ECDSA(hashes.SHA256()))


def test_a_small_buffer_is_told_how_much_is_needed() -> None:
    rig = Rig()
    handle = rig.guest()
    with pytest.raises(CommandError) as caught:
        rig.fw.launch_measure(handle, 47)
    assert (caught.value.status, caught.value.length) == (S.INVALID_LENGTH, 48)
    rig.fw.launch_measure(handle)
    with pytest.raises(CommandError) as caught:
        rig.fw.attestation(handle, bytes(16), 0xCF)
    assert (caught.value.status, caught.value.length) == (S.INVALID_LENGTH, 0xD0)


def test_without_a_session_the_transport_keys_are_zero() -> None:
    rig = Rig()
    handle = rig.guest()
    found = rig.fw.launch_measure(handle)
    secret = packet(1, b"s" * 16, bound=found.mac, tek=bytes(16), tik=bytes(16))
    rig.fw.launch_secret(handle, secret, BASE, 16)
    assert rig.dram.read_private(ASID, BASE, 16) == b"s" * 16


def test_sev_es_is_for_platforms_that_have_it() -> None:
    rig = Rig(region=0)
    assert status(lambda: rig.fw.launch_start(Policy.ES)) is S.UNSUPPORTED
    assert status(lambda: rig.fw.receive_start(Policy.ES, rig.session(Policy.ES))) is S.UNSUPPORTED
    assert not rig.fw.platform_status().es
    assert Rig().fw.platform_status().es
    assert status(lambda: Rig().guest(policy=Policy.ES, asid=ES_ASID)) is S.SUCCESS
