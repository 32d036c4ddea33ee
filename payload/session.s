# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# hello, start, abort: how a session begins and ends.
#
# A nonce of ours serves one start. The keys depend on both nonces, so no two sessions share one, whatever
# the host replays; within a session the IV is the packet's sequence number, which only grows.

.include "state.inc"
.include "gcm.inc"

.extern aes256_expand
.extern bitmap_clear
.extern gcm_key_init
.extern kdf256
.extern transport_key
.extern wipe_session

.equ RANDOM_TRIES, 10           # AMD and Intel both ask for at least ten

.text
.global hello
hello:
    cmp dword ptr [rip + state_phase], PHASE_GREETED
    ja .Lwrong_state
    test dword ptr [rip + state_features], MH_FEATURE_AESNI
    jz .Lno_feature
    lea rdi, [rip + state_nonce]
    mov r8d, MH_NONCE_BYTES / 8
.Lword:
    mov ecx, RANDOM_TRIES
.Ltry:
    rdrand rax
    jc .Lgood
    dec ecx
    jnz .Ltry
    mov dword ptr [rip + state_phase], PHASE_IDLE
    mov eax, MH_NO_ENTROPY
    ret
.Lgood:
    mov [rdi], rax
    add rdi, 8
    dec r8d
    jnz .Lword
    movdqu xmm0, [rip + state_nonce]
    movdqu xmm1, [rip + state_nonce + 16]
    movdqu [rip + state_completion + mh_completion.nonce], xmm0
    movdqu [rip + state_completion + mh_completion.nonce + 16], xmm1
    mov dword ptr [rip + state_phase], PHASE_GREETED
    mov eax, MH_DONE
    ret
.Lwrong_state:
    mov eax, MH_WRONG_STATE
    ret
.Lno_feature:
    mov eax, MH_NO_FEATURE
    ret

.global start
start:
    movzx eax, word ptr [rip + state_entry + mh_submission.role]
    cmp eax, MH_ROLE_SOURCE
    je 1f
    cmp eax, MH_ROLE_TARGET
    je 1f
    mov eax, MH_BAD_ENTRY
    ret
1:  cmp dword ptr [rip + state_phase], PHASE_GREETED
    jne .Lwrong_state
    call transport_key
    test rax, rax
    jz .Lno_key
    mov rsi, rax
    movdqu xmm0, [rip + state_entry + mh_submission.nonce]
    movdqu xmm1, [rip + state_entry + mh_submission.nonce + 16]
    movdqu xmm2, [rip + state_nonce]
    movdqu xmm3, [rip + state_nonce + 16]
    movdqa xmm4, xmm0
    movdqa xmm5, xmm1
    pxor xmm4, xmm2
    pxor xmm5, xmm3
    por xmm4, xmm5
    ptest xmm4, xmm4
    jz .Lbad_nonce

    lea rdi, [rip + state_kdf_input + kdf_input.context]
    cmp word ptr [rip + state_entry + mh_submission.role], MH_ROLE_SOURCE
    je .Lours_first
    movdqu [rdi + mh_kdf_context.source_nonce], xmm0
    movdqu [rdi + mh_kdf_context.source_nonce + 16], xmm1
    movdqu [rdi + mh_kdf_context.target_nonce], xmm2
    movdqu [rdi + mh_kdf_context.target_nonce + 16], xmm3
    mov dword ptr [rip + state_phase], PHASE_TARGET
    jmp derive
.Lours_first:
    movdqu [rdi + mh_kdf_context.source_nonce], xmm2
    movdqu [rdi + mh_kdf_context.source_nonce + 16], xmm3
    movdqu [rdi + mh_kdf_context.target_nonce], xmm0
    movdqu [rdi + mh_kdf_context.target_nonce + 16], xmm1
    mov dword ptr [rip + state_phase], PHASE_SOURCE
    jmp derive
.Lno_key:
    mov eax, MH_NO_KEY
    ret
.Lbad_nonce:
    mov eax, MH_BAD_NONCE
    ret

# rsi: transport key, rdi: the context, nonces filled in
derive:
    mov dword ptr [rdi + mh_kdf_context.stream], 0
    mov dword ptr [rdi + mh_kdf_context.version], MH_ABI_VERSION
    lea rdi, [rip + state_schedule]
    call aes256_expand

    lea rsi, [rip + .Llabel_session]
    lea rdx, [rip + state_session]
    mov ecx, MH_SESSION_BYTES
    call derive_one
    lea rsi, [rip + .Llabel_key]
    lea rdx, [rip + state_derived]
    mov ecx, MH_KEY_BYTES
    call derive_one
    lea rdi, [rip + state_page_key]
    lea rsi, [rip + state_derived]
    call gcm_key_init

    # Only page key and session are needed from here on; our nonce is used up.
    lea rdi, [rip + state_schedule]
    mov ecx, AES256_SCHEDULE_BYTES + sizeof.kdf_input
    xor eax, eax
    rep stosb
    lea rdi, [rip + state_nonce]
    mov ecx, MH_NONCE_BYTES + MH_KEY_BYTES
    rep stosb
    wipe_xmm
    call forget_counts
    mov eax, MH_DONE
    ret

# forget_counts(): no packet, no page, no epoch yet
.global forget_counts
forget_counts:
    xor eax, eax
    mov [rip + state_sequence], rax
    mov [rip + state_pages], rax
    mov [rip + state_epoch], rax
    mov [rip + state_epoch_pages], rax
    jmp bitmap_clear

# rsi: label, rdx: result, ecx: its bytes
derive_one:
    movdqu xmm0, [rsi]
    lea rsi, [rip + state_kdf_input]
    movdqu [rsi + kdf_input.label], xmm0
    lea rdi, [rip + state_schedule]
    jmp kdf256

.global abort
abort:
    call wipe_session
    call forget_counts
    mov dword ptr [rip + state_phase], PHASE_IDLE
    mov eax, MH_DONE
    ret

.section .rodata
.balign 16
.Llabel_key:
    .asciz MH_KDF_LABEL_KEY
.balign 16
.Llabel_session:
    .asciz MH_KDF_LABEL_SESSION
