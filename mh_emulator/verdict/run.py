"""All cases: which sequence, under which policies, on which parts; and what came of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mh_abi.image import HelperImage
from mh_builder.parts import Part
from mh_emulator.psp.command import Command
from mh_emulator.psp.policy import Policy, policy_names
from mh_emulator.psp.status import Status
from mh_emulator.secret import Secret
from mh_emulator.verdict.packets import Handling, handlings
from mh_emulator.verdict.proof import Peer
from mh_emulator.verdict.scene import Cast, Scene
from mh_emulator.verdict.sequences import SEQUENCES, Stage
from mh_emulator.verdict.steps import Log, Step, Stopped

_OPEN = int(Policy.NODBG)
_NOKS = int(Policy.NODBG | Policy.NOKS)
_NOSEND = int(Policy.NODBG | Policy.NOSEND)

POLICIES: dict[str, tuple[int, ...]] = {
    "a": (_OPEN, _NOKS),
    "b": (_OPEN, _NOKS, _NOSEND),
    "b-oracle": (_OPEN, _NOKS, _NOSEND),
    "b-launch": (_OPEN, _NOKS),
    "c-launch": (_NOKS,),
    "c-target": (_NOKS,),
    "c-copy": (_NOKS,),
    "c-guest": (_NOKS,),
    "attack-key-sharing": (_OPEN, _NOKS),
}
"""Under which policies each sequence is played; 0x1 is QEMU's default."""

_SEED, _OTHER_SEED = 1, 2

Trace = Callable[[str, int, Command, Status], None]
"""Called with case, policy, and every command of the firmware as it runs."""


class Outcome(Enum):
    """How a sequence ended."""

    WORKS = "works"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Case:
    """One sequence under one policy on one part."""

    id: str
    policy: int
    part: str
    steps: tuple[Step, ...]
    outcome: Outcome
    why: str
    main_vm: str
    """What the main VM can still do to the helper."""

    @property
    def verdict(self) -> str:
        """Whether that is worth having."""
        if self.outcome is Outcome.REFUSED:
            return "defended" if self.id.startswith("attack") else "no way"
        if self.id.startswith("attack"):
            return "the guest's memory is the host's"
        return "isolated" if self.policy & Policy.NOKS else "self-defeating: any host can read such a guest"

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {
            "id": self.id,
            "policy": f"{self.policy:#x}",
            "policy_names": policy_names(self.policy),
            "part": self.part,
            "steps": [step.as_json() for step in self.steps],
            "outcome": self.outcome.value,
            "why": self.why,
            "main_vm": self.main_vm,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Verdict:
    """What came of everything."""

    cases: tuple[Case, ...]
    packets: tuple[Handling, ...]

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {
            "cases": [case.as_json() for case in self.cases],
            "packets": [handling.as_json() for handling in self.packets],
        }


def run(parts: list[Part], helper: HelperImage, trace: Trace | None = None) -> Verdict:
    """Play every sequence on these parts, with a helper of the scheme `isolated`."""
    secret = Secret.fresh()
    cases: list[Case] = []
    packets: list[Handling] = []
    for part in parts:
        cast = Cast(part, helper, secret)
        peer = Peer(cast)
        cases += _play(cast, peer, trace)
        packets = packets or handlings(cast, peer)
    return Verdict(tuple(cases), tuple(packets))


def _play(cast: Cast, peer: Peer, trace: Trace | None) -> Iterator[Case]:
    for name, policies in POLICIES.items():
        for policy in policies:
            yield play(cast, peer, name, policy, trace)


def play(cast: Cast, peer: Peer, name: str, policy: int, trace: Trace | None = None) -> Case:
    """Play one sequence."""
    log = Log()
    scene, other = Scene(cast, log, _SEED), Scene(cast, log, _OTHER_SEED)
    if trace is not None:
        for psp in (scene.platform.psp, other.platform.psp):
            psp.watchers.append(lambda command, status: trace(name, policy, command, status))
    try:
        main_vm = SEQUENCES[name](Stage(scene, other, peer, policy))
    except Stopped:
        refusals = [step for step in log.steps if step.refused]
        why = "; ".join(f"{step.command}: {step.told}" for step in refusals)
        return Case(name, policy, cast.part.name, tuple(log.steps), Outcome.REFUSED, why, "no helper")
    return Case(name, policy, cast.part.name, tuple(log.steps), Outcome.WORKS, _why(name, log.steps), main_vm)


def _why(name: str, steps: list[Step]) -> str:
    if name.startswith("attack"):
        return "a VM with the guest's key and code of the host's own copied the guest's RAM to shared memory"
    flushed = any(step.command == "WBINVD" for step in steps)
    after = ", but what the guest wrote was seen only after WBINVD" if flushed else ""
    return f"the helper ran, exported a page and imported one, both with the right plaintext{after}"
