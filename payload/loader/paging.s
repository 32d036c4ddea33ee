# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The firmware's live page tables, which map memory 1:1. AMD64 APM volume 2, section 5.3; what follows the C-bit's change
# is section 15.34.5: no dirty line of the page may be left from before.

.include "uefi.inc"
.include "state.inc"

.extern check_private

.equ PRESENT, 1 << 0
.equ UPPER, (1 << 0) | (1 << 1) | (1 << 2)      # present, writable, user: the leaf decides
.equ LARGE, 1 << 7
.equ LARGE_PAT, 1 << 12
.equ ADDRESS, 0x000ffffffffff000
.equ CR0_WP, 1 << 16
.equ CR4_LA57_BIT, 12
.equ ENTRIES, 512
.equ LEVEL_BITS, 9
.equ PAGE_SHIFT, 12
.equ LINE_BYTES, 64

.text

# walk(rsi: address): rax the leaf, 0 if there is none; rdi where it lies; ecx its shift, 12, 21 or 30. Keeps rsi, r12, r13.
.global walk
walk:
    mov r8, ADDRESS
    mov rax, [rbx + state.c_mask]
    not rax
    and r8, rax
    mov ecx, PAGE_SHIFT + 3 * LEVEL_BITS
    mov rax, cr4
    bt rax, CR4_LA57_BIT
    jnc .Llevels
    add ecx, LEVEL_BITS
.Llevels:
    mov rdi, cr3
.Ltable:
    and rdi, r8
    # No table lies so high: what is left there is a C-bit in another place than CPUID says.
    mov rax, rdi
    shr rax, MH_LOWEST_CBIT
    jnz .Lmissing
    mov rax, rsi
    shr rax, cl
    and eax, ENTRIES - 1
    lea rdi, [rdi + 8 * rax]
    mov rax, [rdi]
    test al, PRESENT
    jz .Lmissing
    cmp ecx, PAGE_SHIFT
    je .Lleaf
    cmp ecx, PAGE_SHIFT + 2 * LEVEL_BITS        # survives one more: levels are 9 bits apart
    ja .Ldescend
    test al, LARGE
    jnz .Lleaf
.Ldescend:
    # Tables are private.
    mov rdx, [rbx + state.c_mask]
    mov rdi, rax
    and rax, rdx
    cmp rax, rdx
    jne .Lmissing
    sub ecx, LEVEL_BITS
    jmp .Ltable
.Lmissing:
    xor eax, eax
.Lleaf:
    ret

# make_shared(rsi: page). Splits a large page where it must; changes nothing if it fails.
.global make_shared
make_shared:
    frame
    mov r12, rsi
    call walk
    mov r13, rdi
    mov r14d, ecx
    mov rdx, rax
    mov rax, EFI_SECURITY_VIOLATION
    test rdx, rdx
    jz .Lleave                  # one side: check_private has walked there

    # One table for each level down to 4 KiB.
    lea eax, [r14 - PAGE_SHIFT]
    xor edx, edx
    mov ecx, LEVEL_BITS
    div ecx
    mov ebp, eax
    test eax, eax
    jz .Lready
    mov ecx, AllocateAnyPages
    mov edx, EfiBootServicesData
    mov r8d, ebp
    lea r9, [rbx + state.tables]
    boot_service AllocatePages
    test rax, rax
    jnz .Lleave
    mov rsi, [rbx + state.tables]
    mov edx, ebp
    shl rdx, PAGE_SHIFT
    push r12
    push r13
    call check_private
    pop r13
    pop r12
    test rax, rax
    jnz .Lunsafe
.Lready:
    # Nothing may see the tables half changed, and they may be write-protected.
    pushfq
    cli
    mov r15, cr0
    mov rax, r15
    and rax, ~CR0_WP
    mov cr0, rax
    mov rdi, [rbx + state.tables]
.Lsplit:
    cmp r14d, PAGE_SHIFT
    je .Lsmall
    sub r14d, LEVEL_BITS
    call split
    mov rax, r12
    mov ecx, r14d
    shr rax, cl
    and eax, ENTRIES - 1
    lea r13, [rdi + 8 * rax]
    add rdi, MH_PAGE_BYTES
    jmp .Lsplit
.Lsmall:
    mov rax, r12
    mov ecx, MH_PAGE_BYTES / LINE_BYTES
.Lflush:
    clflush [rax]
    add rax, LINE_BYTES
    dec ecx
    jnz .Lflush
    mfence
    mov rax, [rbx + state.c_mask]
    not rax
    and [r13], rax
    mov cr0, r15
    invlpg [r12]
    popfq
    xor eax, eax
.Lleave:
    leave_frame
.Lunsafe:
    mov rsi, rax
    mov rcx, [rbx + state.tables]
    mov edx, ebp
    boot_service FreePages
    mov rax, rsi
    leave_frame

# The large leaf at r13 becomes a table at rdi, whose leaves map 1 << r14 bytes each, just as before. Keeps rdi, r12..r15.
split:
    mov rdx, [r13]
    mov ecx, r14d
    mov r9d, 1
    shl r9, cl
    cmp ecx, PAGE_SHIFT
    jne .Lstill_large
    # Where a large leaf has PAT, a small one has address, and where it says large, PAT.
    and rdx, ~LARGE
    mov rax, LARGE_PAT
    test rdx, rax
    jz .Lstill_large
    xor rdx, rax
    or rdx, LARGE
.Lstill_large:
    xor ecx, ecx
.Lentry:
    mov [rdi + 8 * rcx], rdx
    add rdx, r9
    inc ecx
    cmp ecx, ENTRIES
    jb .Lentry
    mov rax, rdi
    or rax, UPPER
    or rax, [rbx + state.c_mask]
    mov [r13], rax
    ret
