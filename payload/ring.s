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
.extern hello
.extern start
.extern export_page
.extern import_page
.extern finish
.extern abort

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
    call locate
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

# Everything of submission ebp lies at its index: nothing of the host's is used as an address.
locate:
    mov eax, ebp
    and eax, MH_RING_ENTRIES - 1
    mov ecx, eax
    imul ecx, ecx, MH_PACKET_SLOT_BYTES
    lea rcx, [r12 + rcx + MH_RING_PACKETS]
    mov [rip + state_slot_packet], rcx
    imul eax, eax, MH_PAGE_BYTES
    lea rax, [r12 + rax + MH_RING_DATA]
    mov [rip + state_slot_data], rax
    ret

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

dispatch:
    movzx eax, word ptr [rip + state_entry + mh_submission.op]
    cmp eax, MH_OP_HELLO
    je .Lhello
    cmp eax, MH_OP_START
    je .Lstart
    cmp eax, MH_OP_EXPORT
    je .Lexport
    cmp eax, MH_OP_IMPORT
    je .Limport
    cmp eax, MH_OP_FINISH
    je .Lfinish
    cmp eax, MH_OP_ABORT
    je .Labort
    mov eax, MH_BAD_OP
    ret
.Lhello:
    call only_op
    jne .Lbad_entry
    jmp hello
.Lstart:
    call only_start
    jne .Lbad_entry
    jmp start
.Lexport:
    call only_address
    jne .Lbad_entry
    jmp export_page
.Limport:
    call only_address
    jne .Lbad_entry
    jmp import_page
.Lfinish:
    call only_op
    jne .Lbad_entry
    jmp finish
.Labort:
    call only_op
    jne .Lbad_entry
    jmp abort
.Lbad_entry:
    mov eax, MH_BAD_ENTRY
    ret

# Zero flag set if every field that the op does not use is zero.
only_op:
    lea rdi, [rip + state_entry]
    mov rax, [rdi + mh_submission.address]
    jmp unused
only_address:
    lea rdi, [rip + state_entry]
    xor eax, eax
unused:
    or rax, [rdi + mh_submission.nonce]
    or rax, [rdi + mh_submission.nonce + 8]
    or rax, [rdi + mh_submission.nonce + 16]
    or rax, [rdi + mh_submission.nonce + 24]
    movzx ecx, word ptr [rdi + mh_submission.role]
    or rax, rcx
    jmp reserved
only_start:
    lea rdi, [rip + state_entry]
    mov rax, [rdi + mh_submission.address]
reserved:
    mov ecx, [rdi + mh_submission.reserved0]
    or rax, rcx
    or rax, [rdi + mh_submission.reserved1]
    ret

# eax: status. The completion first, then the head that announces it: x86 keeps stores in order.
complete:
    lea rsi, [rip + state_completion]
    mov [rsi + mh_completion.status], ax
    movzx eax, word ptr [rip + state_entry + mh_submission.op]
    mov [rsi + mh_completion.op], ax
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
