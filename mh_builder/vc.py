"""Whether code can raise #VC: checked over the linked bytes of an SEV-ES image.

Source: AMD64 APM volume 2, section 15.35.5 (non-automatic exits), and what KVM intercepts (init_vmcb,
sev_es_init_vmcb in arch/x86/kvm/svm). A host that intercepts more than KVM makes the helper write its fault record.

The instructions are those of a linear disassembly from every label. Bytes inside an instruction are not looked at:
the code has no jump there, and under SEV-ES the host cannot set RIP.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from mh_builder.image.model import Image, PlacedSymbol
from mh_builder.symbols import LinkError

if TYPE_CHECKING:
    import capstone

RAISES_VC = frozenset({
    "cpuid", "in", "insb", "insw", "insd", "out", "outsb", "outsw", "outsd", "rdmsr", "wrmsr", "rdtsc", "rdtscp",
    "rdpmc", "wbinvd", "wbnoinvd", "invd", "monitor", "mwait", "monitorx", "mwaitx", "vmmcall",
    "vmcall", "mov dr", "vmrun", "vmload", "vmsave", "stgi", "clgi", "skinit", "invlpga", "xsetbv",
})  # fmt: skip
"""Mnemonics; `mov dr` is MOV from or to a debug register; XSETBV counts though KVM leaves it alone."""

_MEANT = frozenset({("payload/processor.s", "wrmsr"), ("payload/processor.s", "vmmcall")})
"""Where a helper asks the host on purpose: the MSR of the GHCB, which no guest is kept from, and VMGEXIT."""


def check_no_vc(image: Image) -> None:
    """Raise `LinkError`, one line for each instruction of `image` that raises #VC or that cannot be decoded."""
    reasons = list(_complaints(image))
    if reasons:
        raise LinkError(reasons)


def _complaints(image: Image) -> Iterator[str]:
    text = image.section(".text")
    labels = {symbol.value: symbol for symbol in image.symbols if symbol.section == ".text"}
    ends = [*sorted({*labels, *(text.va + piece.offset for piece in text.pieces)}), text.va + text.size]
    owner: PlacedSymbol | None = None
    for start, end in pairwise(ends):
        label = labels.get(start)
        owner = label if label is not None and _is_named(label) else owner
        place = start
        for size, name in _instructions(image.data[start - text.va + text.offset : end - text.va + text.offset]):
            if name in RAISES_VC and (owner is None or (owner.origin, name) not in _MEANT):
                yield f"{_place(place, owner)}: error: '{name}' raises #VC in an SEV-ES image"
            place += size
        if place != end:
            yield f"{_place(place, owner)}: error: bytes that are no instruction in an SEV-ES image"


def _is_named(symbol: PlacedSymbol) -> bool:
    return not symbol.name.startswith(".L") and "@" not in symbol.name


def _place(address: int, owner: PlacedSymbol | None) -> str:
    return f"{address:#x}" if owner is None else f"{owner.origin}: {owner.name}+{address - owner.value:#x}"


@cache
def _decoder() -> capstone.Cs:
    import capstone  # noqa: PLC0415 - only images for SEV-ES are read this way

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = False
    return decoder


_UNKNOWN = {b"\xf2\x0f\x01\xff": "pvalidate", b"\xf3\x0f\x01\xfe": "rmpadjust"}
"""What the decoder does not know."""


def _instructions(code: bytes) -> Iterator[tuple[int, str]]:
    """(bytes, what it is called here) of each instruction, up to the first that cannot be decoded."""
    done = 0
    while done < len(code):
        for size, name in _known(code[done:]):
            yield size, name
            done += size
        name = _UNKNOWN.get(code[done : done + 4], "")
        if not name:
            return
        yield 4, name
        done += 4


def _known(code: bytes) -> Iterator[tuple[int, str]]:
    for _, size, mnemonic, operands in _decoder().disasm_lite(code, 0):
        moves_debug_register = mnemonic == "mov" and any(part.strip().startswith("dr") for part in operands.split(","))
        yield size, "mov dr" if moves_debug_register else mnemonic.split()[-1]
