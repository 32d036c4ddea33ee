"""The owner of an SNP guest: what it believes, what it says where it does not, and who can open what it gives."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from mh_builder.parts import PARTS
from mh_emulator.attest.owner import ROLES, NotBelieved, Reason, Shown, SnpOwner
from mh_emulator.attest.share import Binding, unseal
from mh_emulator.psp import amd
from mh_emulator.psp.snp.platform import Config
from mh_emulator.snp.cases.attest import SOURCE, TARGET, Meeting
from mh_emulator.snp.stage import Stage

One = tuple[SnpOwner, Shown, Shown]
"""An owner who says the same again and again, and what both sides showed it."""


def meeting(part: str = "milan") -> Meeting:
    return Meeting(Stage(PARTS[part]))


@pytest.fixture(scope="module")
def shown() -> One:
    made = meeting()
    made.owner = SnpOwner(made.trust, made.record, made.private, lambda size: bytes(range(size)))
    return made.owner, *made.show()


def refusal(shown: One, **changes: object) -> NotBelieved:
    """What the owner says of the target."""
    owner, source, target = shown
    for role in ROLES:
        owner.challenge(role)
    with pytest.raises(NotBelieved) as told:
        owner.give(source, replace(target, **changes))  # type: ignore[arg-type]
    assert "\n" not in str(told.value)
    assert told.value.reason is not Reason.GIVEN
    assert str(told.value).startswith("target: ")
    return told.value


def opened(sealed: bytes, private: X25519PrivateKey, owner: bytes, role: int, challenge: bytes) -> bytes:
    """The record, by RFC 5869 step by step and without the code under test."""
    share = private.public_key().public_bytes_raw()
    data = share + challenge + bytes([role, 0, 0, 0]) + b"SEV MH share"
    secret = private.exchange(X25519PublicKey.from_public_bytes(owner))
    extracted = hmac.digest(challenge, secret, "sha256")
    return AESGCM(hmac.digest(extracted, data + b"\1", "sha256")).decrypt(bytes(12), sealed, data)


@pytest.mark.parametrize("part", ["milan", "genoa", "turin"])
def test_both_helpers_open_the_record(part: str) -> None:
    made = meeting(part)
    challenges = {role: made.owner.challenge(role) for role in ROLES}
    source, target = made.owner.give(made.source.show(challenges[SOURCE]), made.target.show(challenges[TARGET]))
    assert opened(source, made.source.private, made.public, 1, challenges[SOURCE]) == made.record
    assert opened(target, made.target.private, made.public, 2, challenges[TARGET]) == made.record
    assert made.record not in source + target


def test_record_opens_for_its_side_and_challenge_alone() -> None:
    made = meeting()
    challenges = {role: made.owner.challenge(role) for role in ROLES}
    source, _ = made.owner.give(made.source.show(challenges[SOURCE]), made.target.show(challenges[TARGET]))
    private, public = made.source.private, made.public
    right = Binding(SOURCE, made.source.share, challenges[SOURCE])
    assert unseal(source, right, private, public) == made.record
    for wrong in (replace(right, role=TARGET), replace(right, challenge=bytes(16)), replace(right, share=bytes(32))):
        assert unseal(source, wrong, private, public) is None
    assert unseal(source, right, made.target.private, public) is None
    assert unseal(source[:-1] + bytes([source[-1] ^ 1]), right, private, public) is None
    assert unseal(source, right, private, bytes(32)) is None
    assert unseal(b"", right, private, public) is None


def test_nobody_gets_a_record_where_one_is_not_believed() -> None:
    made = meeting()
    source, target = made.show()
    with pytest.raises(NotBelieved, match="target: report: expected 0x4a0 bytes, found 0x0"):
        made.owner.give(source, replace(target, report=b""))
    with pytest.raises(NotBelieved, match="source: challenge: expected one that is not used up, found none"):
        made.owner.give(source, target)


@given(flipped=st.integers(0, 0x2A0 * 8 - 1))
@settings(max_examples=40, deadline=None)
def test_no_bit_of_a_report_can_be_changed(shown: One, flipped: int) -> None:
    report = bytearray(shown[2].report)
    report[flipped // 8] ^= 1 << flipped % 8
    assert refusal(shown, report=bytes(report)).reason in (Reason.SIGNATURE, Reason.FORM)


@given(report=st.binary(min_size=0x4A0, max_size=0x4A0) | st.binary(max_size=64))
@settings(max_examples=40, deadline=None)
def test_noise_is_no_report(shown: One, report: bytes) -> None:
    assert refusal(shown, report=report).reason in (Reason.SIGNATURE, Reason.FORM)


@given(chain=st.lists(st.binary(max_size=200), max_size=4))
@settings(max_examples=40, deadline=None)
def test_noise_is_no_chain(shown: One, chain: Sequence[bytes]) -> None:
    assert refusal(shown, chain=chain).reason is Reason.CHAIN


@pytest.mark.parametrize("signature", [b"", b"\xff" * 0x200, (0).to_bytes(0x200), b"\1".ljust(0x200, b"\0")])
def test_signatures_that_are_none(shown: One, signature: bytes) -> None:
    report = (shown[2].report[:0x2A0] + signature).ljust(0x4A0, b"\0")
    assert refusal(shown, report=report).reason is Reason.SIGNATURE


def test_chains_of_others(shown: One) -> None:
    chain = list(shown[2].chain)
    assert refusal(shown, chain=chain[::-1]).reason is Reason.CHAIN
    assert refusal(shown, chain=[chain[0], chain[2], chain[2]]).reason is Reason.CHAIN
    own = X25519PrivateKey.generate()
    assert refusal(shown, share=own.public_key().public_bytes_raw()).reason is Reason.CHALLENGE
    assert refusal(shown, chain=meeting("genoa").target.host.psp.chain).reason is Reason.CHAIN
    told = refusal(shown, chain=own_chain())
    assert told.reason is Reason.CHAIN
    assert str(told).startswith("target: root: expected ")
    assert str(refusal(shown, part="rome")) == "target: part: expected one of milan, found 'rome'"


def own_chain() -> list[bytes]:
    """Certificates that lead to a root of the host's own."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ARK-Milan")])
    start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, end)
    return [builder.sign(key, hashes.SHA384()).public_bytes(Encoding.DER)] * 3


