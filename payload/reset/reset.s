# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The page at GPA 0xfffff000: from the reset vector, in real mode, to entry32. EDI, which chooses the ring, is left as it is;
# after INIT it is 0. APM volume 2, section 14.1.3: CS has base 0xffff0000, so this page lies at 0xf000 of the segment.
#
# RESET_PAGE and RESET_ENTRY32 are given by the toolchain.

.equ SEGMENT_OFFSET, 0xf000 - 0x10000  # as the signed displacement that it is
.equ SELECTOR_FLAT_CODE, 8
.equ SELECTOR_FLAT_DATA, 16
.equ CR0_PE, 1 << 0

.text
.code16
page:
    cli
    data32 lgdt cs:[SEGMENT_OFFSET + gdt_pointer - page]
    mov eax, cr0
    or eax, CR0_PE
    mov cr0, eax
    jmpf SELECTOR_FLAT_CODE, RESET_PAGE + protected - page

.code32
protected:
    mov eax, SELECTOR_FLAT_DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, RESET_ENTRY32
    jmp eax

.balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    # flat 32-bit code, accessed
    .quad 0x00cf93000000ffff    # flat data, accessed
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long RESET_PAGE + gdt - page

.zero 0xff0 - (. - page)
.code16
    jmp page
.zero 0x1000 - (. - page)
