# SPDX-License-Identifier: BSD-2-Clause-Patent

.include "vcpu.inc"

.extern wipe_vectors

.text

# wipe_session(): forgets this vCPU's keys, hello and masks, in memory and in vector registers. What the scratch holds is
# under masks that are gone.
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
    movq mm6, rax
    movq mm7, rax
    jmp wipe_vectors
