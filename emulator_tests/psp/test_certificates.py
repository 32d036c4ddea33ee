"""Certificate chains: signed as AMD says, and refused wherever a byte is another one."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from emulator_tests.psp.rig import G, Rig, S, point, receiver, status
from mh_emulator.psp import amd
from mh_emulator.psp.certificate import Certificate, Signer, Usage, make_certificate, rsa_sign
from mh_emulator.psp.crypto import private_key
from mh_emulator.psp.identity import PlatformCertificates
from mh_emulator.psp.policy import Policy
from mh_emulator.psp.status import Refused, Status
from mh_emulator.psp.transport import Receiver

SIZE, BODY = 2084, 1044
PEK, OCA, CEK = (slice(at, at + SIZE) for at in range(0, 3 * SIZE, SIZE))


def signature(certificate: bytes, number: int) -> tuple[int, int, bytes]:
    usage, algorithm = struct.unpack_from("<II", certificate, BODY + 520 * number)
    start = BODY + 520 * number + 8
    return usage, algorithm, certificate[start : start + 512]


def verify(certificate: bytes, number: int, key: ec.EllipticCurvePublicKey) -> None:
    _, _, area = signature(certificate, number)
    r, s = (int.from_bytes(area[at : at + 72], "little") for at in (0, 72))
    key.verify(encode_dss_signature(r, s), certificate[:BODY], ec.ECDSA(hashes.SHA256()))


def amd_key(certificate: bytes) -> rsa.RSAPublicKey:
    """Public exponent and modulus, 256 bytes each, behind 64 bytes."""
    exponent, modulus = (int.from_bytes(certificate[at : at + 256], "little") for at in (64, 320))
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def test_chain_verifies_with_the_library_alone() -> None:
    rig = Rig()
    shown = receiver(rig.fw)
    chain = shown.platform.chain
    assert len(shown.platform.pdh) == SIZE
    assert len(chain) == 3 * SIZE
    usages = [struct.unpack_from("<I", cert, 8)[0] for cert in (shown.platform.pdh, chain[PEK], chain[OCA], chain[CEK])]
    assert usages == [0x1003, 0x1002, 0x1001, 0x1004]
    verify(shown.platform.pdh, 0, point(chain[PEK]))
    verify(chain[PEK], 0, point(chain[OCA]))
    verify(chain[PEK], 1, point(chain[CEK]))
    verify(chain[OCA], 0, point(chain[OCA]))
    ask, ark = shown.amd[:832], shown.amd[832:]
    usage, algorithm, area = signature(chain[CEK], 0)
    assert (usage, algorithm) == (0x13, 0x101)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=48)
    amd_key(ask).verify(area[:256][::-1], chain[CEK][:BODY], pss, hashes.SHA384())
    for certificate in (ask, ark):
        amd_key(ark).verify(certificate[576:][::-1], certificate[:576], pss, hashes.SHA384())


def test_the_platform_itself_shows_a_cek_without_amds_signature() -> None:
    rig = Rig()
    exported = rig.fw.pdh_cert_export()
    assert signature(exported.chain[CEK], 0)[:2] == (0x1000, 0)
    assert exported.chain[: 2 * SIZE] == rig.fw.full_chain[: 2 * SIZE]


def flip(data: bytes, offset: int) -> bytes:
    changed = bytearray(data)
    changed[offset] ^= 1
    return bytes(changed)


def shown_with(change: Callable[[bytes, bytes, bytes], tuple[bytes, bytes, bytes]], rig: Rig) -> Receiver:
    shown = receiver(rig.fw)
    pdh, chain, top = change(shown.platform.pdh, shown.platform.chain, shown.amd)
    return Receiver(PlatformCertificates(pdh, chain), top)


BAD_SHOWN = {
    "chain too short": (lambda p, c, a: (p, c[:-1], a), S.INVALID_LENGTH),
    "PDH too long": (lambda p, c, a: (p + b"x", c, a), S.INVALID_LENGTH),
    "AMD's chain too short": (lambda p, c, a: (p, c, a[:-1]), S.INVALID_LENGTH),
    "ARK's signature": (lambda p, c, a: (p, c, flip(a, 832 + 600)), S.BAD_SIGNATURE),
    "ARK's modulus size": (lambda p, c, a: (p, c, flip(a, 832 + 61)), S.INVALID_CERTIFICATE),
    "ASK's key": (lambda p, c, a: (p, c, flip(a, 320)), S.BAD_SIGNATURE),
    "ARK and ASK exchanged": (lambda p, c, a: (p, c, a[832:] + a[:832]), S.BAD_SIGNATURE),
    "CEK's key": (lambda p, c, a: (p, flip(c, 2 * SIZE + 20), a), S.BAD_SIGNATURE),
    "CEK's signature": (lambda p, c, a: (p, flip(c, 2 * SIZE + BODY + 8), a), S.BAD_SIGNATURE),
    "CEK unsigned": (lambda p, c, a: (p, c[: 2 * SIZE] + c[OCA], a), S.INVALID_CERTIFICATE),
    "PEK's signature by the CEK": (lambda p, c, a: (p, flip(c, BODY + 520 + 8), a), S.BAD_SIGNATURE),
    "PEK's signature usage": (lambda p, c, a: (p, flip(c, BODY + 520), a), S.INVALID_CERTIFICATE),
    "half a signature": (lambda p, c, a: (p[:BODY + 520] + struct.pack("<II", 0x1003, 0) + p[BODY + 528:], c, a),
                         S.BAD_SIGNATURE),
    "PDH's key": (lambda p, c, a: (flip(p, 20), c, a), S.BAD_SIGNATURE),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_SHOWN)
def test_policy_sev_wants_a_platform_of_amds(what: str) -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING, Policy.SEV)
    change, expected = BAD_SHOWN[what]
    assert status(lambda: rig.fw.send_start(handle, shown_with(change, rig))) is expected
    assert rig.fw.guest_status(handle).state is G.RUNNING
    assert status(lambda: rig.fw.send_start(handle, receiver(rig.fw))) is S.SUCCESS


def test_policy_sev_wants_a_receiver_that_is_new_enough() -> None:
    rig, old = Rig(), Rig("rome")
    for minor, expected in ((24, S.SUCCESS), (25, S.POLICY_FAILURE)):
        handle = rig.fw.launch_start(Policy.SEV | minor << 24)
        rig.fw.launch_measure(handle)
        rig.fw.launch_finish(handle)
        assert status(lambda: rig.fw.send_start(handle, receiver(old.fw))) is expected  # noqa: B023


@pytest.mark.parametrize(("policy", "expected"), [(0, S.SUCCESS), (Policy.DOMAIN, S.POLICY_FAILURE)])
def test_policy_domain_wants_the_same_owner(policy: int, expected: Status) -> None:
    rig, other = Rig(), Rig(seed=4)
    handle = rig.guest(G.RUNNING, policy)
    assert status(lambda: rig.fw.send_start(handle, receiver(other.fw))) is expected


@pytest.mark.parametrize(("change", "expected"), [
    (lambda p, c, a: (p, flip(c, SIZE + BODY + 8), a), S.BAD_SIGNATURE),
    (lambda p, c, a: (p, flip(c, BODY + 8), a), S.BAD_SIGNATURE),
    (lambda p, c, a: (p, c[:-1], a), S.INVALID_LENGTH),
    (lambda p, c, a: (p[:-1], c, a), S.INVALID_LENGTH),
    (lambda p, c, a: (flip(p, BODY + 8), c, a), S.BAD_SIGNATURE),
    (lambda p, c, _a: (p, c, b""), S.SUCCESS),
])  # fmt: skip
def test_policy_domain_checks_the_owners_signatures(
    change: Callable[[bytes, bytes, bytes], tuple[bytes, bytes, bytes]], expected: Status
) -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING, Policy.DOMAIN)
    assert status(lambda: rig.fw.send_start(handle, shown_with(change, rig))) is expected


def test_without_either_only_the_shape_of_the_pdh_matters() -> None:
    rig = Rig()
    handle = rig.guest(G.RUNNING)
    for pdh, expected in (
        (b"", S.INVALID_LENGTH),
        (rig.fw.full_chain[PEK], S.INVALID_CERTIFICATE),
        (flip(rig.fw.pdh_cert_export().pdh, BODY + 8), S.SUCCESS),
    ):
        shown = Receiver(PlatformCertificates(pdh, b""), b"")
        assert status(lambda: rig.fw.send_start(handle, shown)) is expected  # noqa: B023


def test_emulated_amd_is_one_for_all_platforms() -> None:
    assert amd.root() is amd.root()


def shown_as(rig: Rig, cek: bytes | None = None, top: bytes | None = None) -> Status:
    """What SEND_START under POLICY.SEV says to a chain with these in the place of the right ones."""
    shown = receiver(rig.fw)
    chain = shown.platform.chain[: 2 * SIZE] + (cek or shown.platform.chain[CEK])
    changed = Receiver(PlatformCertificates(shown.platform.pdh, chain), top or shown.amd)
    handle = rig.guest(G.RUNNING, Policy.SEV)
    return status(lambda: rig.fw.send_start(handle, changed))


def test_a_root_of_somebody_elses() -> None:
    """Everything in it is signed as it has to be."""
    rig, root = Rig(), amd.root.__wrapped__()
    chip = private_key(rig.fw._sp.identity._cek_secret)
    cek = make_certificate(chip.public_key(), Usage.CEK, (1, 55), (root.signer,))
    assert shown_as(rig, cek=cek, top=root.chain) is S.INVALID_CERTIFICATE


def test_an_ask_that_says_another_signed_it() -> None:
    root = amd.root()
    body = bytearray(root.chain[:576])
    body[20:36] = b"another's ID 16b"
    assert shown_as(Rig(), top=bytes(body) + rsa_sign(root.ark, bytes(body)) + root.chain[832:]) is (
        S.INVALID_CERTIFICATE
    )


@pytest.mark.parametrize(("usage", "by", "expected"), [
    (Usage.PDH, Usage.PEK, S.SUCCESS), (Usage.PDH, Usage.CEK, S.INVALID_CERTIFICATE),
    (Usage.PEK, Usage.CEK, S.SUCCESS), (Usage.PEK, Usage.OCA, S.SUCCESS), (Usage.PEK, Usage.PEK, S.INVALID_CERTIFICATE),
    (Usage.OCA, Usage.OCA, S.SUCCESS), (Usage.OCA, Usage.CEK, S.INVALID_CERTIFICATE),
    (Usage.CEK, Usage.OCA, S.INVALID_CERTIFICATE),
])  # fmt: skip
def test_who_may_sign_whom(usage: Usage, by: Usage, expected: Status) -> None:
    """The signature is good each time."""
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = Certificate.parse(make_certificate(key.public_key(), usage, (1, 55), (Signer(key, by),)))
    if expected is S.SUCCESS:
        certificate.validate(key.public_key(), by)
        return
    with pytest.raises(Refused) as caught:
        certificate.validate(key.public_key(), by)
    assert caught.value.status is expected
