# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# start, join: how a session begins. ending.s has its end.
#
# The session's key depends on both hellos, so no two sessions share one, whatever the host replays; within a session every
# stream has a key of its own, and the IV is the packet's sequence number, which only grows. A ring joins a session once: its
# phase leads back to idle only when the session is over.
#
# Only ring 0 begins a session, while none is alive; anybody may end it, by counting the generation up. Every vCPU
# looks at the generation before it begins with a chunk, and forgets its keys when it is another one (attend). So when a
# session begins, nobody works in an older one: see start.
#
# The session's key lies in the record until the last ring has made its own keys from it, or the session ends. Whoever
# ends it wipes the key, and says beforehand that it will (vcpu.ending); whoever joins says so too (PHASE_JOINING): until that
# is done no session begins whose key, or count of rings, it could hit. A ring that copies the key looks at the
# generation afterwards, so it never takes one that was being wiped. docs/protocol has a model of all this.

.include "vcpu.inc"

.extern aes256_expand
.extern bitmap_reset
.extern count
.extern gcm_key_init
.extern kdf256
.ifdef MH_START_SNP
.extern may_start
.extern starts
.endif
.extern others_rest
.extern receive
.extern secret_record
.extern wipe_record
.extern x25519

.text

# start() -> eax: status
.global start
start:
    mov eax, MH_BAD_ENTRY
    movzx ecx, word ptr [r13 + lane.count]
    dec rcx
    cmp rcx, [rip + linker.params + mh_params.vcpus]
    jae .Lrefused
    mov eax, MH_WRONG_STATE
    cmp dword ptr [r12 + vcpu.phase], PHASE_GREETED
    jne .Lrefused
    call others_rest
    mov eax, MH_BUSY
    jne .Lrefused
.ifdef MH_START_SNP
    call may_start
    test eax, eax               # survives dropped: may_start leaves the same zero flag
    jnz .Lrefused
.endif
    push rbx
    call secret_record
    mov rbx, rax
    test rax, rax
    mov eax, MH_NO_KEY
    jz .Lout
    # The places of the two hellos in the context: ours, and the peer's.
    lea rdi, [r12 + vcpu.kdf_input + kdf_input.context + mh_session_context.target]
    lea rdx, [r12 + vcpu.kdf_input + kdf_input.context + mh_session_context.source]
    cmp word ptr [r13 + lane.role], MH_ROLE_SOURCE
    je .Lplaced
    xchg rdi, rdx
.Lplaced:
.irp offset, 0, 16, 32, 48, 64, 80, 96
    movdqu xmm0, [r12 + vcpu.hello + \offset]
    movdqu [rdx + \offset], xmm0
.endr
    call can_be_strict
    test eax, eax
    jnz .Lout
    call receive
    test eax, eax
    jnz .Lout
    call agree_on_key
    test eax, eax
    jnz .Lforget
    call begin
    mov rdi, [r13 + lane.completion]
    mov eax, [r12 + vcpu.protocol]
    mov [rdi + mh_completion.protocol], eax
    mov eax, MH_DONE
.Lout:
    pop rbx
.Lrefused:
    ret
.Lforget:
    mov dword ptr [r12 + vcpu.phase], PHASE_IDLE
    call forget_start
    jmp .Lout

# can_be_strict(rbx: record) -> eax: status; ecx is not zero if this side has to be. Keeps rdi.
can_be_strict:
    mov eax, MH_DONE
    xor ecx, ecx
    cmp word ptr [r13 + lane.role], MH_ROLE_SOURCE
    jne 1f
    mov ecx, [rbx + mh_secret.flags]
    and ecx, MH_OWNER_STRICT
    jz 1f
    cmp qword ptr [rip + linker.params + mh_params.authenticators_va], 0
    jne 1f
    mov eax, MH_NOT_STRICT
1:  ret

