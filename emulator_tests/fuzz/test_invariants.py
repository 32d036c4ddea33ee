"""Each invariant can fail: a helper that breaks it when it is asked for an operation that there is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emulator_tests.fuzz.runner import Runner
from emulator_tests.fuzz.script import Script, step
from emulator_tests.mutation.plant import behind

BROKEN = {
    0: ("9: jmp 9b", "does not halt within"),
    11: (".byte 0x0f, 0x0b", "vector 6, error code 0x0, RIP "),
    12: ("mov eax, 99\nret", "operation 12 is answered with 99"),
    13: ("mov rax, [r12 + vcpu.bulk + lane.page_key]\njmp .Lleak", "ring 0: page 4 has 0x"),
    14: ("mov rax, [rip + linker.params + mh_params.window_va]\nmov rax, [rax]\njmp .Lleak", "ring 0: page 4 has 0x"),
    15: ("lea rax, [rip + dispatch]\nand rax, -8\nmov rax, [rax]\njmp .Lleak", "ring 0: page 4 has 0x"),
    255: ("mov rax, [rip + linker.params + mh_params.window_va]\nmov [rax], edi", "the guest's page 0x0 has changed"),
    0x103: ("mov r14, [r12 + vcpu.bulk + lane.page_key]", "a register has a secret"),
    0xFFFF: ("mov dword ptr [r12 + vcpu.phase], PHASE_IDLE", "keys are left when the session is over"),
}
"""By operation: what it does, and what has to be said of it."""

_LEAK = "jmp 8f\n.Lleak:\nmov rcx, [r12 + vcpu.ring]\nmov [rcx + MH_RING_RESULTS], rax\nmov eax, MH_BAD_OP\nret\n8:"
_EACH = "cmp edi, {number} - 1\njne 1f\n{code}\nmov eax, MH_BAD_OP\nret\n1:"


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    each = (_EACH.format(number=op, code=code) for op, (code, _) in BROKEN.items())
    with behind("payload/dispatch.s", ".Lbad_op:", "\n".join([_LEAK, *each])):
        yield Runner()


@pytest.mark.parametrize("op", BROKEN)
def test_it_can_fail(runner: Runner, op: int) -> None:
    found = runner.run(Script("source", (step("submit", op=3, count=1, chunk=1), step("submit", op=op)))).violation
    assert found is not None
    assert BROKEN[op][1] in found


def test_nothing_is_said_of_what_is_not_asked_for(runner: Runner) -> None:
    script = Script("source", (step("submit", op=3, count=1, chunk=1), step("submit", op=7)))
    assert runner.run(script).violation is None
