"""Cases of helpers that want the transport record, and of hosts between them and the guest's owner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mh_abi import abi
from mh_builder.firmware.snp import PageType, SnpDigest, SnpPage, WholeLaunch, pages_at
from mh_builder.paging import PAGE_BYTES
from mh_emulator.attest.chain import Chain
from mh_emulator.attest.owner import ROLES, NotBelieved, Shown, SnpOwner, Trust, TrustedPart
from mh_emulator.attest.share import Binding, seal, unseal
from mh_emulator.psp.snp.launch import LaunchStart
from mh_emulator.psp.snp.policy import DEFAULT_POLICY, SnpPolicy
from mh_emulator.psp.snp.tcb import FIRST_TCB, Tcb
from mh_emulator.secret import Secret
from mh_emulator.snp.channel import Channel
from mh_emulator.snp.host import SECRETS_GPA, SnpHost
from mh_emulator.snp.notes import Outcome, Step
from mh_emulator.snp.report import read_report
from mh_emulator.snp.stage import GPA, IMAGE, Stage

SOURCE, TARGET = ROLES
_FIRMWARE = SnpPage(PageType.NORMAL, 0, bytes(PAGE_BYTES))


@dataclass(slots=True)
class Side:
    """One helper, and the host that speaks for it."""

    stage: Stage
    host: SnpHost
    role: abi.mh_role
    pages: Sequence[SnpPage]
    start: LaunchStart | None = None
    vmpck: int = 0
    private: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)

    @property
    def share(self) -> bytes:
        """The helper's."""
        return self.private.public_key().public_bytes_raw()

    def show(self, challenge: bytes) -> Shown:
        """A report with the helper's share, fresh from the secure processor."""
        return self.report_for(Binding(self.role, self.share, challenge))

    def report_for(self, binding: Binding) -> Shown:
        """A report with any share."""
        channel = Channel.of(self.host, self.host.run(self.pages, self.start), self.vmpck)
        report = read_report(self.stage, channel, binding.report_data)
        return Shown(report, self.host.psp.chain, binding.share, self.stage.part.name)


class Meeting:
    """Two helpers and their owner; a case changes something, then lets them meet."""

    def __init__(self, stage: Stage, floor: Tcb = FIRST_TCB) -> None:
        self.private = X25519PrivateKey.generate()
        """The owner's."""
        helper = _helper(self.public)
        with_firmware = [*helper, _FIRMWARE]
        self.stage = stage
        self.source = Side(stage, stage.host, SOURCE, with_firmware)
        self.target = Side(stage, stage.another_host(), TARGET, helper)
        self.record = Secret.fresh().table()
        digests = {SOURCE: _digest(with_firmware), TARGET: _digest(helper)}
        part = stage.part.name
        trusted = TrustedPart(floor, Chain(stage.host.psp.chain).root)
        self.trust = Trust(DEFAULT_POLICY, digests, {part: trusted})
        self.owner = SnpOwner(self.trust, self.record, self.private)

    @property
    def public(self) -> bytes:
        """The owner's key, which its helpers know."""
        return self.private.public_key().public_bytes_raw()

    def show(self) -> tuple[Shown, Shown]:
        """What both hosts show to fresh challenges."""
        return self.source.show(self.owner.challenge(SOURCE)), self.target.show(self.owner.challenge(TARGET))

    def ask(self, source: Shown, target: Shown) -> Outcome:
        """Whether the owner gives the record away; what it says is a step."""
        try:
            self.owner.give(source, target)
        except NotBelieved as refusal:
            self.stage.note(Step("owner", 1, f"refuses: {refusal.reason.value}"))
            return Outcome.REFUSED
        self.stage.note(Step("owner", 0, "SUCCESS"))
        return Outcome.SUCCEEDS

    def meet(self) -> Outcome:
        """Show, and ask."""
        return self.ask(*self.show())


def _digest(pages: Sequence[SnpPage]) -> bytes:
    digest = SnpDigest()
    for page in pages:
        digest.add(page)
    return digest.ld


def _helper(owner: bytes) -> list[SnpPage]:
    """A helper that knows its owner by this key."""
    code = pages_at(GPA, IMAGE + owner.ljust(PAGE_BYTES, b"\0"))
    return WholeLaunch().marked([*code, SnpPage(PageType.SECRETS, SECRETS_GPA)])


def _opened(stage: Stage, *, is_open: bool) -> Outcome:
    stage.note(Step("open record", 0, "SUCCESS") if is_open else Step("open record", 1, "not by the owner"))
    return stage.last()


def attested(stage: Stage) -> Outcome:
    """the owner believes both helpers, and each opens the record that is sealed for it"""
    meeting = Meeting(stage)
    challenges = {role: meeting.owner.challenge(role) for role in ROLES}
    sides = (meeting.source, meeting.target)
    given = meeting.owner.give(*(side.show(challenges[side.role]) for side in sides))
    opened = {
        unseal(sealed, Binding(side.role, side.share, challenges[side.role]), side.private, meeting.public)
        for side, sealed in zip(sides, given, strict=True)
    }
    return _opened(stage, is_open=opened == {meeting.record})


