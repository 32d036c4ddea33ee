# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The ring: fetch a submission once, serve it, complete it; HLT when there is none.
#
# r13 lane, ebx tail as read, ebp number of the submission at work. Handlers find the fetched submission in
# lane.entry, answer a status in eax, and keep rbx, rbp, r12, r13.

.include "vcpu.inc"

.extern attend
.extern claimed_by_another
.extern copy64
.extern dispatch
.extern end_session
.extern release
.extern wipe_session

.text
.global serve
serve:
    lea r13, [r12 + vcpu.bulk]
.Lpoll:
    call serve_urgent
    call waiting
    jz .Lidle
.Lnext:
    call serve_one
    call serve_urgent
    cmp ebp, ebx
    jne .Lnext
    jmp .Lpoll

# The block is nobody's while the vCPU halts. A locked instruction orders it before the look at the session: ring 0
# counts on that when it looks at `busy` before a new one.
.Lidle:
    mov dword ptr [r12 + vcpu.busy], 0
    hlt
    xor eax, eax
    mov edx, 1
    mov ebx, [r12 + vcpu.index]
    lock cmpxchg [r12 + vcpu.busy], edx
    jne claimed_by_another
    jmp .Lpoll

# serve_urgent(): all that is in the urgent lane. Keeps r13, rbx, rbp.
.global serve_urgent
serve_urgent:
    push r13
    push rbx
    push rbp
    lea r13, [r12 + vcpu.urgent]
    call waiting
    jz .Lnone
.Lurgent:
    call serve_one
    cmp ebp, ebx
    jne .Lurgent
.Lnone:
    pop rbp
    pop rbx
    pop r13
    ret

# waiting(r13: lane) -> ebx: tail, ebp: head; zero flag set if they are equal. Does not return from an impossible tail.
waiting:
    mov rax, [r13 + lane.tail_va]
    mov ebx, [rax]
    mov ebp, [r13 + lane.head]
    mov eax, ebx
    sub eax, ebp
    jz 1f
    cmp eax, [r13 + lane.entries]
    ja .Lbroken
    test eax, eax
1:  ret

.Lbroken:
    call end_session
    call wipe_session
    mov rcx, [r12 + vcpu.ring]
    mov dword ptr [r12 + vcpu.phase], PHASE_IDLE
    mov dword ptr [rcx + mh_ring.state], MH_RING_BROKEN
    jmp release

# serve_one(r13: lane, ebp: submission): ebp becomes the next one.
serve_one:
    call attend
    call fetch
    call dispatch
    jmp complete

fetch:
    mov eax, [r13 + lane.entries]
    dec eax
    and eax, ebp
    imul eax, eax, sizeof.mh_submission
    mov rsi, [r13 + lane.submissions]
    add rsi, rax
    lea rdi, [r13 + lane.entry]
    call copy64
    lea rdi, [r13 + lane.completion]
    pxor xmm0, xmm0
    movdqu [rdi], xmm0
    movdqu [rdi + 16], xmm0
    movdqu [rdi + 32], xmm0
    movdqu [rdi + 48], xmm0
    ret

# eax: status. The completion first, then the head that announces it: x86 keeps stores in order.
complete:
    lea rsi, [r13 + lane.completion]
    mov [rsi + mh_completion.status], ax
    movzx eax, word ptr [r13 + lane.entry + mh_submission.op]
    mov [rsi + mh_completion.op], ax
    mov eax, [r12 + vcpu.epoch]
    mov [rsi + mh_completion.epoch], eax
    mov rax, [r13 + lane.entry + mh_submission.cookie]
    mov [rsi + mh_completion.cookie], rax
    mov rax, [r12 + vcpu.pages]
    mov [rsi + mh_completion.pages], rax
    mov eax, [r13 + lane.entries]
    dec eax
    and eax, ebp
    imul eax, eax, sizeof.mh_completion
    mov rdi, [r13 + lane.completions]
    add rdi, rax
    call copy64
    inc ebp
    mov [r13 + lane.head], ebp
    mov rdi, [r13 + lane.head_va]
    mov [rdi], ebp
    ret
