# SPDX-License-Identifier: BSD-2-Clause-Patent

.include "gcm.inc"

.extern state_secrets
.extern state_secrets_end

.text

# wipe_session(): forgets keys, nonce, session and plaintext, in memory and in SSE registers.
.global wipe_session
wipe_session:
    lea rdi, [rip + state_secrets]
    lea rcx, [rip + state_secrets_end]
    sub rcx, rdi
    xor eax, eax
    rep stosb
    wipe_xmm
    ret
