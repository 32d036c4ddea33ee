"""The owner of an SNP guest: gives both helpers of a migration the transport record, if it believes both.

Nothing of this is secret but the record: a broker can ask for it beforehand, and the owner need not be there while
pages move. It gives a record to both sides or to none, and once: whoever migrates again needs a fresh one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mh_abi import abi
from mh_emulator.attest.chain import Chain, ChainError
from mh_emulator.attest.report import SIGNED_BY_VCEK, FormError, Report
from mh_emulator.attest.share import CHALLENGE_BYTES, SHARE_BYTES, Binding, seal
from mh_emulator.owner import OwnerRefuses
from mh_emulator.psp.crypto import RandomBytes
from mh_emulator.psp.snp.context import NO_REPORT_ID
from mh_emulator.psp.snp.tcb import Tcb

ROLES = (abi.mh_role.MH_ROLE_SOURCE, abi.mh_role.MH_ROLE_TARGET)


class Reason(Enum):
    """Why a helper gets no record, for a program that has to act on it."""

    FORM = "form"
    CHAIN = "chain"
    SIGNATURE = "signature"
    CHALLENGE = "challenge"
    SHARE = "share"
    VMPL = "VMPL"
    POLICY = "policy"
    AGENT = "agent"
    TCB = "TCB"
    DIGEST = "digest"
    GIVEN = "given"


class NotBelieved(OwnerRefuses):
    """The owner does not believe a helper; one line with what was expected and found."""

    def __init__(self, role: abi.mh_role, reason: Reason, problem: str) -> None:
        super().__init__(f"{_NAMES[role]}: {problem}")
        self.reason = reason


_NAMES = {abi.mh_role.MH_ROLE_SOURCE: "source", abi.mh_role.MH_ROLE_TARGET: "target"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a host shows for its helper."""

    report: bytes
    chain: Sequence[bytes]
    """VCEK, ASK and ARK in DER."""
    share: bytes
    """The helper's X25519 share."""
    part: str
    """Which layout of TCB_VERSION, and which root: the product name in lower case."""


@dataclass(frozen=True, slots=True)
class TrustedPart:
    """What an owner demands of a part."""

    floor: Tcb
    """The oldest TCB."""
    root: bytes
    """SHA-256 of the ARK's SubjectPublicKeyInfo."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What an owner has to find."""

    policy: int
    digests: Mapping[abi.mh_role, bytes]
    """LD of the source with firmware and helper; of the target, where LD is IMD."""
    parts: Mapping[str, TrustedPart]


class SnpOwner:
    """Somebody who owns one guest, and has one `record` for its helpers, which know the public half of `private`.

    The record is the whole table that LAUNCH_SECRET would bring (`Secret.table`): so a helper expects it.
    """

    def __init__(
        self, trust: Trust, record: bytes, private: X25519PrivateKey, random_bytes: RandomBytes = os.urandom
    ) -> None:
        self._trust = trust
        self._record: bytes | None = record
        """None when it has been given away."""
        self._private = private
        self._random = random_bytes
        self._challenges: dict[abi.mh_role, bytes] = {}

    def challenge(self, role: abi.mh_role) -> bytes:
        """What the helper of that side has to answer to; an earlier one is void."""
        self._challenges[role] = self._random(CHALLENGE_BYTES)
        return self._challenges[role]

    def give(self, source: Shown, target: Shown) -> tuple[bytes, bytes]:
        """The record, sealed for both sides. Raises `NotBelieved`; either way both challenges are used up."""
        challenges, self._challenges = self._challenges, {}
        sides = zip(ROLES, (source, target), strict=True)
        bound_source, bound_target = (self._believe(role, shown, challenges.get(role)) for role, shown in sides)
        if bound_source.share == bound_target.share:
            problem = f"share: expected another one than the source's, found {bound_target.share.hex()} too"
            raise NotBelieved(bound_target.role, Reason.SHARE, problem)
        sealed = self._sealed(bound_source), self._sealed(bound_target)
        self._record = None
        return sealed

    def _sealed(self, binding: Binding) -> bytes:
        if self._record is None:
            raise NotBelieved(
                binding.role, Reason.GIVEN, "record: expected one for this migration, found it given away"
            )
        try:
            return seal(self._record, binding, self._private)
        except ValueError:
            problem = f"share: expected one that gives a secret, found {binding.share.hex()}"
            raise NotBelieved(binding.role, Reason.SHARE, problem) from None

    def _believe(self, role: abi.mh_role, shown: Shown, challenge: bytes | None) -> Binding:
        if challenge is None:
            raise NotBelieved(role, Reason.CHALLENGE, "challenge: expected one that is not used up, found none")
        if len(shown.share) != SHARE_BYTES:
            problem = f"share: expected {SHARE_BYTES} bytes, found {len(shown.share)}"
            raise NotBelieved(role, Reason.SHARE, problem)
        report = self._authentic(role, shown)
        binding = Binding(role, shown.share, challenge)
        for reason, name, expected, found in (
            (Reason.CHALLENGE, "report data", binding.report_data, report.data),
            (Reason.AGENT, "report ID of an agent", NO_REPORT_ID, report.report_id_ma),
            (Reason.DIGEST, "launch digest", self._trust.digests[role], report.measurement),
        ):
            if expected != found:
                raise NotBelieved(role, reason, f"{name}: expected {expected.hex()}, found {found.hex()}")
        self._check_numbers(role, shown.part, report)
        return binding

    def _authentic(self, role: abi.mh_role, shown: Shown) -> Report:
        """The report, if a chip of a part that the owner trusts has made it."""
        part = self._trust.parts.get(shown.part)
        if part is None:
            expected = ", ".join(sorted(self._trust.parts))
            raise NotBelieved(role, Reason.CHAIN, f"part: expected one of {expected}, found {shown.part!r}")
        try:
            report, chain = Report.parse(shown.report), Chain(shown.chain)
        except FormError as error:
            raise NotBelieved(role, Reason.FORM, str(error)) from None
        except ChainError as error:
            raise NotBelieved(role, Reason.CHAIN, str(error)) from None
        if chain.root != part.root:
            raise NotBelieved(role, Reason.CHAIN, f"root: expected {part.root.hex()}, found {chain.root.hex()}")
        if report.signing_key != SIGNED_BY_VCEK or not chain.signed(shown.report):
            raise NotBelieved(role, Reason.SIGNATURE, "report: expected a signature of the VCEK, found none that fits")
        if not chain.is_of(report, shown.part):
            problem = (
                f"VCEK: expected {shown.part}, TCB {report.reported_tcb:#x} and the chip of the report, found another"
            )
            raise NotBelieved(role, Reason.CHAIN, problem)
        return report

    def _check_numbers(self, role: abi.mh_role, part: str, report: Report) -> None:
        if report.vmpl:
            raise NotBelieved(role, Reason.VMPL, f"VMPL: expected 0, found {report.vmpl}")
        if report.policy != self._trust.policy:
            problem = f"policy: expected {self._trust.policy:#x}, found {report.policy:#x}"
            raise NotBelieved(role, Reason.POLICY, problem)
        floor = self._trust.parts[part].floor
        for name, value in (("reported", report.reported_tcb), ("committed", report.committed_tcb)):
            tcb = Tcb.parse(value, part)
            if tcb is None or floor.exceeds(tcb):
                problem = f"{name} TCB: expected {floor.pack(part):#x} or later, found {value:#x}"
                raise NotBelieved(role, Reason.TCB, problem)
