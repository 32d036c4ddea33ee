"""How much of its stack a blob's code can use, by all paths through it."""

from __future__ import annotations

from typing import Any

from capstone import x86

from emulator_tests.claims.code import decoded, handlers, symbols
from emulator_tests.coverage.blobs import blob

WORD = 8
_GROWS = {"push": WORD, "pushfq": WORD, "pop": -WORD, "popfq": -WORD}
_FINDS = {"mov", "movabs", "add"}
"""entry64 finds its vCPU's stack so, on which there is nothing."""
_AGAIN = "serve_urgent"
"""A batch serves the urgent lane between two chunks, one of the urgent lane does not (payload/batch.s, overtake)."""


_UNKNOWN = {b"\xf2\x0f\x01\xff", b"\xf3\x0f\x01\xfe"}
"""PVALIDATE and RMPADJUST, which capstone does not know, and which leave the stack alone."""


class Unbalanced(AssertionError):
    """An instruction that is reached with the stack at different depths, or a return that is not at its function's."""


class Stack:
    """The depths of one blob, in bytes; a service of the firmware counts as its return address."""

    def __init__(self, name: str) -> None:
        self._code = decoded(name)
        self._text = blob(name).text
        self._handlers = handlers(name)
        self._again = symbols(name).get(_AGAIN, -1)
        self._calls: list[int] = []
        self._known: dict[tuple[int, bool], int] = {}

    def bound(self, function: int) -> int:
        """The most that a function and all that it calls put on the stack, below its return address."""
        is_urgent = self._again in self._calls
        if is_urgent and function == self._again:
            return 0
        if function in self._calls[self._calls.index(self._again) if is_urgent else 0 :]:
            raise AssertionError(f"recursion: {' > '.join(self._code[at][0].line for at in self._calls)}")
        if (function, is_urgent) not in self._known:
            self._calls.append(function)
            self._known[function, is_urgent] = self._most(function)
            self._calls.pop()
        return self._known[function, is_urgent]

    def _most(self, function: int) -> int:
        depths: dict[int, int] = {}
        ways, most = [(function, 0)], 0
        while ways:
            at, depth = ways.pop()
            if depths.setdefault(at, depth) != depth:
                raise Unbalanced(f"{self._code[at][0].place}: {depths[at]} and {depth} bytes on the stack")
            after = depth + _growth(self._code[at][1])
            most = max(most, after, depth + self._called(at))
            following = map(self._known_from, self._next(at, depth))
            ways += [(target, after) for target in following if depths.get(target) != after]
        return most

    def _known_from(self, at: int) -> int:
        """Where the next instruction is that capstone knows."""
        return at + 4 if self._text[at : at + 4] in _UNKNOWN else at

    def _called(self, at: int) -> int:
        insn = self._code[at][1]
        if insn.mnemonic != "call":
            return 0
        return WORD + (self.bound(insn.operands[0].imm) if insn.operands[0].type == x86.X86_OP_IMM else 0)

    def _next(self, at: int, depth: int) -> list[int]:
        instruction, insn = self._code[at]
        if insn.mnemonic == "ret" and depth:
            raise Unbalanced(f"{instruction.place}: returns with {depth} bytes on the stack")
        if insn.mnemonic in {"ret", "retfq"}:
            return []
        if insn.mnemonic == "jmp":
            return [insn.operands[0].imm] if insn.operands[0].type == x86.X86_OP_IMM else self._handlers
        following = [at + insn.size]
        return following if instruction.target is None else [*following, instruction.target]


def _growth(insn: Any) -> int:
    if insn.mnemonic in _GROWS:
        return _GROWS[insn.mnemonic]
    operands = insn.operands
    if not operands or operands[0].type != x86.X86_OP_REG or operands[0].reg != x86.X86_REG_RSP:
        return 0
    if insn.mnemonic in {"add", "sub"} and operands[1].type == x86.X86_OP_IMM:
        return int(operands[1].imm) if insn.mnemonic == "sub" else -int(operands[1].imm)
    if insn.mnemonic in _FINDS:
        return 0
    raise AssertionError(f"{insn.mnemonic} {insn.op_str}: unknown use of the stack")
