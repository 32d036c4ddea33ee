# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The choice of a kernel, by what the CPU has. A gcm_job and its buffers are as gcm.inc and gcm.s say.

.extern state_features
.extern gcm_aesni_open
.extern gcm_aesni_seal
.extern gcm_vaes_open
.extern gcm_vaes_seal

.text

# gcm_seal(rdi: gcm_key, rsi: gcm_job)
.global gcm_seal
gcm_seal:
    test dword ptr [rip + state_features], MH_FEATURE_VAES
    jz gcm_aesni_seal
    jmp gcm_vaes_seal

# gcm_open(rdi: gcm_key, rsi: gcm_job) -> eax: 0, or 1 when the tag is wrong
#
# The destination must be private: it holds plaintext before the tag is known to be good.
.global gcm_open
gcm_open:
    test dword ptr [rip + state_features], MH_FEATURE_VAES
    jz gcm_aesni_open
    jmp gcm_vaes_open
