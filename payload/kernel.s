# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# AES-256-GCM for the helper: the key is checked, then the kernel chosen by what the CPU has. And how to wipe behind it.
# A gcm_job and its buffers are as gcm.inc and gcm.s say. What only a CPU with VEX instructions comes to, the tests of the
# kernels run natively.

.include "vcpu.inc"

.extern aes256_block
.extern aes256_pair
.ifdef MH_VECTORS_512
.extern avx512_is_on
.endif
.extern avx_is_on
.extern gcm_aesni_matches
.extern gcm_aesni_open
.extern gcm_aesni_seal
.extern gcm_return
.extern gcm_vaes_open
.extern gcm_vaes_seal
.extern gcm_vaes_wipe
.ifdef MH_VECTORS_512
.extern gcm_zmm_open
.extern gcm_zmm_seal
.extern gcm_zmm_wipe
.endif

.text

# gcm_seal(rdi: gcm_key, rsi: gcm_job) -> eax: GCM_DONE, GCM_NO_KEY
.global gcm_seal
gcm_seal:
    call .Lcheck_key
    jnz .Lno_key
    test dword ptr [rdi + gcm_key.features], MH_FEATURE_VAES     # survives dropped: the narrow kernel gives the same
    jz gcm_aesni_seal           # one side: the other natively
.ifdef MH_VECTORS_512
    test dword ptr [rdi + gcm_key.features], MH_FEATURE_ZMM     # not here: natively
    jnz gcm_zmm_seal            # not here: natively
.endif
    jmp gcm_vaes_seal           # not here: natively

# gcm_open(rdi: gcm_key, rsi: gcm_job, xmm0: mask) -> eax: GCM_DONE, GCM_WRONG_TAG, GCM_NO_KEY
#
# The scratch holds the plaintext under masks afterwards, also where the tag was wrong. The mask must be a secret from the host
# and never serve twice; CIPH of it is the step from one block's mask to the next one's. The destination is written only when
# the tag is right; it may be shared memory or guest RAM.
.global gcm_open
gcm_open:
    movdqa xmm8, xmm0
    movdqa xmm1, xmm0
    pxor xmm0, xmm0
    call aes256_pair
    movdqa xmm11, xmm1
    call .Lcompare_check
    jnz .Lno_key
    test dword ptr [rdi + gcm_key.features], MH_FEATURE_VAES     # survives dropped: the same
    jz gcm_aesni_open           # one side: the other natively
.ifdef MH_VECTORS_512
    test dword ptr [rdi + gcm_key.features], MH_FEATURE_ZMM     # not here: natively
    jnz gcm_zmm_open            # not here: natively
.endif
    jmp gcm_vaes_open           # not here: natively

# gcm_matches(rdi: gcm_key, rsi: gcm_job) -> eax: GCM_DONE when the source, sealed, has the tag of the job, else
# GCM_WRONG_TAG; or GCM_NO_KEY. Writes nothing.
.global gcm_matches
gcm_matches:
    call .Lcheck_key
    jz gcm_aesni_matches
.Lno_key:                        # of all three
    mov eax, GCM_NO_KEY
    jmp gcm_return

# Zero flag set if the schedule of the key at rdi is whole. Loses xmm0, xmm1.
.Lcheck_key:
    pxor xmm0, xmm0
    call aes256_block
.Lcompare_check:
    pxor xmm0, [rdi + gcm_key.check]
    ptest xmm0, xmm0
    ret

# wipe_vectors(): what a kernel that did not return may have left. Whether there are upper halves is asked of the CPU: a
# host that has switched AVX off since they were used can make no VEX instruction fault here.
.global wipe_vectors
wipe_vectors:
    wipe_xmm
    call avx_is_on
    jne 1f
.ifdef MH_VECTORS_512
    call avx512_is_on           # not here: natively
    je gcm_zmm_wipe             # not here: natively
.endif
    jmp gcm_vaes_wipe
1:  ret