def by_host(stage: Stage) -> Outcome:
    """the host seals a record of its own for the source's share, to have it send with a key that the host knows"""
    meeting = Meeting(stage)
    side = meeting.source
    binding = Binding(side.role, side.share, meeting.owner.challenge(side.role))
    sealed = seal(Secret.fresh().table(), binding, X25519PrivateKey.generate())
    return _opened(stage, is_open=unseal(sealed, binding, side.private, meeting.public) is not None)


def other_owner(stage: Stage) -> Outcome:
    """the host launches the helper with a key of its own in the place of the owner's"""
    meeting = Meeting(stage)
    meeting.target.pages = _helper(X25519PrivateKey.generate().public_key().public_bytes_raw())
    return meeting.meet()


def replayed(stage: Stage) -> Outcome:
    """the host shows the reports of an earlier migration again"""
    meeting = Meeting(stage)
    old = meeting.show()
    meeting.show()
    return meeting.ask(*old)


def asked_twice(stage: Stage) -> Outcome:
    """the same reports are shown twice"""
    meeting = Meeting(stage)
    shown = meeting.show()
    meeting.ask(*shown)
    return meeting.ask(*shown)


def second_target(stage: Stage) -> Outcome:
    """the host lets the source migrate to a second target, with the same keys"""
    meeting = Meeting(stage)
    meeting.meet()
    meeting.target.host, meeting.target.private = stage.another_host(), X25519PrivateKey.generate()
    return meeting.meet()


def other_share(stage: Stage) -> Outcome:
    """the host puts a share of its own beside the report"""
    meeting = Meeting(stage)
    source, target = meeting.show()
    share = X25519PrivateKey.generate().public_key().public_bytes_raw()
    return meeting.ask(source, replace(target, share=share))


def other_role(stage: Stage) -> Outcome:
    """the host lets the source stand for the target too, to have a second guest with its key"""
    meeting = Meeting(stage)
    meeting.target = replace(meeting.source, role=TARGET)
    return meeting.meet()


def other_helper(stage: Stage) -> Outcome:
    """the target's host launches code of its own"""
    meeting = Meeting(stage)
    meeting.target.pages = WholeLaunch().marked(pages_at(GPA, IMAGE[::-1]))
    return meeting.meet()


def other_policy(stage: Stage) -> Outcome:
    """the target's host launches the helper with DEBUG in its policy"""
    meeting = Meeting(stage)
    meeting.target.start = LaunchStart(meeting.target.host.create(), DEFAULT_POLICY | SnpPolicy.DEBUG)
    return meeting.meet()


def with_agent(stage: Stage) -> Outcome:
    """the target's host binds a migration agent of its own, which may export what the target has"""
    meeting = Meeting(stage)
    host = meeting.target.host
    agent = host.run(pages_at(GPA, IMAGE))
    policy = DEFAULT_POLICY | SnpPolicy.MIGRATE_MA
    meeting.target.start = LaunchStart(host.create(), policy, agent.gctx)
    return meeting.meet()


def by_vmpl1(stage: Stage) -> Outcome:
    """the guest's kernel at VMPL1 asks for the record in the helper's place"""
    meeting = Meeting(stage)
    meeting.source.vmpck = 1
    return meeting.meet()


def old_tcb(stage: Stage) -> Outcome:
    """the firmware is older than the owner allows"""
    return Meeting(stage, replace(FIRST_TCB, snp=FIRST_TCB.snp + 1)).meet()


def forged(stage: Stage) -> Outcome:
    """the host puts the digest that the owner expects into the report of another helper"""
    meeting = Meeting(stage)
    expected = _digest(meeting.target.pages)
    meeting.target.pages = WholeLaunch().marked(pages_at(GPA, IMAGE[::-1]))
    source, target = meeting.show()
    return meeting.ask(source, replace(target, report=target.report[:0x90] + expected + target.report[0xC0:]))


def other_chip(stage: Stage) -> Outcome:
    """the host shows the chain of another chip"""
    meeting = Meeting(stage)
    source, target = meeting.show()
    return meeting.ask(source, replace(target, chain=source.chain))


ATTEST: Mapping[str, Callable[[Stage], Outcome]] = MappingProxyType(
    {
        "attest": attested,
        "attest-replayed": replayed,
        "attest-asked-twice": asked_twice,
        "attest-second-target": second_target,
        "attest-by-host": by_host,
        "attest-other-owner": other_owner,
        "attest-other-share": other_share,
        "attest-other-role": other_role,
        "attest-other-helper": other_helper,
        "attest-other-policy": other_policy,
        "attest-with-agent": with_agent,
        "attest-by-vmpl1": by_vmpl1,
        "attest-old-tcb": old_tcb,
        "attest-forged": forged,
        "attest-other-chip": other_chip,
    }
)
