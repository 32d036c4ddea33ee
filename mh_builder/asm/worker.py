"""The encoder's worker process: keystone assembles, capstone reads the result back.

Runs as a script, one request a line on stdin and one answer a line on stdout, both JSON. keystone is known to hang
and to end its process; whoever started this one watches it.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import capstone
import keystone

_SECONDS_PER_REQUEST = 60
_MODES = {
    16: (keystone.KS_MODE_16, capstone.CS_MODE_16),
    32: (keystone.KS_MODE_32, capstone.CS_MODE_32),
    64: (keystone.KS_MODE_64, capstone.CS_MODE_64),
}


def _absolute(code: bytes, field: int) -> bytes:
    """Turn `[rip + disp32]` into `[disp32]`, which takes a SIB byte without base and index."""
    if code[field - 1] & 0xC7 != 0x05:
        raise ValueError("not an address relative to rip")
    return code[: field - 1] + bytes([code[field - 1] & 0x38 | 0x04, 0x25]) + code[field:]


def _no_operand_size(code: bytes) -> bytes:
    """Take away the 66 prefix that keystone puts before some instructions."""
    start = len(code) - len(code.lstrip(b"\x26\x2e\x36\x3e\x64\x65\x67"))
    return code[:start] + code[start:].removeprefix(b"\x66")


def _long_nop(code: bytes) -> bytes:
    """Turn the reserved hint 0F 18 /4 that keystone makes of a nop with an operand into 0F 1F /0."""
    at = code.index(b"\x0f\x18")
    return code[:at] + bytes([0x0F, 0x1F, code[at + 2] & 0xC7]) + code[at + 3 :]


class _Engine:
    """One keystone and one capstone for each mode, made when first needed."""

    def __init__(self) -> None:
        self._pairs: dict[int, tuple[Any, Any]] = {}

    def _pair(self, mode: int) -> tuple[Any, Any]:
        if mode not in self._pairs:
            decoder = capstone.Cs(capstone.CS_ARCH_X86, _MODES[mode][1])
            decoder.detail = True
            self._pairs[mode] = (keystone.Ks(keystone.KS_ARCH_X86, _MODES[mode][0]), decoder)
        return self._pairs[mode]

    def answer(self, mode: int, rewrites: list[str], text: str) -> dict[str, Any]:
        """Encode one instruction and decode what came out."""
        assembler, decoder = self._pair(mode)
        try:
            code = bytes(assembler.asm(text, 0)[0] or [])
        except keystone.KsError as error:
            return {"error": str(error).partition(" (")[0]}
        if not code:
            return {"error": "no bytes came out"}
        try:
            for rewrite in rewrites:
                code = self._rewritten(decoder, rewrite, code)
        except (ValueError, IndexError, StopIteration):
            return {"error": "unknown form of the instruction"}
        return {"code": code.hex(), "decoded": [_facts(item) for item in decoder.disasm(code, 0)]}

    def _rewritten(self, decoder: Any, rewrite: str, code: bytes) -> bytes:  # noqa: ANN401 - capstone has no types
        match rewrite:
            case "absolute":
                return _absolute(code, next(decoder.disasm(code, 0)).disp_offset)
            case "no-operand-size":
                return _no_operand_size(code)
            case "long-nop":
                return _long_nop(code)
            case _:
                return code


def _facts(item: Any) -> list[str | int]:  # noqa: ANN401 - capstone has no types
    """List the fields of encoder.Decoded in their order."""
    return [item.mnemonic, item.op_str, item.size, item.disp_offset, item.imm_offset, item.imm_size]


def main() -> None:
    """Serve requests until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine = _Engine()
    for line in sys.stdin:
        signal.alarm(_SECONDS_PER_REQUEST)
        mode, rewrites, text = json.loads(line)
        answer = engine.answer(mode, rewrites, text)
        signal.alarm(0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
