"""`docs/snp.md`: what of SEV-SNP is modelled, from which sources, and every case with what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mh_cli.snp_flips import ENDED, OPEN, REMAIN, SETTLED, STOPPED_SOONER, Flip, Question
from mh_compare.attacks import ATTACKS
from mh_emulator.snp.kvm.needs import Need
from mh_emulator.snp.notes import Outcome, Step
from mh_emulator.snp.run import Case

_HEAD = """\
# The SNP machine

*Made by `build.py snp --markdown`: every outcome below was executed on the emulated secure processor and RMP.*

SEV and SEV-ES cannot prevent that a host exchanges pages of a guest, writes old ciphertext back, or loads a helper
elsewhere. SEV-SNP can. Here are its two halves, each of which can be used on its own: the reverse map table (RMP) and
the secure processor's SNP commands. KVM launches guests on them, whose vCPUs ask the RMP for every access. How the
helper runs there, and moves a guest, is [at the end](#a-helper-under-snp).

| room | what |
|---|---|
| `mh_emulator/rmp/` | entries and page states, RMPUPDATE, PSMASH, PVALIDATE, RMPADJUST, the checks of every access |
| `mh_emulator/psp/snp/` | the commands, guest contexts, digests, guest messages, reports, swapped pages |
| `mh_emulator/cpu/` | `nested.py` asks the RMP, `ownership.py` has PVALIDATE and RMPADJUST, `snp_vmrun.py` VMRUN |
| `mh_emulator/kvm/` | `snp_vm.py` and `snp_vcpu.py`: KVM's VM type for SNP, with what it refuses |
| `mh_emulator/attest/` | the owner: whom it believes by a report, and how the transport record reaches helpers |
| `mh_emulator/snp/` | a host without KVM, a guest's end of its messages, the cases below; in `kvm/` those with vCPUs |

## From where

* **The secure processor**: AMD's published firmware 1.55.25 for Genoa. The checks of every command are in its order; a
  command that is refused changes nothing. Milan and Turin run other builds, whose source is not public: they differ
  here in the layout of TCB versions and in the chip's ID alone.
* **Fields and states of the RMP, return codes, error codes**: the same firmware, Linux, COCONUT-SVSM.
* **What PVALIDATE, RMPADJUST and accesses check, and in which order**: recollection of AMD64 APM volumes 2 and 3, whose
  text we do not have; it agrees with the model of the hardware in microsoft/verismo, but for reads without the C-bit,
  which that model forbids as it does writes.
* **KVM**: Linux, arch/x86/kvm/svm/sev.c, by reading: launch, page state changes, guest requests, AP creation.
* **That #VC for a page that is not validated puts its address into CR2, and is contributory to a double fault**:
  recollection of APM volume 2.
* **What RMPUPDATE and PSMASH refuse**: recollection too. Two rules are ours: a page without an ASID has no GPA, or a
  host could make METADATA pages with entries of its own choice; and a page that is not assigned has neither ASID nor
  GPA and is not immutable.

## What is not modelled

* PAGE_SET_STATE, ACTIVATE_EX, INIT_EX, SHUTDOWN_EX, VLEK_LOAD, FEATURE_INFO, TIO. DOWNLOAD_FIRMWARE_EX is reduced to
  what it does to the versions.
* RMPQUERY. Of RMPREAD, which Zen 5 has, there is what RMPUPDATE may have written.
* KVM's pages of 2 MiB (every private page has 4 KiB), certificates of extended guest requests, ID blocks through KVM,
  and the erratum of VMSAs at 2 MiB, of which KVM's refusal is there. A VMPL that may write and not read a page.
* KVM tries an access that the RMP forbids again for ever; here the run ends and says why.
* Where the RMP itself lies, and its protection; segmented RMPs; the IOMMU; SEV guests beside SNP guests.
* The registers in a list of CPUID functions: the firmware compares them with what the part has.
* The tweak of VMSAs (VmsaRegProt), and that a VMSA is in use while a vCPU runs.
* A context is an object, not encrypted bytes in its page. Status goes to the caller and not into a page.
* Which bytes a host reads where ciphertext is hidden: here 0xff.
* The hash sticks from which chips make the VCEK of an older TCB out of that of a newer one: here every TCB has a key of
  its own. AMD's keys are RSA of 2048 bits and belong to the process.
* The firmware notices an answer that does not fit into its page only when the message has been carried out; here
  nothing has happened then. It leaves the ASID of a guest that was absorbed pending, and ACTIVATE_EX would start it;
  here ABSORB lets it run.

## The cases

An outcome is `works` for what the ABI offers; `refused` or `detected` (it happened, and who has to know was told) for
what somebody should not get; `succeeds` for an attack, or for what the helper has to prevent because nobody else does.
"""

_COLUMNS = "| case | what | last step | told |\n|---|---|---|---|\n"


_NEEDS = """\
## What KVM lacks

Linux's KVM launches SNP guests, and cannot migrate any: it binds no migration agent, launches no incoming image, and
its mirrors are for SEV and SEV-ES. Each line was executed twice: with KVM as it is, and on the machine below it.
`build.py snp --kvm --json` has every step.

| need | what | KVM today | without KVM between | what KVM would have to add |
|---|---|---|---|---|
"""

_FLIPS = """\
## What flips

`build.py compare` carries out every attack of [compare.md](compare.md#under-snp) on a guest whose helper is at its
VMPL0 as well. So they end on guests of plain SEV, of SEV-ES, and there. These succeed somewhere, and under SNP no more:

| attack | SEV | SEV-ES | SNP |
|---|---|---|---|
"""

_SOONER = """
These made noise of a page, and now do not touch it:

| attack | SEV | SEV-ES | SNP |
|---|---|---|---|
"""

_REMAIN = """
These remain; why, [compare.md](compare.md#why-some-succeed) says:

| attack | SEV | SEV-ES | SNP |
|---|---|---|---|
"""

_QUESTIONS = """
### The questions of 2021

What the thread on mirror VMs asked or left open about a helper and its host, and which attacks answer it. SNP settles:

| question | answer | attacks |
|---|---|---|
"""

_OPEN = """
It does not settle:

| question | answer | attacks |
|---|---|---|
"""

_STAYS = """
Nor does it settle what was asked about RAM that has no GPA, and about post-copy: a page has one GPA in the RMP, and
[the helper](#a-helper-under-snp) names pages by it; it starts no guest at the target before all has come
(`host-rolls-back-post-copy`).

"""

_HELPER = """\
## A helper under SNP

`build.py build --start snp --owner-key HEX` writes it, `build.py migrate --start snp --ram FILE` moves a guest with it:
scheme `vmpl`, on milan, genoa and turin. `emulator_tests/vmpl` and `emulator_tests/attest` carry out what is said here.

* **Where**: in the guest itself, at VMPL0, launched with a VMSA of its own; the guest runs at VMPL1, on vCPUs of its
  own. KVM as it is can do that (`vcpu-of-vmpl1`); one vCPU for both needs the two lines about VMPLs above. The guest's
  kernel reaches no page of the helper, and not its own VMSA, with which it could give itself VMPL0: #NPF.
* **No mirror** of an SNP guest runs (`vcpu-mirror`), and one that KVM let run would see a page at the GPA that the
  guest has it at, or not at all (`vcpu-mirror-elsewhere`). So the other schemes refuse `--start snp`, and `vmpl` any
  other start.
* **The space** is that of `alias-gpa`, 1:1. Behind the RAM limit lie the VMSAs, page n that of vCPU n. The rings are
  shared pages, which the host never makes private.
* **Pages of the target** come from the host with the first touch. The helper validates a page when its packet's header
  is right, and keeps a bit for it: none is validated twice, so one that the host replaces afterwards is #VC, at which
  the helper stops for good (`vcpu-validate-remapped`, which succeeds where nobody remembers). CF = 1 where no bit is
  says that somebody else has validated the page: MH_NOT_FRESH, and nothing is written.
* **Rights** of VMPL1 are given when a page is whole. One whose import failed is validated, but a fault for the guest,
  as one that never came is: a host that leaves a page out cannot put garbage in its place. Nor the contents that an
  earlier session has brought: START of a target takes the rights back. At the source the host asks for the rights, for
  the pages of the launch (SHARE with MH_BATCH_PRIVATE); the helper's own are refused.
* **Registers**: a VMSA arrives as a page. RUN makes it a VMSA by RMPADJUST, if it is one for VMPL1, and asks for
  AP_CREATION; EXPORT makes it data again, and then reads it. So no landing as under SEV-ES is needed.
* **Keys**: there is no LAUNCH_SECRET, so the helper asks ([protocol.md](protocol.md#the-record-under-snp)). Both halves
  are built. The owner checks chain, TCB, policy, VMPL, agent and digest, each refusal with its reason, and seals the
  record for both shares or for none, and once (`attest`, and what it refuses). The helper (`payload/attest.s`) has the
  owner's public key in its measured pages, or a host could seal a record of its own (`attest-by-host`). It asks once,
  and wipes the VMPCKs of other VMPLs before: who has any of them may put another context in the guest's place
  (`absorb-noma-by-vmpl3`). So the guest at VMPL1 gets no reports of its own. VMPCK0 goes when the record comes, unless
  the owner lets the context move.
* **One copy**: FINISH is refused while a page is a VMSA (MH_RUNNING), and ring 0's part in it makes the guest gone
  before its packet is sealed, whatever comes of that. From then on the source's helper refuses RUN and START, for good:
  under SNP nobody starts it anew, and nobody else makes a VMSA. The target refuses RUN until all rings agree that all
  has come, and START as a target afterwards. `migrate` tries both hosts at the end: `copies` is 1. Before FINISH a
  migration can be given up, and the guest goes on at the source.
* **The context**, `migrate --context`: what the secure processor knows of the guest (digests, policy, the root of its
  keys) goes as the last packet but one ([protocol.md](protocol.md#the-context-under-snp)). The source's helper has it
  by EXPORT, the target's becomes the guest by ABSORB_NOMA: reports show the source's LD from then on, keys of the VMRK
  are the same. Both helpers are launched as incoming image, VMSAs included, so the target's LD is the source's IMD.
  KVM as it is cannot do that (`image-page`, `image-vmsa`, `context-address` above); here is one that can. Without it
  the target is a guest of its own, which the owner believes by its own digest.

What is not there: post-copy (RESUME before FINISH starts no guest), pages that a guest at VMPL1 has validated after its
launch, for which it would have to ask the helper, and an IGVM file. That a VMSA is in use is not modelled; the helper
leaves such a one as it is, and FINISH stays refused. Messages of the guest's own: nobody has a VMPCK after a move, so
what its context proves, a helper that serves the guest's messages would have to ask.
"""


def render(cases: Sequence[Case], needs: Sequence[Need]) -> str:
    """The whole page."""
    parts = (_HEAD, *_tables(cases), "".join(_flips()) + _needs(needs), _HELPER)
    return "\n".join(parts)


def _flips() -> Iterator[str]:
    for head, flips in ((_FLIPS, ENDED), (_SOONER, STOPPED_SOONER), (_REMAIN, REMAIN)):
        yield head + "".join(map(_flip, flips))
    for head, questions in ((_QUESTIONS, SETTLED), (_OPEN, OPEN)):
        yield head + "".join(map(_question, questions))
    yield _STAYS


def _flip(flip: Flip) -> str:
    cells = (ATTACKS[flip.attack].title, *map(_bold, (flip.sev, flip.es, flip.snp)))
    return f"| {' | '.join(cells)} |\n"


def _bold(said: str) -> str:
    return re.sub(r"^succeeds", "**succeeds**", said)


def _question(question: Question) -> str:
    names = ", ".join(f"`{attack}`" for attack in question.attacks)
    return f"| {question.text} | {question.answer} | {names} |\n"


def _needs(needs: Sequence[Need]) -> str:
    first = [need for need in needs if need.part == needs[0].part]
    return _NEEDS + "".join(
        f"| `{need.id}` | {need.what} | {_step(need.today[-1])} | {_step(need.then[-1])} | {need.missing} |\n"
        for need in first
    )


def _step(step: Step) -> str:
    return f"{step.command}: {step.told}"


def _tables(cases: Sequence[Case]) -> Iterator[str]:
    names = list(dict.fromkeys(case.part for case in cases))
    yield f"Played on {' and '.join(names)}{_differences(cases)}.\n"
    for outcome in Outcome:
        rows = [_row(case) for case in cases if case.part == names[0] and case.outcome is outcome]
        yield f"### {outcome.value.capitalize()}\n\n{_COLUMNS}" + "".join(rows)


def _row(case: Case) -> str:
    last = case.steps[-1]
    return f"| `{case.id}` | {case.what} | {last.command} | {last.told} |\n"


def _differences(cases: Sequence[Case]) -> str:
    told: dict[str, set[object]] = {}
    for case in cases:
        told.setdefault(case.id, set()).add((case.outcome, case.steps))
    different = [name for name, outcomes in told.items() if len(outcomes) > 1]
    return f"; they differ in {', '.join(different)}" if different else "; there is no difference"
