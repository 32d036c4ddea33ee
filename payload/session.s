# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# hello, start, join, abort: how a session begins and ends.
#
# A nonce of ours serves one start. The keys depend on both nonces, so no two sessions share one, whatever
# the host replays; within a session every stream has a key of its own, and the IV is the packet's sequence number,
# which only grows. A ring joins a session once: its phase leads back to idle only when the session is over.
#
# Only ring 0 begins a session, while none is alive; anybody may end it, by counting the generation up. Every vCPU
# looks at the generation before it begins with a chunk, and forgets its keys when it is another one (attend). So when a
# session begins, nobody works in an older one: see start.

.include "vcpu.inc"

.extern aes256_expand
.extern bitmap_clear
.extern gcm_key_init
.extern kdf256
.extern transport_key
.extern wipe_session
.extern linker.vcpu

.equ RANDOM_TRIES, 10           # AMD and Intel both ask for at least ten

.text
.global hello
hello:
    cmp dword ptr [r12 + vcpu.phase], PHASE_GREETED
    ja .Lwrong_state
    test dword ptr [r12 + vcpu.features], MH_FEATURE_AESNI
    jz .Lno_feature
    lea rdi, [r12 + vcpu.nonce]
    mov r8d, MH_NONCE_BYTES / 8
.Lword:
    mov ecx, RANDOM_TRIES
.Ltry:
    rdrand rax
    jc .Lgood
    dec ecx
    jnz .Ltry
    mov dword ptr [r12 + vcpu.phase], PHASE_IDLE
    mov eax, MH_NO_ENTROPY
    ret
.Lgood:
    mov [rdi], rax
    add rdi, 8
    dec r8d
    jnz .Lword
    movdqu xmm0, [r12 + vcpu.nonce]
    movdqu xmm1, [r12 + vcpu.nonce + 16]
    movdqu [r13 + lane.completion + mh_completion.nonce], xmm0
    movdqu [r13 + lane.completion + mh_completion.nonce + 16], xmm1
    mov dword ptr [r12 + vcpu.phase], PHASE_GREETED
    mov eax, MH_DONE
    ret
.Lwrong_state:
    mov eax, MH_WRONG_STATE
    ret
.Lno_feature:
    mov eax, MH_NO_FEATURE
    ret
.Lbusy:
    mov eax, MH_BUSY
    ret
.Lno_key:
    mov eax, MH_NO_KEY
    ret
.Lbad_nonce:
    mov eax, MH_BAD_NONCE
    ret

.global start
start:
    cmp dword ptr [r12 + vcpu.phase], PHASE_GREETED
    jne .Lwrong_state
    call others_rest
    jne .Lbusy
    call transport_key
    test rax, rax
    jz .Lno_key
    mov rsi, rax
    movdqu xmm0, [r13 + lane.entry + mh_submission.nonce]
    movdqu xmm1, [r13 + lane.entry + mh_submission.nonce + 16]
    movdqu xmm2, [r12 + vcpu.nonce]
    movdqu xmm3, [r12 + vcpu.nonce + 16]
    movdqa xmm4, xmm0
    movdqa xmm5, xmm1
    pxor xmm4, xmm2
    pxor xmm5, xmm3
    por xmm4, xmm5
    ptest xmm4, xmm4
    jz .Lbad_nonce

    lea rdi, [rip + session_record]
    movzx eax, word ptr [r13 + lane.entry + mh_submission.count]
    mov [rdi + record.streams], eax
    cmp word ptr [r13 + lane.entry + mh_submission.role], MH_ROLE_SOURCE
    je .Lours_first
    movdqu [rdi + record.source_nonce], xmm0
    movdqu [rdi + record.source_nonce + 16], xmm1
    movdqu [rdi + record.target_nonce], xmm2
    movdqu [rdi + record.target_nonce + 16], xmm3
    mov dword ptr [rdi + record.phase], PHASE_TARGET
    jmp .Lderive
.Lours_first:
    movdqu [rdi + record.source_nonce], xmm2
    movdqu [rdi + record.source_nonce + 16], xmm3
    movdqu [rdi + record.target_nonce], xmm0
    movdqu [rdi + record.target_nonce + 16], xmm1
    mov dword ptr [rdi + record.phase], PHASE_SOURCE
.Lderive:
    lea rdi, [r12 + vcpu.schedule]
    call aes256_expand
    call take_record
    # The identity is the same for all rings: that of stream 0.
    xor eax, eax
    lea rsi, [rip + .Llabel_session]
    lea rdx, [r12 + vcpu.session]
    mov ecx, MH_SESSION_BYTES
    call derive_one
    movdqu xmm0, [r12 + vcpu.session]
    movdqu [rip + session_record + record.identity], xmm0
    call bitmap_clear
    xor eax, eax
    mov [rip + session_epoch], eax
    mov [rip + session_progress + progress.ended], rax
    mov [rip + session_progress + progress.finished], rax
    mov [rip + session_progress + progress.pages], rax
    mov rdx, [rip + session_generation]
    inc rdx
    call take_part
    mov [rip + session_generation], rdx
    mov eax, MH_DONE
    ret

