"""What a fuzzer's bytes mean: a stage, and steps on it. Any bytes are a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from mh_abi import abi

Value = int | str

MOST_BYTES = 300
"""Of one script; what follows is not read."""

FAMILIES: Mapping[str, str] = MappingProxyType({
    **dict.fromkeys(("source", "target", "started", "strict"), "mirror"),
    **dict.fromkeys(("es source", "es target"), "es"),
    **dict.fromkeys(("vmpl source", "vmpl target", "vmpl launched"), "vmpl"),
    **dict.fromkeys(("flash", "contents", "wrapped", "igvm", "image", "report"), "file"),
})  # fmt: skip
"""The stages, and what they have in common: plain SEV, SEV-ES, SNP, a file that our own readers get.

Before a script there was a session of all rings in that role, or nothing; a source's with a strict finish; under SNP
not even a record. Files are firmware, what is compressed in it, IGVM files, a helper, a report with its certificates.
"""
STAGES = tuple(FAMILIES)

RAW = tuple(range(256))
LANES = ("ring 0", "ring 1", "ring 0, urgent", "ring 1, urgent")
RINGS = (0, 1)
OPS = (*range(16), 255, 256 + abi.mh_op.MH_OP_EXPORT, 0xFFFF)
ROLES = (0, 1, 2, 3, 0x8000, 0xFFFF)
SLOTS = (0, 1, 2, 3, 4, 6, 7, 8, 9, 64, 509, 510, 511, 512, 0x7FFF, 0xFFF8, 0xFFFF)
COUNTS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 64, 511, 512, 513, 0x8000, 0xFFFF)
FLAGS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 0x8000, 0xFFFF)
ADDRESSES = (
    *(f"page {number}" for number in range(6)),
    *("untouched RAM", "before the helper", "helper", "helper + 1 page", "ring", "end of the helper - 1 page"),
    *("behind the helper", "end of RAM - 1 page", "end of RAM", "limit - 1 page", "limit"),
    *("page 1 + 1", "page 0 + 4095"),
    *("2 MiB - 1 page", "2 MiB", "1 << 47", "page 1 | 1 << 51", "1 << 63", "-1 page", "-1", "registers"),
)
"""Request addresses; the stage says where they are."""
RESERVED = ("none", "none", "none", "none", "cookie", "reserved0", "reserved1[0]", "reserved1[1]", "reserved1[3]")
KINDS = (1, 2, 3, 4, 5, 0, 6)
PACKETS = (
    *("valid", "valid", "valid", "bit of the header", "bit of the tag", "bit of the data", "seen before", "other key"),
    *("magic", "version", "kind", "length", "stream", "sequence", "address", "epoch", "reserved", "session", "urgent"),
)
"""What is wrong with a packet of the peer: nothing, one bit, or a field that it has sealed so."""
HELLOS = (
    *("valid", "valid", "bit", "our own", "magic", "low", "high", "addresses", "protection", "flags", "guest", "nonce"),
    *("share", "reserved"),
)
AREAS = (
    *("header", "submissions", "completions", "list", "results", "packets", "data"),
    *("urgent submissions", "urgent completions", "urgent list", "urgent results", "urgent packets", "urgent data"),
)
EVENTS = (0, 2, 3, 4, 1, 7)
ERRORS = ("none", 0, 0xFFFFFFFF)
STARTS = ("anew", "again", "anew, noise", "anew, ring cleared", "again, ring cleared", "no such ring")
CONTENTS = ("zeros", "other bytes", "one byte")
RANDOM = ("sound", "stuck", "repeats", "zero", "fails")

MESSAGES = ("carried", "bit", "seen before", "nothing", "sent back", "kept back")
"""What the kernel does with the answers of an SNP guest's secure processor, or with what it is asked."""
SERVED = ("served", "ignored", "answered with noise")
"""What KVM does at an exit of an SNP guest's helper."""
TOLD = (0, 0x16, 0x1_0000_0000, 0xFFFF_FFFF)
"""Status of a request; 0 is the right one."""
OWNERS = ("record", "challenge", "record", "bit", "other owner", "other side", "other challenge")
CONTEXTS = ("right", "the guest's page", "the helper", "0", "-1", "1 << 63", "odd")
CHANGES = ("private", "shared", "taken", "replaced", "exchanged", "written", "as a VMSA")
"""What the host of an SNP guest does with a page."""
CHANGED = (
    *("page 0", "page 1", "page 2", "page 5", "registers", "untouched RAM", "before the helper", "end of RAM - 1 page"),
    *("helper", "helper + 1 page", "ring"),
)
VMSAS = ("bit", "as before", "zeros", "other ring's")
"""What the host of an SEV-ES guest writes into the page of a vCPU's registers."""

WIDTHS = (4, 8, 2, 1)
NUMBERS: tuple[Value, ...] = (
    *(0, 1, 2, 3, 4, 7, 8, 0x10, 0x18, 0x30, 0x7F, 0xFF, 0xFFF, 0x1000, 0x2000, 0x7FFF, 0x8000, 0xFFFF, 0x10000),
    *(0x20000, 0x1F_FFFF, 0x20_0000, (1 << 31) - 1, 1 << 31, (1 << 32) - 0x1000, (1 << 32) - 1, 1 << 32, 1 << 48),
    *(1 << 52, 1 << 63, (1 << 64) - 0x1000, (1 << 64) - 1),
    *("+1", "-1", "+8", "+4096", "twice", "not", "size", "size - 1", "size + 1", "half", "here"),
)
"""For a field of a file: these, or what becomes of the one that is there, or of the file's size."""
CUTS = ("end", "start", "eight", "page")

