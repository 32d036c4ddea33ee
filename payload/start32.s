# SPDX-License-Identifier: BSD-2-Clause-Patent
# not here: QEMU runs it, in test_second_engine.py
#
# entry32: protected mode, flat segments, paging off. Nothing else of the start state is trusted: the descriptor
# tables, the stack and all registers may be anything.
#
# Only images that stay below 4 GiB have it (MH_START_32); the linker maps the page of this code at its own GPA,
# because the instruction behind the one that turns paging on is fetched there. It has no stack: GPAs come from
# the linker. With paging off every access of an SEV guest is private, and table walks always are (Linux,
# Documentation/arch/x86/amd-memory-encryption.rst), so CR3 needs no C-bit, which it could not hold here.
#
# WRMSR is intercepted: not for SEV-ES, where the VMSA makes this detour needless.

.ifdef MH_START_32

.include "descriptors.inc"

.extern entry64
.extern physical.entry32_long
.extern physical.linker.tables
.extern physical.start_gdt
.extern physical.start_gdt_pointer

# As entry64 is started by a host that sets the registers: mh_descriptor.
.equ CR0_LONG, (1 << 31) | (1 << 16) | (1 << 5) | (1 << 4) | (1 << 1) | (1 << 0)    # PG, WP, NE, ET, MP, PE
.equ CR4_PAE, 1 << 5
.equ MSR_EFER, 0xc0000080
.equ EFER_LONG, (1 << 11) | (1 << 8)                                                 # NXE, LME

.text
.code32
.balign 256                     # less than that long: it never reaches into a second page
.global entry32
entry32:
    cli
    cld
    mov ebx, offset physical.start_gdt_pointer
    lgdt [ebx]
    mov eax, CR4_PAE
    mov cr4, eax
    mov eax, offset physical.linker.tables
    mov cr3, eax
    mov ecx, MSR_EFER
    mov eax, EFER_LONG
    xor edx, edx
    wrmsr
    mov eax, CR0_LONG
    mov cr0, eax
    jmpf SELECTOR_CODE, physical.entry32_long

.code64
.global entry32_long
entry32_long:
    mov rax, offset entry64
    jmp rax

# In the same page, because the far jump reads it with paging on. Nothing writes it: the segment is accessed already.
.balign 8
.global start_gdt
start_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 64-bit code, accessed
start_gdt_end:

.section .rodata
start_gdt_pointer:
    .word start_gdt_end - start_gdt - 1
    .long physical.start_gdt

.endif