.global join
join:
    cmp dword ptr [r12 + vcpu.phase], PHASE_IDLE
    jne .Lwrong_state
    mov rdx, [rip + session_generation]
    test edx, 1
    jz .Lwrong_state
    mov eax, [r12 + vcpu.index]
    cmp eax, [rip + session_record + record.streams]
    jae .Lwrong_state
    test dword ptr [r12 + vcpu.features], MH_FEATURE_AESNI
    jz .Lno_feature
    call take_record
    # The record is that of this session if the session is still the same.
    cmp rdx, [rip + session_generation]
    jne .Lwrong_state
    push rdx
    call transport_key
    pop rdx
    test rax, rax
    jz .Lno_key
    mov rsi, rax
    lea rdi, [r12 + vcpu.schedule]
    call aes256_expand
    call take_part
    mov eax, MH_DONE
    ret

# take_record(): our copy of what START has written. Keeps rdx.
take_record:
    lea rsi, [rip + session_record]
    lea rdi, [r12 + vcpu.kdf_input + kdf_input.context]
.irp part, 0, 16, 32, 48
    movdqu xmm0, [rsi + record.source_nonce + \part]
    movdqu [rdi + mh_kdf_context.source_nonce + \part], xmm0
.endr
    movdqu xmm0, [rsi + record.identity]
    movdqu [r12 + vcpu.session], xmm0
    mov eax, [rsi + record.phase]
    mov [r12 + vcpu.role], eax
    mov eax, [rsi + record.streams]
    mov [r12 + vcpu.streams], rax
    mov [rdi + mh_kdf_context.streams], ax
    mov word ptr [rdi + mh_kdf_context.version], MH_ABI_VERSION
    ret

# take_part(rdx: generation): makes the keys of both lanes from vcpu.schedule. Keeps rdx, r13.
take_part:
    push rdx
    push r13
    lea r13, [r12 + vcpu.bulk]
    call make_key
    lea r13, [r12 + vcpu.urgent]
    call make_key
    pop r13
    # Only page keys and session are needed from here on; our nonce is used up.
    lea rdi, [r12 + vcpu.secrets]
    mov ecx, vcpu.secrets_end - vcpu.secrets
    xor eax, eax
    rep stosb
    wipe_xmm
    mov [r12 + vcpu.pages], rax
    mov [r12 + vcpu.epoch_pages], rax
    mov [r12 + vcpu.epoch], eax
    mov [r12 + vcpu.ended], eax
    pop rdx
    mov [r12 + vcpu.generation], rdx
    mov eax, [r12 + vcpu.role]
    mov [r12 + vcpu.phase], eax
    ret

# make_key(r13: lane)
make_key:
    mov qword ptr [r13 + lane.sequence], 0
    mov eax, [r13 + lane.stream]
    lea rsi, [rip + .Llabel_key]
    lea rdx, [r12 + vcpu.derived]
    mov ecx, MH_KEY_BYTES
    call derive_one
    lea rdi, [r13 + lane.page_key]
    lea rsi, [r12 + vcpu.derived]
    call gcm_key_init
    mov eax, [r12 + vcpu.features]
    mov [r13 + lane.page_key + gcm_key.features], eax
    ret

# eax: stream, rsi: label, rdx: result, ecx: its bytes
derive_one:
    mov [r12 + vcpu.kdf_input + kdf_input.context + mh_kdf_context.stream], eax
    movdqu xmm0, [rsi]
    lea rsi, [r12 + vcpu.kdf_input]
    movdqu [rsi + kdf_input.label], xmm0
    lea rdi, [r12 + vcpu.schedule]
    jmp kdf256

# others_rest(): zero flag set if no other vCPU is at work in a session. There is no session now, so it would be one that
# has ended: what such a vCPU is about to write belongs there, and must not come after what the next session writes.
others_rest:
    mov rcx, [rip + linker.params + mh_params.vcpus]
    mov rdx, r12
.Lother:
    dec rcx
    jz .Lrest
    add rdx, [rip + linker.params + mh_params.vcpu_stride]
    cmp dword ptr [rdx + vcpu.busy], 0
    je .Lother
    cmp dword ptr [rdx + vcpu.phase], PHASE_SOURCE
    jb .Lother
    cmp dword ptr [rdx + vcpu.phase], PHASE_FINISHED
    je .Lother
.Lrest:
    ret

# end_session(): for all rings. Keeps rcx, rdi, rsi.
.global end_session
end_session:
    mov rax, [rip + session_generation]
1:  test eax, 1
    jz 2f
    lea rdx, [rax + 1]
    lock cmpxchg [rip + session_generation], rdx
    jne 1b
2:  ret

# attend(): notices that another ring has ended the session, or the epoch.
.global attend
attend:
    cmp dword ptr [r12 + vcpu.phase], PHASE_SOURCE
    jb .Lattended
    mov rax, [r12 + vcpu.generation]
    cmp rax, [rip + session_generation]
    jne .Lover
    cmp dword ptr [r12 + vcpu.ended], 0
    je .Lattended
    mov eax, [rip + session_epoch]
    cmp eax, [r12 + vcpu.epoch]
    je .Lattended
    mov [r12 + vcpu.epoch], eax
    mov dword ptr [r12 + vcpu.ended], 0
    mov qword ptr [r12 + vcpu.epoch_pages], 0
.Lattended:
    ret

.global abort
abort:
    call end_session
.Lover:
    call wipe_session
    xor eax, eax                # MH_DONE
    mov [r12 + vcpu.phase], eax # PHASE_IDLE
    mov [r12 + vcpu.pages], rax
    mov [r12 + vcpu.epoch], eax
    mov [r12 + vcpu.ended], eax
    ret

.section .rodata
.balign 16
.Llabel_key:
    .asciz MH_KDF_LABEL_KEY
.balign 16
.Llabel_session:
    .asciz MH_KDF_LABEL_SESSION
