# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# One bit for each page below ram_limit: moved in this epoch. Addresses come checked.

.include "state.inc"

.text

# bitmap_test(rdi: address, ecx: pages) -> eax: MH_DONE, or MH_REPEATED if any was moved. Keeps rdi, rcx, rdx.
.global bitmap_test
bitmap_test:
    mov rsi, [rip + linker.params + mh_params.bitmap_va]
    mov r8, rdi
    shr r8, 12
    mov r9d, ecx
1:  mov rax, r8
    shr rax, 6
    mov rax, [rsi + rax * 8]
    mov r10, r8
    and r10d, 63
    bt rax, r10
    jc 2f
    inc r8
    dec r9d
    jnz 1b
    mov eax, MH_DONE
    ret
2:  mov eax, MH_REPEATED
    ret

# bitmap_set(rdi: address, ecx: pages)
.global bitmap_set
bitmap_set:
    mov rsi, [rip + linker.params + mh_params.bitmap_va]
    mov r8, rdi
    shr r8, 12
    mov rax, r8
    shr rax, 6
    cmp rax, [rip + state_bitmap_low]
    jae 1f
    mov [rip + state_bitmap_low], rax
1:  mov r9, r8
    shr r9, 6
    mov r10, r8
    and r10d, 63
    mov rdx, [rsi + r9 * 8]
    bts rdx, r10
    mov [rsi + r9 * 8], rdx
    inc r8
    dec ecx
    jnz 1b
    inc r9
    cmp r9, [rip + state_bitmap_high]
    jbe 2f
    mov [rip + state_bitmap_high], r9
2:  ret

# bitmap_clear(): a new epoch begins
.global bitmap_clear
bitmap_clear:
    mov rdi, [rip + linker.params + mh_params.bitmap_va]
    mov rdx, [rip + state_bitmap_low]
    mov rcx, [rip + state_bitmap_high]
    xor eax, eax
    mov [rip + state_bitmap_high], rax
    dec rax
    mov [rip + state_bitmap_low], rax
    sub rcx, rdx
    jbe 1f
    lea rdi, [rdi + rdx * 8]
    xor eax, eax
    rep stosq
1:  ret
