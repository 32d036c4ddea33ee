"""Instructions that the assembler encodes itself, because keystone gets them wrong or takes no labels."""

from __future__ import annotations

_CONDITIONS = (
    ("o",), ("no",), ("b", "c", "nae"), ("ae", "nb", "nc"), ("e", "z"), ("ne", "nz"), ("be", "na"), ("a", "nbe"),
    ("s",), ("ns",), ("p", "pe"), ("np", "po"), ("l", "nge"), ("ge", "nl"), ("le", "ng"), ("g", "nle"),
)  # fmt: skip
CONDITION_CODES = {name: code for code, group in enumerate(_CONDITIONS) for name in group}

_STRING_OPCODES = {"movs": 0xA4, "cmps": 0xA6, "stos": 0xAA, "lods": 0xAC, "scas": 0xAE, "ins": 0x6C, "outs": 0x6E}


def _strings(name: str, mode: int) -> dict[str, bytes]:
    """Encode a string instruction's sizes; keystone takes no `movsd` without operands."""
    byte, wide = bytes([_STRING_OPCODES[name]]), bytes([_STRING_OPCODES[name] + 1])
    sizes = {"b": byte, "w": wide if mode == 16 else b"\x66" + wide, "d": b"\x66" + wide if mode == 16 else wide}
    if mode == 64 and name not in {"ins", "outs"}:
        sizes["q"] = b"\x48" + wide
    return {name + suffix: code for suffix, code in sizes.items()}


_RETURNS = {"ret": b"\xc3", "retf": b"\xcb"}
_ALIKE = {"nop": b"\x90", "int3": b"\xcc", "int1": b"\xf1"} | _RETURNS
SIMPLE: dict[int, dict[str, bytes]] = {
    64: _ALIKE | {
        "iretd": b"\xcf", "iretq": b"\x48\xcf", "pushfq": b"\x9c", "popfq": b"\x9d", "retfq": b"\x48\xcb",
        "sysretq": b"\x48\x0f\x07",
    },
    32: _ALIKE | {
        "iret": b"\xcf", "iretd": b"\xcf", "pushf": b"\x9c", "pushfd": b"\x9c", "popf": b"\x9d", "popfd": b"\x9d",
        "pusha": b"\x60", "pushad": b"\x60", "popa": b"\x61", "popad": b"\x61",
    },
    16: _ALIKE | {
        "iret": b"\xcf", "iretd": b"\x66\xcf", "pushf": b"\x9c", "pushfd": b"\x66\x9c", "popf": b"\x9d",
        "popfd": b"\x66\x9d", "pusha": b"\x60", "pushad": b"\x66\x60", "popa": b"\x61", "popad": b"\x66\x61",
    },
}  # fmt: skip
"""Instructions without operands, by mode."""
for _mode, _instructions in SIMPLE.items():
    for _name in _STRING_OPCODES:
        _instructions.update(_strings(_name, _mode))

RETURNS_WITH_COUNT = {"ret": b"\xc2", "retf": b"\xca"}

PREFIXES: dict[str, tuple[bytes, frozenset[str]]] = {}
"""The byte of a prefix and the mnemonics it may stand before."""

_COMPARING = frozenset(name + suffix for name in ("cmps", "scas") for suffix in "bwdq")
_MOVING = frozenset(name + suffix for name in ("movs", "stos", "lods", "ins", "outs") for suffix in "bwdq")
STRING_INSTRUCTIONS = _COMPARING | _MOVING
_LOCKABLE = frozenset({
    "add", "adc", "and", "btc", "btr", "bts", "cmpxchg", "cmpxchg8b", "cmpxchg16b", "dec", "inc", "neg", "not", "or",
    "sbb", "sub", "xadd", "xchg", "xor",
})  # fmt: skip
PREFIXES["lock"] = (b"\xf0", _LOCKABLE)
PREFIXES["rep"] = (b"\xf3", _MOVING | {"vmmcall"})
PREFIXES["repe"] = PREFIXES["repz"] = (b"\xf3", _COMPARING)
PREFIXES["repne"] = PREFIXES["repnz"] = (b"\xf2", _COMPARING)
PREFIXES["data32"] = (b"\x66", frozenset({"lgdt", "lidt", "sgdt", "sidt", "ret", "retf"}))
"""`data32` is for 16-bit code only; `lgdt` loads no more than 24 bits of the base there without it."""


_BEFORE_DATA32 = b"\x26\x2e\x36\x3e\x64\x65\x67"


def prefixed(prefix: bytes, code: bytes) -> bytes:
    """Put a prefix behind those that are already there, where GNU `as` has it."""
    earlier = _BEFORE_DATA32 if prefix == b"\x66" else _BEFORE_DATA32 + b"\x66"
    start = len(code) - len(code.lstrip(earlier)) if prefix else 0
    return code[:start] + prefix + code[start:]


def branch(mnemonic: str, mode: int) -> tuple[bytes, bytes] | None:
    """Give the short and the near opcode of a branch to a label, or None if the mnemonic is no branch."""
    if mnemonic == "jmp":
        return b"\xeb", b"\xe9"
    if mnemonic == "call":
        return b"", b"\xe8"
    if mnemonic in _LOOPS:
        return _LOOPS[mnemonic], b""
    if mnemonic in _COUNTERS:
        width = _COUNTERS[mnemonic]
        if width == mode:
            return b"\xe3", b""
        return (b"\x67\xe3", b"") if (mode, width) in {(64, 32), (32, 16), (16, 32)} else None
    code = CONDITION_CODES.get(mnemonic[1:]) if mnemonic.startswith("j") else None
    return None if code is None else (bytes([0x70 | code]), bytes([0x0F, 0x80 | code]))


_LOOPS = {
    "loop": b"\xe2", "loope": b"\xe1", "loopz": b"\xe1", "loopne": b"\xe0", "loopnz": b"\xe0",
}  # fmt: skip
_COUNTERS = {"jcxz": 16, "jecxz": 32, "jrcxz": 64}
