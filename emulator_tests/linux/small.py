"""Kernels of a few instructions, as a bzImage."""

from __future__ import annotations

import struct

from emulator_tests.machine.guests import assemble

ADDRESS, ROOM = 0x100_0000, 0x10_0000
_SECTORS = 1

CONSOLE = """
print:  # of rsi, up to a zero
    lodsb
    test al, al
    jz 1f
    mov dx, 0x3f8
    out dx, al
    jmp print
1:  ret
"""

IDT, VECTOR = 0x6000, 0x40
"""Of a kernel that takes an interrupt."""
SET_GATE = """
    mov [rbx], ax
    mov word ptr [rbx + 2], 0x10
    mov word ptr [rbx + 4], 0x8e00
    shr rax, 16
    mov [rbx + 6], ax
    shr rax, 16
    mov [rbx + 8], eax
"""
"""Lets the gate at RBX lead to RAX, in the code segment of the boot protocol."""
LOAD_IDT = f"""
    push {IDT}
    sub rsp, 2
    mov word ptr [rsp], 0xfff
    lidt [rsp]
    add rsp, 10
"""


def bzimage(
    code: bytes, *, version: int = 0x20F, xload_flags: int = 1, room: int = ROOM, address: int = ADDRESS
) -> bytes:
    """A kernel that begins with `code` in 64-bit mode."""
    setup = bytearray(512 * (_SECTORS + 1))
    body = (bytes(0x200) + code).ljust(-(-(0x200 + len(code)) // 16) * 16, b"\0")
    setup[0x1F1] = _SECTORS
    struct.pack_into("<I", setup, 0x1F4, len(body) // 16)
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x200:0x202] = b"\xeb\x66"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<HHH", setup, 0x206, version, 0, 0)
    struct.pack_into("<H", setup, 0x20E, 0x100)
    setup[0x211] = 1
    struct.pack_into("<I", setup, 0x22C, 0x7FFF_FFFF)
    struct.pack_into("<H", setup, 0x236, xload_flags)
    struct.pack_into("<I", setup, 0x238, 255)
    struct.pack_into("<Q", setup, 0x258, address)
    struct.pack_into("<I", setup, 0x260, room)
    setup[0x300:0x308] = b"9.9 own\0"
    return bytes(setup) + body


def kernel(text: str) -> bytes:
    """The same of assembly; there is `print`."""
    return bzimage(assemble(f"{text}\n{CONSOLE}"))
