"""What the owner says of reports that real helpers have made, and that a host shows in another way than it got them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from emulator_tests.attest.machine import FIRMWARE, PRIVATE, SECRET, SOURCE, TARGET, SnpHelper, trust_of
from mh_emulator.attest.owner import NotBelieved, Reason, Shown, SnpOwner, Trust
from mh_emulator.attest.share import Binding, unseal
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy


def challenge(size: int) -> bytes:
    """The same at every call: so reports can be shown again to another owner."""
    return bytes(range(size))


@dataclass
class Met:
    """Both helpers' reports, and whom the owner expects."""

    trust: Trust
    source: Shown
    target: Shown

    def owner(self, draw: Callable[[int], bytes] = challenge) -> SnpOwner:
        """One with a record to give, and challenges that are out."""
        owner = SnpOwner(self.trust, SECRET.table(), PRIVATE, draw)
        owner.challenge(SOURCE)
        owner.challenge(TARGET)
        return owner


@pytest.fixture(scope="module")
def met() -> Met:
    source, target = SnpHelper(seed=1, firmware=FIRMWARE), SnpHelper(seed=2)
    shown = [side.messenger.show(role, challenge(16)) for role, side in ((SOURCE, source), (TARGET, target))]
    return Met(trust_of(source, target), *shown)


def reason(owner: SnpOwner, source: Shown, target: Shown) -> Reason:
    with pytest.raises(NotBelieved) as told:
        owner.give(source, target)
    return told.value.reason


def test_both_are_believed_once(met: Met) -> None:
    owner = met.owner()
    first, second = owner.give(met.source, met.target)
    assert first != second
    assert reason(owner, met.source, met.target) is Reason.CHALLENGE
    owner.challenge(SOURCE)
    owner.challenge(TARGET)
    assert reason(owner, met.source, met.target) is Reason.GIVEN


def test_a_report_of_an_earlier_migration(met: Met) -> None:
    assert reason(met.owner(bytes), met.source, met.target) is Reason.CHALLENGE


CHANGES: dict[str, tuple[Callable[[Met], Shown], Reason]] = {
    "other-share": (lambda met: replace(met.target, share=met.source.share), Reason.CHALLENGE),
    "other-role": (lambda met: met.source, Reason.CHALLENGE),
    "forged": (
        lambda met: replace(met.target, report=met.target.report[:0x90] + bytes(48) + met.target.report[0xC0:]),
        Reason.SIGNATURE,
    ),
    "other-chip": (lambda met: replace(met.target, chain=met.source.chain), Reason.SIGNATURE),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_what_the_target_s_host_shows(met: Met, change: Callable[[Met], Shown], expected: Reason) -> None:
    assert reason(met.owner(), met.source, change(met)) is expected


def test_a_target_with_debug_in_its_policy(met: Met) -> None:
    """Its host reads the record once it is there."""
    helper = SnpHelper(seed=2, policy=DEFAULT_POLICY | SnpPolicy.DEBUG)
    assert reason(met.owner(), met.source, helper.messenger.show(TARGET, challenge(16))) is Reason.POLICY


def test_the_host_opens_no_record_without_the_helper(met: Met) -> None:
    """All that it has is what it carried."""
    sealed, _ = met.owner().give(met.source, met.target)
    binding = Binding(SOURCE, met.source.share, challenge(16))
    public = PRIVATE.public_key().public_bytes_raw()
    assert SECRET.key not in sealed
    assert unseal(sealed, binding, PRIVATE, public) is None


_RSA, _UNKNOWN = (bytes.fromhex(f"06092a864886f70d0101{last}") for last in ("01", "7f"))
"""OIDs in a key's algorithm: rsaEncryption, and one that nobody has given away."""


@pytest.mark.parametrize("number", [1, 2])
def test_a_certificate_of_a_key_of_an_unknown_kind(met: Met, number: int) -> None:
    """Of the ASK, or of the ARK: no chain, in one line."""
    chain = list(met.source.chain)
    assert _RSA in chain[number]
    chain[number] = chain[number].replace(_RSA, _UNKNOWN)
    assert reason(met.owner(), replace(met.source, chain=chain), met.target) is Reason.CHAIN