# agree_on_key(rdi: the peer's hello, rbx: record) -> eax: status; the session's key is in vcpu.derived, its schedule in
# vcpu.schedule.
agree_on_key:
    lea rdx, [rdi + mh_hello.share]
    lea rsi, [r12 + vcpu.scalar]
    lea rdi, [r12 + vcpu.kdf_input + kdf_input.context + mh_session_context.shared]
    call x25519
    test eax, eax
    mov eax, MH_BAD_SHARE
    jnz .Lno_secret
    lea rdi, [r12 + vcpu.kdf_input + kdf_input.context]
    mov eax, [r12 + vcpu.protocol]
    mov [rdi + mh_session_context.protocol], ax
    movzx eax, word ptr [r13 + lane.count]
    mov [rdi + mh_session_context.streams], ax
    mov dword ptr [rdi + mh_session_context.reserved], 0
    lea rdi, [r12 + vcpu.schedule]
    lea rsi, [rbx + mh_secret.key]
    call aes256_expand
    lea rsi, [rip + .Llabel_session]
    lea rdx, [r12 + vcpu.derived]
    mov ecx, MH_KEY_BYTES
    mov r8d, sizeof.mh_session_context
    call derive
    call expand_derived
    mov eax, MH_DONE
.Lno_secret:
    ret

# begin(rbx: record): the session of the key in vcpu.derived and vcpu.schedule.
begin:
    call can_be_strict
    mov [r12 + vcpu.strict], ecx
    mov [rip + session_record + record.strict], ecx
    movzx eax, word ptr [r13 + lane.count]
    mov [r12 + vcpu.streams], rax
    lea rdi, [rip + session_record]
    mov [rdi + record.streams], eax
    mov eax, [r12 + vcpu.protocol]
    mov [rdi + record.protocol], eax
    movzx eax, word ptr [r13 + lane.role]
    add eax, PHASE_SOURCE - MH_ROLE_SOURCE
    mov [r12 + vcpu.role], eax
    mov [rdi + record.phase], eax
    movdqu xmm0, [r12 + vcpu.derived]
    movdqu xmm1, [r12 + vcpu.derived + 16]
    movdqu [rdi + record.key], xmm0
    movdqu [rdi + record.key + 16], xmm1
    # The identity is the same for all rings.
    lea rsi, [rip + .Llabel_identity]
    lea rdx, [r12 + vcpu.session]
    mov ecx, MH_SESSION_BYTES
    xor eax, eax
    call derive_stream
    movdqu xmm0, [r12 + vcpu.session]
    movdqu [rip + session_record + record.identity], xmm0
    call bitmap_reset
.ifdef MH_START_SNP
    call starts
.endif
    xor eax, eax
    mov [rip + session_epoch], eax
    mov [rip + session_progress + progress.ended], rax
    mov [rip + session_progress + progress.finished], rax
    mov [rip + session_progress + progress.pages], rax
    mov [rip + session_progress + progress.joined], rax
    mov rdx, [rip + session_generation]
    inc rdx
    call take_part
    mov [rip + session_generation], rdx
    jmp joined

# join() -> eax: status. The phase first, with a locked instruction: START sees it, or this ring sees that there is no session.
.global join
join:
    mov eax, MH_NO_FEATURE
    test dword ptr [r12 + vcpu.features], MH_FEATURE_AESNI
    jz .Lnot_joined
    mov eax, MH_WRONG_STATE
    cmp dword ptr [r12 + vcpu.phase], PHASE_IDLE
    jne .Lnot_joined
    mov ecx, PHASE_JOINING
    lock xchg [r12 + vcpu.phase], ecx
    mov rdx, [rip + session_generation]
    test edx, 1
    jz .Lmissed
    mov ecx, [r12 + vcpu.index]
    cmp ecx, [rip + session_record + record.streams]
    jae .Lmissed
    call take_record
    # The record is that of this session, and whole, if the session is still the same.
    jz .Lmissed
    cmp rdx, [rip + session_generation]
    jne .Lmissed
    call expand_derived
    call take_part
    call joined
    mov eax, MH_DONE
.Lnot_joined:
    ret
.Lmissed:
    mov eax, MH_WRONG_STATE
    call forget_start
    mov dword ptr [r12 + vcpu.phase], PHASE_IDLE
    ret

