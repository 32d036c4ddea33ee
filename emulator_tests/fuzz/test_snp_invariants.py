"""Each invariant of an SNP guest can fail: helpers with something wrong in them, and a host that makes use of it."""

from __future__ import annotations

import pytest

from emulator_tests.fuzz.asked import R1, VMSA, Kind, Op, ask, begun, bring, ended, export, sealed
from emulator_tests.fuzz.runner import Runner
from emulator_tests.fuzz.script import Script, step
from emulator_tests.mutation.plant import behind

_STOP = export("registers", flags=VMSA)
_RUN = ask(Op.MH_OP_RUN, count=2)
_PAGE = (sealed("page 0"), bring("page 0"))
_LEAVES = (_STOP, ask(Op.MH_OP_FINISH), ask(Op.MH_OP_FINISH, R1))
_BAD = ask(15)
_GUEST = "mov dword ptr [rip + guest], "
_LEND = """
lea rax, [rip + dispatch]
and rax, -4096
xor ecx, ecx
mov edx, 0xf01
.byte 0xf3, 0x0f, 0x01, 0xfe
"""
"""RMPADJUST of the code, for VMPL1."""
_TELL = """
.ifdef MH_START_SNP
.extern linker.snp_secrets
mov rax, [rip + linker.snp_secrets + mh_secrets_page.vmpck0]
mov rcx, [r12 + vcpu.ring]
mov [rcx + MH_RING_RESULTS], rax
mov eax, MH_BAD_OP
ret
.endif
"""

BROKEN = {
    "the guest stays": (
        ("payload/ownership.s", f"    {_GUEST}GUEST_GONE", f"{_GUEST}GUEST_HERE"),
        Script("vmpl source", (*_LEAVES, _RUN)),
        "RUN of a guest that is gone",
    ),
    "the guest is not stopped": (
        ("payload/ownership.s", "runs:", "xor ecx, ecx\nret"),
        Script("vmpl source", (ask(Op.MH_OP_FINISH),)),
        "the guest is gone, and may run",
    ),
    "a target that runs too early": (
        ("payload/ownership.s", "    test dword ptr [rip + guest], 1", "test rsp, 0"),
        Script("vmpl target", (
            *(sealed("registers", kind=Kind.MH_KIND_VMSA.value), bring("registers", flags=VMSA), ask(Op.MH_OP_ABORT)),
            _RUN,
        )),
        "RUN of a guest that is coming",
    ),
    "a page is validated again": (
        ("payload/ownership.s", "    bt [rdi], rbp", "clc"),
        Script("vmpl target", (
            *(*_PAGE, step("pages", what="replaced", page="page 0"), *ended(Op.MH_OP_EPOCH, R1)),
            *(*ended(Op.MH_OP_EPOCH), *_PAGE),
        )),
        "the page 0x0 is validated twice",
    ),
    "an earlier session's page": (
        ("payload/ownership.s", "starts:", "ret"),
        Script("vmpl target", (*_PAGE, ask(Op.MH_OP_ABORT), ask(Op.MH_OP_ABORT, R1), *begun(2))),
        "VMPL1 has the page 0x0 of an earlier session",
    ),
    "VMPL1 has code": (
        ("payload/dispatch.s", ".Lbad_op:", _LEND),
        Script("vmpl source", (_BAD,)),
        "VMPL1 has the helper's page 0x",
    ),
    "a key of messages": (
        ("payload/dispatch.s", ".Lbad_op:", _TELL),
        Script("vmpl source", (_BAD,)),
        "ring 0: page 4 has 0x",
    ),
}  # fmt: skip
"""What is planted, who makes use of it, and what has to be said of it."""


@pytest.mark.parametrize(("planted", "script", "said"), BROKEN.values(), ids=BROKEN)
def test_it_can_fail(planted: tuple[str, str, str], script: Script, said: str) -> None:
    assert Runner().run(script).violation is None
    with behind(*planted):
        found = Runner().run(script).violation
    assert found is not None
    assert said in found
