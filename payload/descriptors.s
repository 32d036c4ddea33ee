# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# GDT, TSS and IDT. APM volume 2, 4.8 (descriptors), 12.2.5 (64-bit TSS).

.include "descriptors.inc"

.extern idt
.extern linker.fault_stack_top

.data
.balign 16
.global gdt                     # writable: LTR marks the TSS busy
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 64-bit code, accessed
    .quad 0x00cf93000000ffff    # data, accessed
.global gdt_tss                 # filled by entry64, which knows the address
gdt_tss:
    .quad 0
    .quad 0
.global gdt_end
gdt_end:

.section .rodata
.balign 16
.global gdt_pointer
gdt_pointer:
    .word GDT_BYTES - 1
    .quad gdt
.global idt_pointer
idt_pointer:
    .word VECTORS * 16 - 1
    .quad idt

# Every vector uses the fault stack: the stack in use may be what failed.
.balign 16
.global tss
tss:
    .long 0
    .quad 0, 0, 0               # RSP0..RSP2
    .quad 0
    .quad linker.fault_stack_top
    .quad 0, 0, 0, 0, 0, 0      # IST2..IST7
    .quad 0
    .word 0
    .word TSS_BYTES             # no I/O bitmap
