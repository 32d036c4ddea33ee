# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The choice of a kernel, and of how to wipe behind it, by what the CPU has. A gcm_job and its buffers are as gcm.inc and gcm.s say.

.include "vcpu.inc"

.extern gcm_aesni_open
.extern gcm_aesni_seal
.extern gcm_vaes_open
.extern gcm_vaes_seal
.extern gcm_vaes_wipe

.text

# gcm_seal(rdi: gcm_key, rsi: gcm_job)
.global gcm_seal
gcm_seal:
    test dword ptr [rdi + gcm_key.features], MH_FEATURE_VAES
    jz gcm_aesni_seal
    jmp gcm_vaes_seal

# gcm_open(rdi: gcm_key, rsi: gcm_job) -> eax: 0, or 1 when the tag is wrong
#
# The destination must be private: it holds plaintext before the tag is known to be good.
.global gcm_open
gcm_open:
    test dword ptr [rdi + gcm_key.features], MH_FEATURE_VAES
    jz gcm_aesni_open
    jmp gcm_vaes_open

# wipe_vectors(): what a kernel that did not return may have left
.global wipe_vectors
wipe_vectors:
    test dword ptr [r12 + vcpu.features], MH_FEATURE_VAES
    jnz gcm_vaes_wipe
    wipe_xmm
    ret
