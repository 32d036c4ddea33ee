"""Instructions that the assembler encodes itself, because keystone gets them wrong or takes no labels."""

from __future__ import annotations

_CONDITIONS = (
    ("o",), ("no",), ("b", "c", "nae"), ("ae", "nb", "nc"), ("e", "z"), ("ne", "nz"), ("be", "na"), ("a", "nbe"),
    ("s",), ("ns",), ("p", "pe"), ("np", "po"), ("l", "nge"), ("ge", "nl"), ("le", "ng"), ("g", "nle"),
)  # fmt: skip
CONDITION_CODES = {name: code for code, group in enumerate(_CONDITIONS) for name in group}

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

RETURNS_WITH_COUNT = {"ret": b"\xc2", "retf": b"\xca"}

PREFIXES: dict[str, tuple[bytes, frozenset[str]]] = {}
"""The byte of a prefix and the mnemonics it may stand before."""

_SUFFIXES = {
    "movs": "bwdq",
    "stos": "bwdq",
    "lods": "bwdq",
    "cmps": "bwdq",
    "scas": "bwdq",
    "ins": "bwd",
    "outs": "bwd",
}
_STRINGS = {name: frozenset(f"{name}{suffix}" for suffix in suffixes) for name, suffixes in _SUFFIXES.items()}
STRING_INSTRUCTIONS = frozenset().union(*_STRINGS.values())
_MOVING = _STRINGS["movs"] | _STRINGS["stos"] | _STRINGS["lods"] | _STRINGS["ins"] | _STRINGS["outs"]
_COMPARING = _STRINGS["cmps"] | _STRINGS["scas"]
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
