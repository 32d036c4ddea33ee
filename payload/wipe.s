# SPDX-License-Identifier: BSD-2-Clause-Patent

.include "state.inc"

.extern state_secrets
.extern state_secrets_end
.extern wipe_vectors

.text

# wipe_session(): forgets keys, nonce, session and plaintext, in memory and in vector registers.
.global wipe_session
wipe_session:
    lea rdi, [rip + state_secrets]
    lea rcx, [rip + state_secrets_end]
    sub rcx, rdi
    xor eax, eax
    rep stosb
    call wipe_vectors

# wipe_bounce(): forgets plaintext that was imported, or should have been.
.global wipe_bounce
wipe_bounce:
    lea rdi, [rip + state_bounce]
    mov rcx, [rip + state_bounce_used]
    shr rcx, 3
    xor eax, eax
    rep stosq
    mov [rip + state_bounce_used], rcx
    ret