def vcek_with(genuine: bytes, oid: str, value: bytes, key: ec.EllipticCurvePublicKey) -> bytes:
    """The VCEK once more, signed by AMD, with another extension."""
    old = x509.load_der_x509_certificate(genuine)
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, key, old.serial_number, old.not_valid_before_utc, old.not_valid_after_utc
    )
    for extension in old.extensions:
        content = value if extension.oid.dotted_string == oid else extension.value.public_bytes()
        builder = builder.add_extension(x509.UnrecognizedExtension(extension.oid, content), critical=False)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=48)
    return builder.sign(amd.root().ask, hashes.SHA384(), rsa_padding=pss).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        ("3.3", b"\2\1\x63"),
        ("3.8", b""),
        ("4", bytes(64)),
        ("2", b"\x16\5Genoa"),
        ("4", b"\1" * 64),
        ("3.1", b"\2\1\5"),
    ],
)
def test_vcek_of_another_tcb_or_chip(shown: One, oid: str, value: bytes) -> None:
    chain = list(shown[2].chain)
    key = x509.load_der_x509_certificate(chain[0]).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    changed = vcek_with(chain[0], f"1.3.6.1.4.1.3704.1.{oid}", value, key)
    told = refusal(shown, chain=[changed, *chain[1:]])
    assert told.reason is Reason.CHAIN
    assert "VCEK: expected milan, TCB " in str(told)


def test_chip_may_be_masked() -> None:
    made = meeting()
    made.target.host.psp.config(Config(mask_chip_id=True))
    source, target = made.show()
    assert target.report[0x1A0:0x1E0] == bytes(64)
    made.owner.give(source, target)


def test_masked_chip_key_signs_nothing() -> None:
    made = meeting()
    made.target.host.psp.config(Config(mask_chip_key=True))
    source, target = made.show()
    with pytest.raises(NotBelieved, match="target: report: expected a signature of the VCEK") as told:
        made.owner.give(source, target)
    assert told.value.reason is Reason.SIGNATURE


@pytest.mark.parametrize("share", [b"", bytes(31), bytes(33)])
def test_shares_of_another_length(shown: One, share: bytes) -> None:
    assert str(refusal(shown, share=share)) == f"target: share: expected 32 bytes, found {len(share)}"


@pytest.mark.parametrize("share", [bytes(32), (1).to_bytes(32, "little")])
def test_share_that_gives_no_secret(share: bytes) -> None:
    """A point of small order, which a report vouches for: a helper that is not the owner's would have to show it."""
    made = meeting()
    source = made.source.show(made.owner.challenge(SOURCE))
    challenge = made.owner.challenge(TARGET)
    target = made.target.report_for(Binding(TARGET, share, challenge))
    with pytest.raises(NotBelieved, match="target: share: expected one that gives a secret") as told:
        made.owner.give(source, target)
    assert told.value.reason is Reason.SHARE


def test_two_sides_have_two_shares() -> None:
    made = meeting()
    made.target.private = made.source.private
    with pytest.raises(NotBelieved, match="target: share: expected another one than the source's") as told:
        made.owner.give(*made.show())
    assert told.value.reason is Reason.SHARE
