# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The ring: fetch a submission once, serve it, complete it; HLT when there is none.
#
# Handlers find what a submission says in the lane and answer a status in eax. README.md has who keeps which register.

.include "vcpu.inc"

.extern attend
.extern claimed_by_another
.extern dispatch
.extern end_session
.extern idt_pointer
.extern no_idt_pointer
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

# The block is nobody's while the vCPU halts, nor are its stacks: there is no handler then, and an event shuts the vCPU
# down. A locked instruction orders the claim before the look at the session: ring 0 counts on that when it looks
# at `busy` before a new one. What is left of the host's words in registers would go into the VMSA.
.Lidle:
    wipe_xmm
.irp register, eax, ecx, edx, esi, edi, r8d, r9d, r10d, r11d
    xor \register, \register
.endr
    lidt [rip + no_idt_pointer]
    mov ebx, [r12 + vcpu.index]
    mov dword ptr [r12 + vcpu.busy], 0
    hlt
    mov edx, 1
    lock xchg [r12 + vcpu.busy], edx
    test edx, edx
    jnz claimed_by_another
    lidt [rip + idt_pointer]
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
    jz 1f                       # survives dropped: zero is not above the entries, and asked for again
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

# fetch() -> rax, r8, r9: the submission's first, third and fourth 8 bytes, xmm0: the others or-ed. The only read of it; what
# the completion echoes goes there without a stay in private memory.
fetch:
    mov eax, [r13 + lane.entries]
    dec eax
    and eax, ebp
    imul edi, eax, sizeof.mh_completion
    add rdi, [r13 + lane.completions]
    mov [r13 + lane.completion], rdi
    imul esi, eax, sizeof.mh_submission
    add rsi, [r13 + lane.submissions]
    pxor xmm0, xmm0
    movdqu [rdi], xmm0
    movdqu [rdi + 16], xmm0
    movdqu [rdi + 32], xmm0
    movdqu [rdi + 48], xmm0
    mov rax, [rsi]
    mov [rdi + mh_completion.op], ax
    mov rcx, [rsi + mh_submission.cookie]
    mov [rdi + mh_completion.cookie], rcx
    mov r8, [rsi + mh_submission.address]
    mov r9, [rsi + mh_submission.chunk]
    movdqu xmm0, [rsi + mh_submission.reserved1]
    movdqu xmm1, [rsi + mh_submission.reserved1 + 16]
    por xmm0, xmm1
    ret

# eax: status. The completion first, then the head that announces it: x86 keeps stores in order.
complete:
    mov rdi, [r13 + lane.completion]
    mov [rdi + mh_completion.status], ax
    mov eax, [r12 + vcpu.epoch]
    mov [rdi + mh_completion.epoch], eax
    mov rax, [r12 + vcpu.pages]
    mov [rdi + mh_completion.pages], rax
    inc ebp
    mov [r13 + lane.head], ebp
    mov rdi, [r13 + lane.head_va]
    mov [rdi], ebp
    ret
