"""`docs/isolated.md`: the answer to the thread's third scheme, in plain words and in what was executed."""

from __future__ import annotations

from collections.abc import Iterable

from mh_emulator.psp.policy import policy_names
from mh_emulator.verdict.run import Case, Outcome, Verdict
from mh_emulator.verdict.sequences import SEQUENCES
from mh_emulator.verdict.steps import Step

_HEAD = """\
# Can the secure processor isolate the helper?

*Made by `build.py psp --markdown`: every outcome below was executed on the emulated secure processor and KVM.*

In August 2021 the thread on mirror VMs ended with a question. Of three address-space schemes, the third wanted the
helper's code and data in memory that only the mirror VM has: "userspace invokes the PSP send/receive API to copy the
small requested area of the main VM into the mirror VM". Nobody knew whether that works.

## The answer

**Not as it was proposed, and it is not needed.**

* **(a) Into the mirror itself: no.** A mirror has the handle of its owner, and that guest is running. KVM refuses the
  commands on a mirror; without KVM the firmware refuses them, because the guest is in the wrong state, and gives an
  ASID to one guest only.
* **(b) Into a second VM that shares the memory key: yes, and self-defeating.** The firmware lets a second guest have
  the key of the first if the policy does not forbid it (NOKS clear, as in QEMU's default policy, 0x1). But then *any*
  host can do the same with code of its own, without the owner's knowledge: the last case below reads the guest's RAM
  that way. With NOKS set, all of (b) is refused. The policy to have sets NOSEND as well: without it and without the SEV
  bit, which asks for a certified receiver, the firmware sends the guest's pages to a receiver that the host has made.
* **(c) With the commands that a host has for its own guest: yes, with NOKS set.** LAUNCH_UPDATE_DATA takes any memory
  of the process, so at launch the helper goes, encrypted and measured, into pages that are in no slot of the main VM:
  that is what the scheme `isolated` does here. On the target of a migration RECEIVE_UPDATE_DATA does the same. For a
  guest that runs already there is COPY, which moves pages under one key and asks for no policy, but Linux has no ioctl
  for it. Or the guest copies the helper itself, before the host takes the pages out of its slots; then nothing but
  the guest's word says what was copied.

On parts whose caches are not coherent between ASIDs (Naples, Rome), a helper with an ASID of its own, as in (b), sees
what the guest wrote only after a WBINVD; in a mirror, which has the guest's ASID, it sees it at once.

"""

_PACKETS = """
## Why a transport of our own

The secure processor's packets say neither where they belong nor in which order: whoever carries them can put them
elsewhere, repeat them, exchange them or leave some out, and is not noticed. The helper's packets are bound to all that.

| attack | secure processor | helper |
|---|---|---|
"""

_TAIL = """
What this rests on: AMD's published firmware (1.55.25, for Genoa) for the order of checks and for key sharing, Linux
6.15 for KVM. That a memory key does not depend on the ASID follows from the firmware's source; nothing here ran on
hardware.
"""

_COLUMNS = ("case", "policy", "part", "outcome", "why", "the main VM, to the helper", "verdict")

_MANY = 16
"""More often than this is for every page of the helper, of which there are more or fewer in every version."""


def render(verdict: Verdict) -> str:
    """The whole page."""
    lines = [_HEAD, "## What was executed\n\n", *_summary(verdict.cases)]
    for number, case in enumerate(verdict.cases):
        if case.part == verdict.cases[-1].part:
            previous = verdict.cases[number - 1].id if number else ""
            lines += _steps(case, is_new=case.id != previous)
    told = {(handling.transport, handling.attack): handling.told for handling in verdict.packets}
    attacks = dict.fromkeys(handling.attack for handling in verdict.packets)
    lines += [_PACKETS, *(f"| {name} | {told['psp', name]} | {told['helper', name]} |\n" for name in attacks), _TAIL]
    return "".join(lines)


def _summary(cases: Iterable[Case]) -> Iterable[str]:
    yield f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}\n"
    for case in cases:
        policy = f"{case.policy:#x} ({policy_names(case.policy).replace('|', ', ')})"
        outcome = f"**{case.outcome.value}**" if case.outcome is Outcome.WORKS else case.outcome.value
        yield f"| {case.id} | {policy} | {case.part} | {outcome} | {case.why} | {case.main_vm} | {case.verdict} |\n"


def _steps(case: Case, *, is_new: bool) -> Iterable[str]:
    if is_new:
        yield f"\n### {case.id}\n\n{(SEQUENCES[case.id].__doc__ or '').splitlines()[0]}\n"
    yield f"\nPolicy {case.policy:#x} on {case.part}: {case.outcome.value}.\n\n```\n"
    yield from (f"{line(step)}\n" for step in case.steps)
    yield "```\n"


def line(step: Step) -> str:
    """A step in one line."""
    times = ", each page" if step.count > _MANY else f" x {step.count}" if step.count > 1 else ""
    return f"{step.command + times:<42}{step.told}"
