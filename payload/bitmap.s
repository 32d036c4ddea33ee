# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Three maps of one bit a page, which all vCPUs use at once: moved in this epoch, moved in an earlier one of the session, and
# shared by the guest. Words of the first and the last change by locked instructions alone. A vCPU claims the pages of a
# chunk before it works on them, so no two move one page in one epoch, and gives them back if the chunk is refused.

.include "vcpu.inc"

.extern forget_authenticators
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
    cmp dword ptr [r12 + vcpu.live], 0
    je 4f
    mov rax, [rip + linker.params + mh_params.moved_va]
    test [rax + r9 * 8], rdx
    jnz .Lrepeated
4:  mov rax, [rdi + r9 * 8]
1:  test rax, rdx
    jnz .Lrepeated
    call widen
    mov r10, rax
    or r10, rdx
    lock cmpxchg [rdi + r9 * 8], r10
    jne 1b
    add rsi, r8
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
    jz 5f
    push rax
    call give_back
    pop rax
5:  ret

# widen(r9: word): the words that may have bits of ours. Before they have: this vCPU may be lost at any instruction. Loses r10.
widen:
    cmp r9, [r12 + vcpu.bitmap_low]
    jae 1f
    mov [r12 + vcpu.bitmap_low], r9
1:  lea r10, [r9 + 1]
    cmp r10, [r12 + vcpu.bitmap_high]
    jbe 2f
    mov [r12 + vcpu.bitmap_high], r10
2:  ret

# give_back(rsi: page, ecx: pages)
.global give_back
give_back:
    mov rdi, [rip + linker.params + mh_params.bitmap_va]
    jmp clear_bits

# mark_private(rsi: page, ecx: pages)
.global mark_private
mark_private:
    mov rdi, [rip + linker.params + mh_params.shared_va]

# clear_bits(rdi: map, rsi: page, ecx: pages)
.global clear_bits
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

# set_bits(rdi: map, rsi: page, ecx: pages)
.global set_bits
set_bits:
    call bits
    mov rax, [rdi + r9 * 8]
1:  mov r10, rax
    or r10, rdx
    lock cmpxchg [rdi + r9 * 8], r10
    jne 1b
    add rsi, r8
    sub ecx, r8d
    jnz set_bits
    ret

# bitmap_turn(): a new epoch begins: what was moved in this one becomes what was moved before. Nobody claims now: every other
# vCPU has ended its epoch, or has no session.
.global bitmap_turn
bitmap_turn:
    mov r8, [rip + linker.params + mh_params.vcpus]
    mov r9, offset linker.vcpu
    mov rsi, [rip + linker.params + mh_params.bitmap_va]
    mov rdi, [rip + linker.params + mh_params.moved_va]
.Lturn:
    mov rdx, [r9 + vcpu.bitmap_low]
    mov rcx, [r9 + vcpu.bitmap_high]
    cmp rdx, [r9 + vcpu.moved_low]
    jae 1f
    mov [r9 + vcpu.moved_low], rdx
1:  cmp rcx, [r9 + vcpu.moved_high]
    jbe 2f
    mov [r9 + vcpu.moved_high], rcx
2:  jmp 4f
3:  mov rax, [rsi + rdx * 8]
    or [rdi + rdx * 8], rax
    mov qword ptr [rsi + rdx * 8], 0
    inc rdx
4:  cmp rdx, rcx
    jb 3b
    # Not before: this vCPU may be lost at any instruction.
    xor eax, eax
    mov [r9 + vcpu.bitmap_high], rax
    dec rax
    mov [r9 + vcpu.bitmap_low], rax
    add r9, [rip + linker.params + mh_params.vcpu_stride]
    dec r8
    jnz .Lturn
    ret

# bitmap_reset(): a new session begins, and nobody has one: nothing has moved.
.global bitmap_reset
bitmap_reset:
    call bitmap_turn
    mov r8, [rip + linker.params + mh_params.vcpus]
    mov r9, offset linker.vcpu
.Lvcpu:
    mov rdx, [r9 + vcpu.moved_low]
    mov rcx, [r9 + vcpu.moved_high]
    mov rdi, [rip + linker.params + mh_params.moved_va]
    jmp 3f
1:  mov rax, [rdi + rdx * 8]
    mov qword ptr [rdi + rdx * 8], 0
    cmp qword ptr [rip + linker.params + mh_params.authenticators_va], 0
    je 2f
    call forget_authenticators
2:  inc rdx
3:  cmp rdx, rcx
    jb 1b
    xor eax, eax
    mov [r9 + vcpu.moved_high], rax
    dec rax
    mov [r9 + vcpu.moved_low], rax
    add r9, [rip + linker.params + mh_params.vcpu_stride]
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
