"""The cases of `build.py snp`: how each ends, word for word; the command, and the page that it makes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emulator_tests.command.conftest import ROOT, Command, command
from mh_builder.parts import PARTS
from mh_cli import snp_page
from mh_cli.snp import DEFAULT_PARTS
from mh_emulator.psp.snp.command import SnpCommand
from mh_emulator.psp.snp.message import MessageType
from mh_emulator.snp.kvm.needs import Need, needs
from mh_emulator.snp.run import CASES, Case, run

__all__ = ["command"]

SUCCEEDS = {
    "swap-data-as-vmsa", "export-by-agent-vmpl3", "import-by-stranger", "absorb-by-stranger", "absorb-noma-by-vmpl3",
    "two-copies", "rmp-host-read", "vcpu-validate-remapped", "vcpu-host-read",
}  # fmt: skip
"""What the published firmware lets happen, and the ciphertext that a host sees."""
DETECTED = {
    "launch-elsewhere": "different", "report-forged": "bad signature", "report-of-another-chip": "bad signature",
    "answer-replayed": "another message's", "rmp-validate-twice": "CF", "rmp-replace-page": "#VC",
    "vcpu-old-page": "#VC", "vcpu-validate-again": "CF",
}  # fmt: skip
REFUSED = {
    "gctx-create-twice": "INVALID_PAGE_STATE", "launch-reserved-policy": "POLICY_FAILURE",
    "launch-agent-without-policy": "POLICY_FAILURE", "launch-agent-of-agent": "POLICY_FAILURE",
    "activate-with-pages": "INVALID_CONFIG", "activate-owned-asid": "ASID_OWNED", "launch-other-page": "INVALID_PARAM",
    "launch-image-and-finish": "INVALID_GUEST_STATE", "id-block-of-another-guest": "BAD_MEASUREMENT",
    "stale-context": "INVALID_GUEST", "tcb-report-more": "INVALID_PARAM", "tcb-downgrade": "BAD_SVN",
    "swap-out-in-use": "INVALID_PAGE_STATE", "swap-replay": "INVALID_MDATA_ENTRY", "swap-changed": "BAD_MEASUREMENT",
    "page-move-to-another-guest": "INVALID_PAGE_OWNER", "page-reclaim-context": "INVALID_PAGE_STATE",
    "debug-without-policy": "POLICY_FAILURE", "debug-write-without-policy": "POLICY_FAILURE",
    "report-for-a-higher-vmpl": "INVALID_PARAM", "key-of-a-newer-tcb": "INVALID_PARAM",
    "message-replayed": "AEAD_OFLOW", "message-changed": "BAD_MEASUREMENT",
    "answer-into-the-guest": "INVALID_PAGE_STATE", "export-by-vmpl1": "INVALID_GUEST",
    "export-by-stranger": "INVALID_GUEST", "export-by-replaced-agent": "INVALID_GUEST",
    "export-with-agent-by-itself": "INVALID_GUEST",
    "import-without-pages": "INVALID_MDATA_ENTRY", "absorb-other-image": "BAD_MEASUREMENT",
    "absorb-twice": "INVALID_GUEST_STATE", "absorb-noma-beside-the-image": "BAD_MEASUREMENT",
    "attest-replayed": "refuses: challenge", "attest-asked-twice": "refuses: challenge",
    "attest-second-target": "refuses: given", "attest-by-host": "not by the owner",
    "attest-other-owner": "refuses: digest",
    "attest-other-share": "refuses: challenge", "attest-other-role": "refuses: digest",
    "attest-other-helper": "refuses: digest", "attest-other-policy": "refuses: policy",
    "attest-with-agent": "refuses: agent", "attest-by-vmpl1": "refuses: VMPL", "attest-old-tcb": "refuses: TCB",
    "attest-forged": "refuses: signature", "attest-other-chip": "refuses: signature",
    "vmrk-by-stranger": "INVALID_GUEST", "rmp-validate-not-assigned": "#NPF", "rmp-validate-at-vmpl1": "#GP",
    "rmp-exchange-pages": "#NPF", "rmp-alias-page": "#NPF", "rmp-host-write": "#PF", "rmp-host-read-hidden": "hidden",
    "rmp-shared-write": "#NPF", "rmp-vmpl1-reads-helper": "#NPF", "rmp-rights-taken-by-vmpl1": "FAIL_PERMISSION",
    "rmp-vmsa-by-host": "VMEXIT_INVALID", "rmp-metadata-by-host": "FAIL_INPUT", "rmp-take-immutable": "FAIL_PERMISSION",
    **dict.fromkeys(("vcpu-exchange-pages", "vcpu-exchange-tables", "vcpu-exchange-code"), "#NPF"),
    **dict.fromkeys(("vcpu-page-of-another-guest", "vcpu-vmpl1-reads-helper", "vcpu-vmpl1-writes-helper"), "#NPF"),
    **dict.fromkeys(("vcpu-vmpl1-makes-vmsa", "vcpu-vmsa-by-host", "vcpu-mirror"), "VMEXIT_INVALID"),
    "vcpu-mirror-elsewhere": "#NPF",
    "vcpu-old-ciphertext": "#PF", "vcpu-share-private-page": "KVM_EXIT_MEMORY_FAULT", "vcpu-vmpl1-validates": "#GP",
    "vcpu-vmpl1-takes-rights": "FAIL_PERMISSION", "vcpu-host-read-hidden": "hidden",
}  # fmt: skip
"""What the last step was told."""


@pytest.fixture(scope="module")
def cases() -> tuple[Case, ...]:
    return run([PARTS[name] for name in DEFAULT_PARTS])


@pytest.fixture(scope="module")
def lacks() -> tuple[Need, ...]:
    return needs([PARTS[name] for name in DEFAULT_PARTS])


TODAY = {
    "agent-policy": "EINVAL", "agent-bound": "EINVAL", "image-context": "EINVAL", "image-page": "EINVAL",
    "image-vmsa": "BAD_MEASUREMENT", "context-address": "INVALID_GUEST", "export-and-die": "INVALID_GUEST",
    "vmpl-vcpu": "INVALID_INPUT", "vmpl-switch": "INVALID_EVENT", "mirror-vcpu": "VMEXIT_INVALID",
    "mirror-memory": "shutdown",
}  # fmt: skip
"""What KVM as it is, or what it leaves undone, comes to."""


def test_what_kvm_lacks(lacks: tuple[Need, ...]) -> None:
    """Refused today, and done by the machine below."""
    assert {(need.id, need.part): need.today[-1].name for need in lacks} == {
        (name, part): told for name, told in TODAY.items() for part in DEFAULT_PARTS
    }
    assert {step.name for need in lacks for step in need.then} == {"SUCCESS"}


def test_kvm_as_json_and_as_a_table(command: Command) -> None:
    outcome = command("snp", "--kvm", "--part", "turin", "--json")
    found = json.loads(outcome.out)
    assert (outcome.code, outcome.err, found["schema"]) == (0, "", "sev-migration-helper/snp-kvm/1")
    assert [need["id"] for need in found["needs"]] == list(TODAY)
    first = found["needs"][0]
    assert (first["today"][-1]["status_name"], first["then"][-1]["status_name"]) == ("EINVAL", "SUCCESS")
    outcome = command("snp", "--kvm", "--part", "turin")
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert sum(line.startswith(tuple(TODAY)) for line in lines) == len(TODAY)
    assert any("RUN_VMPL: INVALID_EVENT 0x06 VMRUN of VMPL0: SUCCESS 0x00" in line for line in lines)


def test_how_every_case_ends(cases: tuple[Case, ...]) -> None:
    told: dict[str, dict[str, Any]] = {"succeeds": {}, "detected": {}, "refused": {}, "works": {}}
    for case in cases:
        told[case.outcome.value].setdefault(case.id, set()).add(case.steps[-1].name)
    assert told["succeeds"].keys() == SUCCEEDS
    assert told["detected"] == {name: {last} for name, last in DETECTED.items()}
    assert told["refused"] == {name: {last} for name, last in REFUSED.items()}
    assert told["works"].keys() == CASES.keys() - SUCCEEDS - DETECTED.keys() - REFUSED.keys()


def test_every_command_and_message_is_in_a_case(cases: tuple[Case, ...]) -> None:
    told = {step.command for case in cases for step in case.steps}
    commands = {f"SNP_{name.name}" for name in SnpCommand} - {"SNP_INIT", "SNP_PLATFORM_STATUS"}
    # INIT is before the first step of every case; PLATFORM_STATUS is asked, and succeeds always.
    assert commands | {f"MSG_{kind.name}" for kind in MessageType} <= told


def test_json(command: Command) -> None:
    outcome = command("snp", "--part", "genoa", "--json")
    found = json.loads(outcome.out)
    assert (outcome.code, outcome.err, found["schema"]) == (0, "", "sev-migration-helper/snp/1")
    assert [case["id"] for case in found["cases"]] == list(CASES)
    replay = next(case for case in found["cases"] if case["id"] == "swap-replay")
    assert (replay["part"], replay["outcome"]) == ("genoa", "refused")
    assert replay["steps"][-1] == {
        "command": "SNP_SWAP_IN", "status": "0x1b", "status_name": "INVALID_MDATA_ENTRY", "count": 1,
    }  # fmt: skip


def test_table(command: Command) -> None:
    outcome = command("snp", "--part", "milan")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert "stale-context milan SNP_GCTX_CREATE SUCCESS 0x00 refused" in lines
    assert "SNP_GUEST_STATUS INVALID_GUEST 0x10" in lines
    assert sum(name in line.split() for line in lines for name in CASES if name == line.split()[0]) == len(CASES)


def test_a_part_without_snp(command: Command) -> None:
    outcome = command("snp", "--part", "rome")
    assert (outcome.code, outcome.out) == (2, "")
    assert "argument --part: invalid choice: 'rome'" in outcome.err


def test_page_is_what_the_command_prints(cases: tuple[Case, ...], lacks: tuple[Need, ...]) -> None:
    page = ROOT / "docs" / "snp.md"
    assert snp_page.render(cases, lacks) == page.read_text(), "run: build.py snp --markdown > docs/snp.md"
