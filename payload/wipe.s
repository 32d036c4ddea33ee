# SPDX-License-Identifier: BSD-2-Clause-Patent

.include "vcpu.inc"

.extern wipe_vectors

.text

# wipe_session(): forgets this vCPU's keys, nonce and plaintext, in memory and in vector registers.
.global wipe_session
wipe_session:
    lea rdi, [r12 + vcpu.secrets]
    mov ecx, vcpu.secrets_end - vcpu.secrets
    xor eax, eax
    rep stosb
.irp lane, vcpu.bulk, vcpu.urgent
    lea rdi, [r12 + \lane + lane.job]
    mov ecx, sizeof.lane - lane.job
    rep stosb
.endr
    call wipe_vectors

    # Plaintext that was imported, or should have been.
    lea rdi, [r12 + vcpu.bounce]
    mov rcx, [r12 + vcpu.bounce_used]
    shr rcx, 3
    xor eax, eax
    rep stosq
    mov [r12 + vcpu.bounce_used], rcx
    ret