OPERANDS: Mapping[str, Mapping[str, Sequence[Value]]] = MappingProxyType({
    "submit": {
        "lane": LANES, "then": ("run", "run", "run", "wait"), "op": OPS, "role": ROLES, "slot": SLOTS, "count": COUNTS,
        "chunk": COUNTS, "flags": FLAGS, "address": ADDRESSES, "more": RESERVED,
    },
    "list": {"lane": LANES, "slot": SLOTS, "first": ADDRESSES, "second": ADDRESSES, "third": ADDRESSES},
    "packet": {
        "lane": LANES, "slot": SLOTS, "kind": KINDS, "address": ADDRESSES, "pages": COUNTS, "wrong": PACKETS, "by": RAW,
    },
    "hello": {"slot": SLOTS, "wrong": HELLOS, "by": RAW},
    "run": {"ring": RINGS, "instructions": RAW, "more": RAW},
    "start": {"ring": RINGS, "how": STARTS},
    "event": {"ring": RINGS, "kind": EVENTS, "vector": RAW, "error": ERRORS},
    "write": {
        "ring": RINGS, "area": AREAS, "entry": RAW, "offset": RAW, **{f"byte {number}": RAW for number in range(8)},
    },
    "tail": {"lane": LANES, "ahead": RAW, "far": RAW},
    "guest": {"page": RAW, "contents": CONTENTS},
    "random": {"generator": RANDOM},
    "kernel": {"message": MESSAGES, "exits": SERVED, "by": RAW, "status": TOLD},
    "owner": {"slot": SLOTS, "what": OWNERS, "by": RAW},
    "told": {"slot": SLOTS, "context": CONTEXTS},
    "pages": {"what": CHANGES, "page": CHANGED},
    "vcpu": {"instructions": RAW},
    "vmsa": {"ring": RINGS, "what": VMSAS, "by": RAW},
    "field": {"spot": RAW, "offset": RAW, "width": WIDTHS, "value": NUMBERS},
    "raw": {"spot": RAW, "offset": RAW, "width": WIDTHS, **{f"byte {number}": RAW for number in range(8)}},
    "copy": {"from": RAW, "spot": RAW, "offset": RAW},
    "cut": {"spot": RAW, "offset": RAW, "what": CUTS},
    "grow": {"spot": RAW, "offset": RAW, "where": ("end", "spot"), "bits": tuple(range(17)), "fill": RAW},
    "seal": {"how": ("right", "not at all")},
})  # fmt: skip
"""What follows the first byte of each kind of step: a byte for each operand, which chooses one of its values."""

STEPS = tuple(OPERANDS)
_OF_SNP = ("kernel", "owner", "told", "pages", "vcpu")
_OF_ES = ("vmsa",)
_OF_FILES = ("field", "raw", "copy", "cut", "grow", "seal")
_OF_MIRRORS = tuple(kind for kind in STEPS if kind not in (*_OF_SNP, *_OF_ES, *_OF_FILES))
_PROTECTED = tuple(kind for kind in _OF_MIRRORS if kind != "start")
KINDS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "mirror": _OF_MIRRORS, "es": (*_PROTECTED, *_OF_ES), "vmpl": (*_PROTECTED, *_OF_SNP), "file": _OF_FILES,
})  # fmt: skip
"""For each family of stages the kinds of steps that do anything there; others are passed over."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `operands` has a byte for each operand of its kind."""

    kind: str
    operands: bytes

    def __getitem__(self, name: str) -> Value:
        values = OPERANDS[self.kind][name]
        return values[self.operands[list(OPERANDS[self.kind]).index(name)] % len(values)]

    def number(self, name: str) -> int:
        """An operand that is a number."""
        return int(self[name])

    def dumps(self) -> bytes:
        """Its bytes in a script."""
        return bytes([STEPS.index(self.kind)]) + self.operands

    def __str__(self) -> str:
        said = (f"{name} {_shown(name, self[name])}" for name in OPERANDS[self.kind])
        return f"{self.kind}: {', '.join(said)}"


def _shown(name: str, value: Value) -> str:
    if name == "op" and value in tuple(abi.mh_op):
        return str(abi.mh_op(value).name)
    return f"{value:#x}" if isinstance(value, int) and value > 9 else str(value)


@dataclass(frozen=True, slots=True)
class Script:
    """A stage and steps."""

    stage: str
    steps: tuple[Step, ...] = field(default=())

    def dumps(self) -> bytes:
        """The bytes that mean it."""
        return bytes([STAGES.index(self.stage)]) + b"".join(step.dumps() for step in self.steps)

    def __str__(self) -> str:
        return "\n".join([f"stage: {self.stage}", *map(str, self.steps)])


def loads(data: bytes) -> Script:
    """What these bytes mean: what is missing at their end is 0."""
    stage = STAGES[data[0] % len(STAGES)] if data else STAGES[0]
    return Script(stage, tuple(_steps(data[1:MOST_BYTES])))


def _steps(data: bytes) -> Iterator[Step]:
    at = 0
    while at < len(data):
        kind = STEPS[data[at] % len(STEPS)]
        size = len(OPERANDS[kind])
        if at + 1 + size < MOST_BYTES:
            yield Step(kind, data[at + 1 : at + 1 + size].ljust(size, b"\0"))
        at += 1 + size


def step(kind: str, /, **values: Value) -> Step:
    """A step with these values, the others being the first of theirs. Raises `ValueError` for one that there is not."""
    operands = OPERANDS[kind]
    unknown = values.keys() - operands.keys()
    if unknown:
        raise ValueError(f"{kind} has no operand {', '.join(sorted(unknown))}")
    return Step(kind, bytes(list(choices).index(values.get(name, choices[0])) for name, choices in operands.items()))
