"""What is claimed of the helper and its loader, and the tests that try it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence; `tests` are how the ids of its tests begin."""

    text: str
    tests: tuple[str, ...]

    def outcomes(self, outcomes: Mapping[str, str]) -> Counter[str]:
        """How many of its tests ended how."""
        return Counter(outcome for test, outcome in outcomes.items() if test.startswith(self.tests))


def _claim(text: str, *tests: str) -> Claim:
    return Claim(text, tuple(f"emulator_tests/{test}" for test in tests))


CLAIMS = (
    _claim(
        "Privileged and vector instructions are where they are expected; objdump reads all bytes as capstone does",
        "claims/test_instructions.py",
    ),
    _claim(
        "No write by name but to variables, no address that no link wrote, a lock where two vCPUs write one word",
        "claims/test_memory.py",
    ),
    _claim("Every path leaves the stack as it found it, and none uses more than there is", "claims/test_stack.py"),
    _claim(
        "No shared byte is read twice in a request, none is read back",
        "helper/test_single_fetch.py",
        "attest/test_single_fetch.py",
        "vmpl/test_context_fetch.py",
        "crypto/test_contract.py::test_shared_bytes_are_touched_once",
    ),
    _claim("A second read that is planted in an operation is found", "helper/test_planted_fetch.py"),
    _claim("A small fault that is planted in the linked bytes is noticed (a sample)", "mutation/test_mutation.py"),
    _claim(
        "Instructions and addresses do not depend on secrets",
        "crypto/test_contract.py::test_path_does_not_depend_on_secrets",
        "crypto/test_contract.py::test_the_verdict_comes_late",
        "crypto/test_x25519.py",
        "crypto/test_hkdf.py",
    ),
    _claim(
        "No secret is left in registers, on stacks or in memory",
        "crypto/test_contract.py::test_no_secret_is_left_behind",
        "helper/test_secrets.py",
        "helper/test_residue.py",
        "helper/test_forward_secrecy.py",
        "attest/test_sealed.py",
        "vmpl/test_context.py",
    ),
    _claim(
        "A submission that says more than its operation takes is refused",
        "helper/test_submissions.py",
        "attest/test_refusals.py",
        "vmpl/test_context_refusals.py",
    ),
    _claim("Rings, packets and secrets of noise end in documented answers", "helper/test_fuzz", "helper/test_launch"),
    _claim(
        "Fuzzed, guided by edges: documented statuses, nothing secret in the rings, no page written but as sealed",
        "fuzz/test_fuzz.py",
        "fuzz/test_invariants.py",
        "fuzz/test_snp_invariants.py",
    ),
    _claim(
        "A lost or restarted vCPU never leaves two live guests, nor none",
        "helper/test_lost_vcpus.py",
        "helper/test_handover",
        "fuzz/test_killed.py",
        "fuzz/test_snp_killed.py",
        "vmpl/test_stopped.py",
    ),
    _claim(
        "The loader refuses images, tables and services that are wrong",
        "firmware/test_checks.py",
        "firmware/test_loader",
    ),
    _claim(
        "Theorems about the linked code hold for every input (docs/verification.md has them)",
        "theorems/test_theorems.py::test_it_holds",
    ),
    _claim(
        "A small fault in what a theorem is about breaks it (a sample)",
        "theorems/test_theorems.py::test_faults_break_it",
    ),
    _claim("The linked image runs under another MMU than ours", "builder/test_second_engine.py"),
    _claim(
        "The linked helper answers as a helper of the protocol in Python does, byte for byte",
        "reference/test_beside.py::test_whatever_a_host_asks_for",
        "reference/test_between.py",
        "reference/test_facts.py",
        "reference/test_migration.py",
    ),
    _claim("A rule of the helper in Python that is changed is noticed", "reference/test_mutants.py"),
)


def result(outcomes: Counter[str]) -> str:
    """In words."""
    if not outcomes:
        return "not tried"
    others = [f"{number} {outcome}" for outcome, number in sorted(outcomes.items()) if outcome != "passed"]
    return ", ".join(others) or "holds"


def rows(outcomes: Mapping[str, str], claims: Iterable[Claim] = CLAIMS) -> Iterator[tuple[str, int, str]]:
    """(claim, cases, result) of a run, whose `outcomes` are by test."""
    for claim in claims:
        found = claim.outcomes(outcomes)
        yield claim.text, sum(found.values()), result(found)
