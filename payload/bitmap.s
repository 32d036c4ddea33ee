# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Two maps of one bit a page, which all vCPUs use at once: moved in this epoch, and shared by the guest. Words change
# by locked instructions alone. A vCPU claims the pages of a chunk before it works on them, so no two move one page in
# one epoch, and gives them back if the chunk is refused.

.include "vcpu.inc"

.extern linker.vcpu

.text

# bits(rsi: page, ecx: pages) -> r9: word, rdx: mask of the pages in it, r8d: how many. Keeps rsi, ecx; loses r10.
bits:
    mov r9, rsi
    shr r9, 6
    mov r10d, esi
    and r10d, 63
    mov r8d, 64
    sub r8d, r10d
    cmp r8d, ecx
    cmova r8d, ecx
    push rcx
    mov ecx, 64
    sub ecx, r8d
    mov rdx, -1
    shr rdx, cl
    mov ecx, r10d
    shl rdx, cl
    pop rcx
    ret

# claim(rsi: page, ecx: pages) -> eax: MH_DONE; or MH_SHARED or MH_REPEATED if any is, and none is claimed.
.global claim
claim:
    push rsi
    mov rdi, [rip + linker.params + mh_params.bitmap_va]
    mov r11, [rip + linker.params + mh_params.shared_va]
.Lclaim:
    call bits
    test [r11 + r9 * 8], rdx
    jnz .Lshared
    mov rax, [rdi + r9 * 8]
1:  test rax, rdx
    jnz .Lrepeated
    mov r10, rax
    or r10, rdx
    lock cmpxchg [rdi + r9 * 8], r10
    jne 1b
    cmp r9, [r12 + vcpu.bitmap_low]
    jae 2f
    mov [r12 + vcpu.bitmap_low], r9
2:  inc r9
    cmp r9, [r12 + vcpu.bitmap_high]
    jbe 3f
    mov [r12 + vcpu.bitmap_high], r9
3:  add rsi, r8
    sub ecx, r8d
    jnz .Lclaim
    pop rsi
    mov eax, MH_DONE
    ret
.Lshared:
    mov eax, MH_SHARED
    jmp .Lundo
.Lrepeated:
    mov eax, MH_REPEATED
.Lundo:
    mov rcx, rsi
    pop rsi
    sub rcx, rsi
    jz 4f
    push rax
    call give_back
    pop rax
4:  ret

# give_back(rsi: page, ecx: pages)
.global give_back
give_back:
    mov rdi, [rip + linker.params + mh_params.bitmap_va]
    jmp clear_bits

# mark_private(rsi: page, ecx: pages)
.global mark_private
mark_private:
    mov rdi, [rip + linker.params + mh_params.shared_va]
clear_bits:
    call bits
    not rdx
    mov rax, [rdi + r9 * 8]
1:  mov r10, rax
    and r10, rdx
    lock cmpxchg [rdi + r9 * 8], r10
    jne 1b
    add rsi, r8
    sub ecx, r8d
    jnz clear_bits
    ret

# mark_shared(rsi: page, ecx: pages)
.global mark_shared
mark_shared:
    mov rdi, [rip + linker.params + mh_params.shared_va]
.Lmark:
    call bits
    mov rax, [rdi + r9 * 8]
1:  mov r10, rax
    or r10, rdx
    lock cmpxchg [rdi + r9 * 8], r10
    jne 1b
    add rsi, r8
    sub ecx, r8d
    jnz .Lmark
    ret

# bitmap_clear(): a new epoch begins. Nobody claims now: every other vCPU has ended its epoch, or has no session.
.global bitmap_clear
bitmap_clear:
    mov r8, [rip + linker.params + mh_params.vcpus]
    mov r9, offset linker.vcpu
.Lvcpu:
    mov rdx, [r9 + vcpu.bitmap_low]
    mov rcx, [r9 + vcpu.bitmap_high]
    xor eax, eax
    mov [r9 + vcpu.bitmap_high], rax
    dec rax
    mov [r9 + vcpu.bitmap_low], rax
    sub rcx, rdx
    jbe 1f
    mov rdi, [rip + linker.params + mh_params.bitmap_va]
    lea rdi, [rdi + rdx * 8]
    xor eax, eax
    rep stosq
1:  add r9, [rip + linker.params + mh_params.vcpu_stride]
    dec r8
    jnz .Lvcpu
    ret

# count(rdi: number, rsi: addend) -> rax: the sum. For what several vCPUs count up.
.global count
count:
    mov rax, [rdi]
1:  lea rdx, [rax + rsi]
    lock cmpxchg [rdi], rdx
    jne 1b
    mov rax, rdx
    ret
