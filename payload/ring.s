# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The ring: fetch a submission once, serve it, complete it; HLT when there is none.
#
# r12 ring, ebx tail as read, ebp number of the submission at work. Handlers find the fetched submission in
# state_entry, answer a status in eax, and keep rbx, rbp, r12.

.include "state.inc"

.extern copy64
.extern wipe_session
.extern stop
.extern dispatch

.text
.global serve
serve:
    mov r12, [rip + linker.params + mh_params.ring_va]
.Lpoll:
    mov ebx, [r12 + mh_ring.tail]
    mov ebp, [rip + state_head]
    mov eax, ebx
    sub eax, ebp
    jz .Lidle
    cmp eax, MH_RING_ENTRIES
    ja .Lbroken
.Lnext:
    call fetch
    call dispatch
    call complete
    cmp ebp, ebx
    jne .Lnext
    jmp .Lpoll
.Lidle:
    hlt
    jmp .Lpoll

.Lbroken:
    call wipe_session
    mov dword ptr [rip + state_phase], PHASE_IDLE
    mov dword ptr [r12 + mh_ring.state], MH_RING_BROKEN
    jmp stop

fetch:
    mov eax, ebp
    and eax, MH_RING_ENTRIES - 1
    imul eax, eax, sizeof.mh_submission
    lea rsi, [r12 + rax + MH_RING_SUBMISSIONS]
    lea rdi, [rip + state_entry]
    call copy64
    lea rdi, [rip + state_completion]
    pxor xmm0, xmm0
    movdqu [rdi], xmm0
    movdqu [rdi + 16], xmm0
    movdqu [rdi + 32], xmm0
    movdqu [rdi + 48], xmm0
    ret

# eax: status. The completion first, then the head that announces it: x86 keeps stores in order.
complete:
    lea rsi, [rip + state_completion]
    mov [rsi + mh_completion.status], ax
    movzx eax, word ptr [rip + state_entry + mh_submission.op]
    mov [rsi + mh_completion.op], ax
    mov eax, [rip + state_epoch]
    mov [rsi + mh_completion.epoch], eax
    mov rax, [rip + state_entry + mh_submission.cookie]
    mov [rsi + mh_completion.cookie], rax
    mov rax, [rip + state_pages]
    mov [rsi + mh_completion.pages], rax
    mov eax, ebp
    and eax, MH_RING_ENTRIES - 1
    imul eax, eax, sizeof.mh_completion
    lea rdi, [r12 + rax + MH_RING_COMPLETIONS]
    call copy64
    inc ebp
    mov [rip + state_head], ebp
    mov [r12 + mh_ring.head], ebp
    ret
