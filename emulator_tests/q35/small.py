"""Flash images of a few instructions, in place of OVMF's."""

from __future__ import annotations

from emulator_tests.machine.guests import assemble

FLASH_BYTES = 64 << 10
_TO_START = b"\xe9\x0d\x00"
"""JMP from FFFF:FFF0 to the start of the segment."""

PROTECTED = """
    .code16
        cli
        data32 lgdt cs:[pointer - start]
        mov eax, cr0
        or eax, 1
        mov cr0, eax
        jmpf 8, 0xffff0000 + flat - start
    .code32
    flat:
        mov eax, 16
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov esp, 0x8000
        jmp work
    gdt:
        .quad 0
        .quad 0x00cf9b000000ffff
        .quad 0x00cf93000000ffff
    pointer:
        .word 23
        .long 0xffff0000 + gdt - start
    work:
"""
"""To 32-bit code with a flat address space."""


def flash(code: str) -> bytes:
    """64 KiB whose reset vector leads to `code`, in real mode."""
    data = bytearray(assemble(f"start:\n{code}").ljust(FLASH_BYTES, b"\xf4"))
    data[-16 : -16 + len(_TO_START)] = _TO_START
    return bytes(data)


def protected(code: str) -> bytes:
    """The same, for `code` of 32 bits."""
    return flash(f"{PROTECTED}\n{code}")
