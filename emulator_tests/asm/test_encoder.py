"""The watched worker process, and the verification of what it answers."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mh_builder.asm import AssemblyError, Diagnostic, assemble_text, encoder
from mh_builder.asm.encoder import Encoder, Request

from .corpus import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKER = """
import json, os, sys, time
for line in sys.stdin:
    mode, rewrites, text = json.loads(line)
    if text == "hang":
        time.sleep(60)
    if text == "die":
        os._exit(1)
    print(json.dumps({"code": "90", "decoded": [["nop", "", 1, 0, 0, 0]]}), flush=True)
"""


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Encoder]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="ascii")
    made = Encoder((sys.executable, str(script)), 0.5)
    yield made
    made.close()


def test_guilty_request_is_named_and_the_rest_goes_on(fragile: Encoder) -> None:
    texts = ["a", "die", "b", "hang", "c", "die too", *(f"n{number}" for number in range(200))]
    answers = fragile.encode(Request(64, text) for text in texts)
    errors = {request.text: answer.error for request, answer in answers.items() if answer.error}
    assert errors == {
        "die": "the encoder died of this instruction",
        "hang": "the encoder hangs on this instruction",
    }
    assert [request.text for request in answers] == texts
    assert all(answer.code == b"\x90" for answer in answers.values() if not answer.error)


def test_answers_are_remembered(fragile: Encoder, tmp_path: Path) -> None:
    """The worker would give another one now."""
    first = fragile.encode([Request(64, "die")])
    (tmp_path / "worker.py").write_text(WORKER.replace("os._exit(1)", "pass"), encoding="ascii")
    assert fragile.encode([Request(64, "die")]) == first
    assert not fragile.encode([Request(64, "die", ("another",))])[Request(64, "die", ("another",))].error


def test_worker_that_died_while_idle_is_nobodys_fault(fragile: Encoder) -> None:
    """The worker once ended itself a minute after its last answer, and the next instruction was blamed."""
    assert not fragile.encode([Request(64, "a")])[Request(64, "a")].error
    process = fragile._process
    assert process is not None
    process.kill()
    process.wait()
    assert not fragile.encode([Request(64, "b")])[Request(64, "b")].error


IDLE = """
import runpy, signal, sys
class Requests:
    def __iter__(self):
        yield '[64, [], "nop"]\\n'
        print(signal.getitimer(signal.ITIMER_REAL)[0])
sys.stdin = Requests()
runpy.run_path(sys.argv[1], run_name="worker")["main"]()
"""


def test_worker_has_no_alarm_set_while_it_waits() -> None:
    """A watch over one request that outlives it ends an idle worker."""
    script = encoder.__file__.replace("encoder.py", "worker.py")
    command = [sys.executable, "-c", IDLE, script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    answer, alarm = done.stdout.splitlines()
    assert '"code": "90"' in answer
    assert float(alarm) == 0


@pytest.mark.parametrize("text", ["mov ah, r8b", "mov rax, [ah]", "rep ,"])
def test_the_real_worker_survives_what_kills_keystone(text: str) -> None:
    made = Encoder((sys.executable, "-P", encoder.__file__.replace("encoder.py", "worker.py")), 1.0)
    try:
        answers = made.encode([Request(64, "nop"), Request(64, text), Request(64, "ret")])
    finally:
        made.close()
    assert answers[Request(64, "nop")].code == b"\x90"
    assert answers[Request(64, text)].error
    assert answers[Request(64, "ret")].code == b"\xc3"


def test_a_process_ends_cleanly() -> None:
    program = "from mh_builder.asm import assemble_text; print(assemble_text('mov eax, 5', 'x').sections[0].data.hex())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "b805000000\n", "")


def calls(lines: int) -> int:
    """How many functions it takes to assemble so many lines, the second time: then each instruction is known."""
    statements = [statement for mode, group in GROUPS.values() if mode == 64 for statement in group]
    source = "\n".join(f"l{number}: {random.Random(number).choice(statements)}" for number in range(lines))
    assert len(assemble_text(source, "t.s").symbols) == lines
    counted = Counter[str]()
    sys.setprofile(lambda _frame, event, _argument: counted.update([event]))
    try:
        assemble_text(source, "t.s")
    finally:
        sys.setprofile(None)
    return counted["call"]


def test_twice_the_lines_are_twice_the_work() -> None:
    assert calls(2000) < 2.2 * calls(1000)


_PIECES = """
mov add lea push rep lock jmp call loop nop shl imul movzx pshufb aesenc aeskeygenassist .byte .quad .zero .if .endif
.macro .endm .rept .endr .irp .set .equ .section .text .bss .code16 .code32 .fill .balign .ascii .guid .include rax eax
al ah r8 r8b rip eip esp rsp cs fs xmm1 xmm9 cr0 st0 byte dword qword ptr offset x 1b 1f 1: x: . , [ ] ( ) + - * / % <<
~ ! : = # // /* */ " ' \\ \\@ 0 1 5 -1 255 256 0x80000000 0x10000000000000000 99999999999
"""
_WORDS = st.sampled_from([*_PIECES.split(), "\n"])
_TEXTS = st.one_of(
    st.lists(_WORDS, max_size=14).map(" ".join),
    st.text(max_size=30),
    st.sampled_from([statement for _, group in GROUPS.values() for statement in group]).flatmap(
        lambda statement: st.tuples(st.just(statement), st.integers(0, len(statement)), _WORDS).map(
            lambda item: item[0][: item[1]] + item[2] + item[0][item[1] :]
        )
    ),
)


def diagnostics(text: str) -> tuple[Diagnostic, ...]:
    """Assemble to bytes or to at least one error."""
    try:
        unit = assemble_text(text, "t.s")
    except AssemblyError as error:
        return error.diagnostics
    assert all(section.size >= len(section.data) for section in unit.sections)
    return ()


@settings(derandomize=True, max_examples=600, deadline=None)
@given(_TEXTS)
def test_random_statements_give_bytes_or_errors(text: str) -> None:
    for item in diagnostics(text):
        assert "encoder" not in item.message
        assert 1 <= item.line.number <= text.count("\n") + 1
