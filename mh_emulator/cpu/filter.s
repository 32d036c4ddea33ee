# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Whether somebody wants to be called before an instruction, in machine code of the computer that emulates: a bit for each
# address of the pages that are known. mh_emulator/cpu/code_filter.py makes them; names of fields are from there.
#
# Source of the calling convention: System V ABI for AMD64, 3.2.3.
#
# void native_filter(uc rdi, u64 address rsi, u32 size edx, struct filter *rcx)

.equ PAGE_SHIFT, 12
.equ PAGE_MASK, (1 << PAGE_SHIFT) - 1

.text
.global native_filter
native_filter:
    mov rax, rsi
    shr rax, PAGE_SHIFT
    mov r8, [rcx + filter.bits]
    cmp rax, [rcx + filter.page]
    jne .Lsearch
.Lfound:
    mov r9d, esi
    and r9d, PAGE_MASK
    bt [r8], r9
    jc .Lslow
    ret
.Lslow:
    jmp qword ptr [rcx + filter.slow]

.Lsearch:
    mov r9, [rcx + filter.pages]
    mov r10, [rcx + filter.count]
1:  sub r10, 1
    jc 2f
    mov r8, [r9 + entry.bits]
    cmp rax, [r9 + entry.page]
    je 3f
    add r9, sizeof.entry
    jmp 1b
3:  mov [rcx + filter.page], rax
    mov [rcx + filter.bits], r8
    jmp .Lfound
2:  ret
