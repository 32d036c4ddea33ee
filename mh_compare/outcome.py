"""How an attack ended, as it was seen."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from mh_abi import abi
from mh_abi.image import ImageError
from mh_emulator.attest.owner import NotBelieved
from mh_emulator.host.handover import HandoverError
from mh_emulator.host.ring import HelperRefused, HelperStopped
from mh_emulator.kvm import KvmError
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.host_memory import HostFaultError
from mh_emulator.owner import OwnerRefuses

INSTRUCTIONS = 1_000_000
"""Instructions after which a vCPU that does not stop by itself is stopped."""


class Verdict(Enum):
    """What became of an attack."""

    REFUSED = "refused"
    """Somebody said no before anything happened: the helper, KVM, the secure processor, the CPU."""
    DETECTED = "detected"
    """It was carried out, and noticed before anything came of it."""
    HARMLESS = "garbage"
    """It was carried out, and gave the attacker nothing that he could choose or read."""
    SUCCEEDS = "succeeds"
    ABSENT = "not applicable"
    """What it is about is not there."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, and what it was read from."""

    verdict: Verdict
    seen: str


class Ended(Exception):
    """The attack is over before its last step."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.seen)
        self.outcome = outcome


EXPECTED = (Ended, HandoverError, HostFaultError, KvmError, HelperRefused, HelperStopped, OwnerRefuses, ImageError)
"""Exceptions that end an attack; any other is a mistake of ours."""


def refused(seen: str) -> Outcome:
    """Somebody said no."""
    return Outcome(Verdict.REFUSED, seen)


def detected(seen: str) -> Outcome:
    """Somebody noticed."""
    return Outcome(Verdict.DETECTED, seen)


def harmless(seen: str) -> Outcome:
    """Nothing came of it."""
    return Outcome(Verdict.HARMLESS, seen)


def succeeds(seen: str) -> Outcome:
    """The attacker has what he wanted."""
    return Outcome(Verdict.SUCCEEDS, seen)


def absent(seen: str) -> Outcome:
    """There is nothing to attack, for the reason that is said."""
    return Outcome(Verdict.ABSENT, seen)


def no_slot(exit_: Exit) -> NoReturn:
    """End an attack that ran into memory without a slot."""
    raise Ended(refused(f"no memory slot at GPA {exit_.gpa:#x}"))


def by_status(status: abi.mh_status, accepted: str) -> Outcome:
    """Refused with `status`, unless that is MH_DONE: then it succeeds, as `accepted` says."""
    if status == abi.mh_status.MH_DONE:
        return succeeds(accepted)
    return refused(status.name)


def by_exception(error: Exception) -> Outcome:
    """The outcome that one of `EXPECTED` stands for."""
    match error:
        case Ended():
            return error.outcome
        case KvmError() if error.status is not None:
            return refused(f"{error.ioctl}: firmware {error.status.name} ({error.status:#04x})")
        case KvmError():
            return refused(f"{error.ioctl}: {errno.errorcode[error.errno or 0]}")
        case HostFaultError():
            return refused(f"the RMP: {error.fault.told} in the host")
        case HandoverError():
            return refused(f"the host refuses the {error}")
        case HelperRefused():
            return refused(error.status.name)
        case OwnerRefuses():
            return detected(f"the owner gives no key: {_mistrusted(error)}")
        case _:
            return detected(str(error))


def _mistrusted(error: OwnerRefuses) -> str:
    return error.reason.value if isinstance(error, NotBelieved) else str(error).split(":", maxsplit=1)[0]


def by_exit(exit_: Exit, fault: abi.mh_fault | None) -> Outcome | None:
    """What a vCPU's exit says of itself; None where it halted as it should."""
    if fault is not None:
        return detected(f"the helper's fault handler wipes its keys: vector {fault.vector}")
    match exit_.reason:
        case Reason.HLT:
            return None
        case Reason.RMP_FAULT:
            return refused(f"the RMP: #NPF {exit_.value:#x}")
        case Reason.MEMORY_FAULT:
            return refused(f"no private page at GPA {exit_.gpa:#x}")
        case Reason.SHUTDOWN:
            return harmless("the helper's vCPU stops: triple fault")
        case Reason.MMIO:
            return refused(f"no memory slot at GPA {exit_.gpa:#x}")
        case _:
            return harmless(f"the helper's vCPU stops: {exit_.reason.value}")