# take_record(): our copy of what START has written; zero flag set if the key was wiped. Keeps rdx.
take_record:
    lea rsi, [rip + session_record]
    movdqu xmm0, [rsi + record.key]
    movdqu xmm1, [rsi + record.key + 16]
    movdqu [r12 + vcpu.derived], xmm0
    movdqu [r12 + vcpu.derived + 16], xmm1
    movdqu xmm0, [rsi + record.identity]
    movdqu [r12 + vcpu.session], xmm0
    mov eax, [rsi + record.phase]
    mov [r12 + vcpu.role], eax
    mov eax, [rsi + record.streams]
    mov [r12 + vcpu.streams], rax
    mov eax, [rsi + record.protocol]
    mov [r12 + vcpu.protocol], eax
    mov eax, [rsi + record.strict]
    mov [r12 + vcpu.strict], eax
    movdqu xmm0, [r12 + vcpu.derived]
    por xmm0, xmm1
    ptest xmm0, xmm0
    pxor xmm0, xmm0
    pxor xmm1, xmm1
    ret

# expand_derived(): vcpu.schedule of the key in vcpu.derived. Keeps rdx.
expand_derived:
    lea rdi, [r12 + vcpu.schedule]
    lea rsi, [r12 + vcpu.derived]
    jmp aes256_expand

# take_part(rdx: generation): makes the keys of both lanes, and that of the masks, from vcpu.schedule. Keeps rdx, r13.
take_part:
    push rdx
    push r13
    lea r13, [r12 + vcpu.bulk]
    call make_key
    lea r13, [r12 + vcpu.urgent]
    call make_key
    pop r13
    lea rsi, [rip + .Llabel_mask]
    mov eax, [r12 + vcpu.index]
    call derive_key
    lea rdi, [r12 + vcpu.mask_schedule]
    lea rsi, [r12 + vcpu.derived]
    call aes256_expand
    call forget_start
    xor eax, eax
    mov [r12 + vcpu.pages], rax
    mov [r12 + vcpu.epoch_pages], rax
    mov [r12 + vcpu.epoch], eax
    mov [r12 + vcpu.ended], eax
    mov [r12 + vcpu.live], eax
    pop rdx
    mov [r12 + vcpu.generation], rdx
    mov eax, [r12 + vcpu.role]
    mov [r12 + vcpu.phase], eax
    ret

# forget_start(): what only a start or a join needs; our nonce and scalar are used up. Keeps rax, rdx.
.global forget_start
forget_start:
    push rax
    lea rdi, [r12 + vcpu.start_secrets]
    mov ecx, vcpu.secrets_end - vcpu.start_secrets
    xor eax, eax
    rep stosb
    wipe_xmm
    pop rax
    ret

# joined(): this ring has its keys; the last one wipes the key of them all.
joined:
    lea rdi, [rip + session_progress + progress.joined]
    mov esi, 1
    call count
    cmp rax, [r12 + vcpu.streams]
    je wipe_record
    ret

# make_key(r13: lane)
make_key:
    mov qword ptr [r13 + lane.sequence], 0
    mov eax, [r13 + lane.stream]
    lea rsi, [rip + .Llabel_page]
    call derive_key
    lea rdi, [r13 + lane.page_key]
    lea rsi, [r12 + vcpu.derived]
    call gcm_key_init
    mov eax, [r12 + vcpu.features]
    mov [r13 + lane.page_key + gcm_key.features], eax
    ret

# derive_key(eax: stream, rsi: label): a key to vcpu.derived.
derive_key:
    lea rdx, [r12 + vcpu.derived]
    mov ecx, MH_KEY_BYTES

# derive_stream(eax: stream, rsi: label, rdx: result, ecx: its bytes)
derive_stream:
    mov [r12 + vcpu.kdf_input + kdf_input.context], rax
    mov r8d, sizeof.mh_stream_context

# derive(rsi: label, rdx: result, ecx: its bytes, r8d: bytes of the context in vcpu.kdf_input): with the key of vcpu.schedule
.global derive
derive:
    movdqu xmm0, [rsi]
    lea rsi, [r12 + vcpu.kdf_input]
    movdqu [rsi + kdf_input.label], xmm0
    lea rdi, [r12 + vcpu.schedule]
    jmp kdf256

.section .rodata
.balign 16
.Llabel_session:
    .asciz MH_KDF_LABEL_SESSION
.balign 16
.Llabel_identity:
    .asciz MH_KDF_LABEL_IDENTITY
.balign 16
.Llabel_page:
    .asciz MH_KDF_LABEL_PAGE
.balign 16
.Llabel_mask:
    .asciz MH_KDF_LABEL_MASK
