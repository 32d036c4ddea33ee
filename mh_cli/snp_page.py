"""`docs/snp.md`: what of SEV-SNP is modelled, from which sources, and every case with what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mh_emulator.snp.run import Case
from mh_emulator.snp.stage import Outcome

_HEAD = """\
# The SNP machine

*Made by `build.py snp --markdown`: every outcome below was executed on the emulated secure processor and RMP.*

SEV and SEV-ES cannot prevent that a host exchanges pages of a guest, writes old ciphertext back, or loads a helper
elsewhere. SEV-SNP can. Here are its two halves, each of which can be used on its own: the reverse map table (RMP) and
the secure processor's SNP commands. No vCPU runs on them yet: what a guest does is a call of an instruction or of a
check.

| room | what |
|---|---|
| `mh_emulator/rmp/` | entries and page states, RMPUPDATE, PSMASH, PVALIDATE, RMPADJUST, the checks of every access |
| `mh_emulator/psp/snp/` | the commands, guest contexts, digests, guest messages, reports, swapped pages |
| `mh_emulator/snp/` | a host that launches guests, a guest's end of the message channel, and the cases below |

## From where

* **The secure processor**: AMD's published firmware 1.55.25 for Genoa. The checks of every command are in its order; a
  command that is refused changes nothing. Milan and Turin run other builds, whose source is not public: they differ
  here in the layout of TCB versions and in the chip's ID alone.
* **Fields and states of the RMP, return codes, error codes**: the same firmware, Linux, COCONUT-SVSM.
* **What PVALIDATE, RMPADJUST and accesses check, and in which order**: recollection of AMD64 APM volumes 2 and 3, whose
  text we do not have; it agrees with the model of the hardware in microsoft/verismo, but for reads without the C-bit,
  which that model forbids as it does writes.
* **What RMPUPDATE and PSMASH refuse**: recollection too. Two rules are ours: a page without an ASID has no GPA, or a
  host could make METADATA pages with entries of its own choice; and a page that is not assigned has neither ASID nor
  GPA and is not immutable.

## What is not modelled

* PAGE_SET_STATE, ACTIVATE_EX, INIT_EX, SHUTDOWN_EX, VLEK_LOAD, FEATURE_INFO, TIO. DOWNLOAD_FIRMWARE_EX is reduced to
  what it does to the versions.
* RMPQUERY. Of RMPREAD, which Zen 5 has, there is what RMPUPDATE may have written.
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


def render(cases: Sequence[Case]) -> str:
    """The whole page."""
    return _HEAD + "\n" + "\n".join(_tables(cases))


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
