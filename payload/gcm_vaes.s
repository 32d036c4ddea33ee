# SPDX-License-Identifier: BSD-2-Clause-Patent
# not here: the tests of the kernels run it natively, on CPUs that have VAES; unicorn executes VEX wrongly
#
# AES-256-GCM with VAES and VPCLMULQDQ on 256-bit vectors: 16 blocks in a step. Everything that gcm.s and ghash.inc say holds
# here; gcm.s takes what is shorter than a step and what is left behind the last. Only this file and gcm_zmm.s have VEX
# instructions. One that writes an xmm register clears all that is above it.
#
# The counter of a step's first block is 16 n + 2, so the blocks of the first seven vectors differ from that of
# 16 n in the lowest four bits only: one exclusive-or each. The eighth vector has 16 n + 16 and 17.

.include "gcm.inc"
.include "ghash.inc"
.include "gcm_vaes.inc"

.extern gcm_begin
.extern gcm_aesni_open
.extern gcm_aesni_seal
.extern gcm_open_rest
.extern gcm_release_rest
.extern gcm_return
.extern gcm_seal_rest

.section .rodata
.balign 32
.Lswap:
.rept 2
    .byte 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
.endr
.Lpoly:                                 # as in ghash.inc
.rept 2
    .quad 1, 0xc200000000000000
.endr
.Lcounters:
.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .quad 0, (\i) << 56
.endr

.text

# A round for one set of four vectors.
.macro cipher_set round, a, b, c, d
    vbroadcasti128 WIDE_T, [KEY + (\round) * BLOCK_BYTES]
.irp block, \a, \b, \c, \d
    vaesenc \block, \block, WIDE_T
.endr
.endm

# The last round for a set, whose key operand is the last round key plus the source: ciphertext comes out. Loses u, v.
.macro last_round from, a, b, c, d, u, v
    vbroadcasti128 WIDE_T, [KEY + AES256_LAST]
    vpxor \u, WIDE_T, [SOURCE + \from]
    vpxor \v, WIDE_T, [SOURCE + \from + 1*VECTOR_BYTES]
    vaesenclast \a, \a, \u
    vaesenclast \b, \b, \v
    vpxor \u, WIDE_T, [SOURCE + \from + 2*VECTOR_BYTES]
    vpxor \v, WIDE_T, [SOURCE + \from + 3*VECTOR_BYTES]
    vaesenclast \c, \c, \u
    vaesenclast \d, \d, \v
    vmovdqu [DESTINATION + \from], \a
    vmovdqu [DESTINATION + \from + 1*VECTOR_BYTES], \b
    vmovdqu [DESTINATION + \from + 2*VECTOR_BYTES], \c
    vmovdqu [DESTINATION + \from + 3*VECTOR_BYTES], \d
.endm

# int gcm_vaes_seal(const struct gcm_key *key, const struct gcm_job *job);
#
# rdi, rsi -> eax: GCM_DONE.
#
# As in gcm_seal.s three sets are at work, here of four vectors. A step has two sets, in which A, B and C change places;
# WIDE_T has round keys and products. Of a set to hash the first or second vector comes early: its register then has the
# counter block.
.reg A0, ymm0
.reg A1, ymm1
.reg A2, ymm2
.reg A3, ymm3
.reg B0, ymm4
.reg B1, ymm5
.reg B2, ymm6
.reg B3, ymm7
.reg C0, ymm8
.reg C1, ymm9
.reg C2, ymm10
.reg C3, ymm11
.balign 16, 0xcc
.global gcm_vaes_seal
gcm_vaes_seal:
    cmp qword ptr [JOB + gcm_job.bytes], GCM_STEP_BYTES
    jb gcm_aesni_seal
    call gcm_begin
    counter_blocks 5, COUNTER-2
    vpxor C0, B1, [rip + .Lcounters + 2*BLOCK_BYTES]
    vpxor C1, B1, [rip + .Lcounters + 4*BLOCK_BYTES]
    vpxor C2, B1, [rip + .Lcounters + 6*BLOCK_BYTES]
    vpxor C3, B1, [rip + .Lcounters + 8*BLOCK_BYTES]
.irp round, 1, 2, 3, 4, 5, 6, 7
    cipher_set \round, C0, C1, C2, C3
.endr
    # Zero blocks before the first, and a sum whose remainder is the hash so far.
.irp i, 0, 1, 2, 3
    vpxor xmm\i, xmm\i, xmm\i
.endr
    vmovdqa HIGH, HASH          # as sum_of_hash
    vmovdqa MIDDLE, HASH
    vpxor LOW, LOW, LOW
    sub LEFT, GCM_STEP_BYTES
.Lseal_step:
    vbroadcasti128 WIDE_T, [KEY + 8*BLOCK_BYTES]
    vaesenc B0, C0, WIDE_T
    vaesenc B2, C2, WIDE_T
    vaesenc B3, C3, WIDE_T
    vpshufb C0, A0, [rip + .Lswap]
    vpshufb C2, A2, [rip + .Lswap]
    vpshufb C3, A3, [rip + .Lswap]
    vpxor A0, B1, [rip + .Lcounters + 10*BLOCK_BYTES]
    vpxor A3, B1, [rip + .Lcounters + 12*BLOCK_BYTES]
    vpxor A2, B1, [rip + .Lcounters + 14*BLOCK_BYTES]
    vaesenc B1, C1, WIDE_T
    vpshufb C1, A1, [rip + .Lswap]
    vmovdqa A1, A3
    wide_multiply C0, KEY, 8
    add COUNTER32, STEP_BLOCKS
    counter_blocks 8, COUNTER-2
    vpxor A3, C0, [rip + .Lcounters]
    cipher_set 1, A0, A1, A2, A3
    cipher_set 9, B0, B1, B2, B3
    wide_multiply C1, KEY, 6
    cipher_set 2, A0, A1, A2, A3
    cipher_set 10, B0, B1, B2, B3
    wide_multiply_by C2, KEY, 4, C1
    cipher_set 3, A0, A1, A2, A3
    cipher_set 11, B0, B1, B2, B3
    wide_multiply_by C3, KEY, 2, C1
    cipher_set 4, A0, A1, A2, A3
    cipher_set 12, B0, B1, B2, B3
    wide_reduce_low
    cipher_set 5, A0, A1, A2, A3
    cipher_set 13, B0, B1, B2, B3
    wide_reduce_high
    cipher_set 6, A0, A1, A2, A3
    last_round 0, B0, B1, B2, B3, C1, C2
.irp i, 0, 1, 2, 3
    vpshufb B\i, B\i, [rip + .Lswap]
.endr
    vpxor B0, B0, WIDE_LOW
    wide_multiply_first B1, KEY, 14
    cipher_set 7, A0, A1, A2, A3

    vmovdqa B1, C0
    vpxor C0, B1, [rip + .Lcounters + 2*BLOCK_BYTES]
    vpxor C1, B1, [rip + .Lcounters + 4*BLOCK_BYTES]
    vpxor C2, B1, [rip + .Lcounters + 6*BLOCK_BYTES]
    vpxor C3, B1, [rip + .Lcounters + 8*BLOCK_BYTES]
    cipher_set 8, A0, A1, A2, A3
    cipher_set 1, C0, C1, C2, C3
    wide_multiply B2, KEY, 12
    cipher_set 9, A0, A1, A2, A3
    cipher_set 2, C0, C1, C2, C3
    wide_multiply_by B3, KEY, 10, B2
    cipher_set 10, A0, A1, A2, A3
    cipher_set 3, C0, C1, C2, C3
    wide_multiply_by B0, KEY, 16, B2
    cipher_set 11, A0, A1, A2, A3
    cipher_set 4, C0, C1, C2, C3
    cipher_set 12, A0, A1, A2, A3
    cipher_set 5, C0, C1, C2, C3
    cipher_set 13, A0, A1, A2, A3
    cipher_set 6, C0, C1, C2, C3
    last_round 4*VECTOR_BYTES, A0, A1, A2, A3, B2, B3
    cipher_set 7, C0, C1, C2, C3
    add SOURCE, GCM_STEP_BYTES
    add DESTINATION, GCM_STEP_BYTES
    sub LEFT, GCM_STEP_BYTES
    jae .Lseal_step
    add LEFT, GCM_STEP_BYTES
.irp i, 0, 1, 2, 3
    vpshufb A\i, A\i, [rip + .Lswap]
    wide_multiply A\i, KEY, 8-2*\i
.endr
    wide_reduce_low
    wide_reduce_high
    vzeroupper
    jmp gcm_seal_rest
.unreg A0, A1, A2, A3, B0, B1, B2, B3, C0, C1, C2, C3

.reg WIDE_MASK, ymm8            # of the next two blocks: gcm_open.s has the rule
.reg TAKEN, ymm9
.reg BY, ymm10
.reg WIDE_STEP, ymm11           # what those of the two behind have more
.reg POWER, rbx                 # as in gcm_open.s

# A round for the eight vectors of a step, `key` bytes from the first round key.
.macro cipher key
    vbroadcasti128 WIDE_T, [KEY + \key]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vaesenc ymm\i, ymm\i, WIDE_T
.endr
.endm

# As take of gcm_open.s, two blocks.
.macro take at
    vmovdqu TAKEN, [SOURCE + \at]
    vpxor BY, TAKEN, WIDE_MASK
    vpaddq WIDE_MASK, WIDE_MASK, WIDE_STEP
    vmovdqu [DESTINATION + \at], BY
    vpshufb TAKEN, TAKEN, [rip + .Lswap]
.endm

# WIDE_MASK and WIDE_STEP, of MASK and MASK_STEP; and back. Loses ymm0.
.macro spread_masks
    vpaddq xmm0, MASK, MASK_STEP
    vinserti128 WIDE_MASK, WIDE_MASK, xmm0, 1
    vpaddq MASK_STEP, MASK_STEP, MASK_STEP
    vinserti128 WIDE_STEP, WIDE_STEP, MASK_STEP, 1
.endm
.macro first_of_masks
    vextracti128 MASK_STEP, WIDE_MASK, 1
    vzeroupper
    psubq MASK_STEP, MASK
.endm

# As veil_and_key of gcm_open.s: TAKEN, in both halves. WIDE_T = the last round key.
.macro veil_and_key
    vextracti128 xmm9, WIDE_MASK, 1
    vpsubq xmm9, xmm9, MASK
    vinserti128 TAKEN, TAKEN, xmm9, 1
    vbroadcasti128 WIDE_T, [KEY + AES256_LAST]
    vaesenc TAKEN, TAKEN, WIDE_T
.endm

# int gcm_vaes_open(const struct gcm_key *key, const struct gcm_job *job, __m128i mask, __m128i mask_step);
#
# rdi, rsi, xmm8, xmm11 -> eax: GCM_DONE, or GCM_WRONG_TAG.
.balign 16, 0xcc
.global gcm_vaes_open
gcm_vaes_open:
    cmp qword ptr [JOB + gcm_job.bytes], GCM_STEP_BYTES
    jb gcm_aesni_open
    call gcm_begin
    mov DESTINATION, [JOB + gcm_job.scratch]
    push rbx
    spread_masks
    vmovdqa HIGH, HASH          # as sum_of_hash; the second blocks have no hash to start from
    vmovdqa MIDDLE, HASH
    vpxor LOW, LOW, LOW
    mov POWER, KEY
.Lopen_step:
    counter_blocks 9, COUNTER-2
.irp i, 0, 1, 2, 3, 4, 5, 6
    vpxor ymm\i, TAKEN, [rip + .Lcounters + (\i + 1) * VECTOR_BYTES]
.endr
    add COUNTER32, STEP_BLOCKS
    counter_blocks 9, COUNTER-2
    vpxor ymm7, TAKEN, [rip + .Lcounters]
    cipher BLOCK_BYTES
    cmp POWER, KEY
    jne 1f
    wide_reduce_low
    wide_reduce_high
    # 32 blocks share a reduction, or what is left of them.
    mov eax, 2 * GCM_STEP_BYTES
    cmp LEFT, rax
    jae 2f
    mov eax, GCM_STEP_BYTES
2:  sub POWER, rax
    take 0
    vpxor TAKEN, TAKEN, WIDE_LOW
    vpxor LOW, LOW, LOW
    vpxor HIGH, HIGH, HIGH
    vpxor MIDDLE, MIDDLE, MIDDLE
    jmp 3f
1:  take 0
3:  add POWER, GCM_STEP_BYTES
    wide_multiply_by TAKEN, POWER, 16, BY
    cipher 2*BLOCK_BYTES
    mov eax, BLOCK_BYTES
1:  take 2*rax
    wide_multiply_by TAKEN, POWER+2*rax, 16, BY
    cipher rax+2*BLOCK_BYTES
    add eax, BLOCK_BYTES
    cmp eax, 8 * BLOCK_BYTES
    jb 1b
1:  cipher rax+2*BLOCK_BYTES
    add eax, BLOCK_BYTES
    cmp eax, (AES256_ROUNDS - 2) * BLOCK_BYTES
    jb 1b
    veil_and_key
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vaesenclast ymm\i, ymm\i, [DESTINATION + \i * VECTOR_BYTES]
    vpxor ymm\i, ymm\i, TAKEN
    vmovdqu [DESTINATION + \i * VECTOR_BYTES], ymm\i
.endr
    add SOURCE, GCM_STEP_BYTES
    add DESTINATION, GCM_STEP_BYTES
    sub LEFT, GCM_STEP_BYTES
    cmp LEFT, GCM_STEP_BYTES
    jae .Lopen_step
    wide_reduce_low
    wide_reduce_high
    pop rbx
    first_of_masks
    call gcm_open_rest
    jnz gcm_return

    # As gcm_release_rest, 8 blocks at a time.
.equ RELEASE_BYTES, 4 * VECTOR_BYTES
    spread_masks
    veil_and_key
    vpxor TAKEN, TAKEN, WIDE_T
    vmovdqa ymm4, WIDE_MASK
    vpaddq ymm5, ymm4, WIDE_STEP
    vpaddq ymm6, ymm5, WIDE_STEP
    vpaddq ymm7, ymm6, WIDE_STEP
    vpaddq BY, WIDE_STEP, WIDE_STEP
    vpaddq BY, BY, BY
.Lrelease:
    vpxor ymm0, ymm4, [SOURCE]
    vpxor ymm1, ymm5, [SOURCE + 1 * VECTOR_BYTES]
    vpxor ymm2, ymm6, [SOURCE + 2 * VECTOR_BYTES]
    vpxor ymm3, ymm7, [SOURCE + 3 * VECTOR_BYTES]
.irp i, 4, 5, 6, 7
    vpaddq ymm\i, ymm\i, BY
.endr
.irp i, 0, 1, 2, 3
    vpxor ymm\i, ymm\i, TAKEN
    vmovdqu [DESTINATION + \i * VECTOR_BYTES], ymm\i
.endr
    add SOURCE, RELEASE_BYTES
    add DESTINATION, RELEASE_BYTES
    sub LEFT, RELEASE_BYTES
    cmp LEFT, RELEASE_BYTES
    jae .Lrelease
    vmovdqa WIDE_MASK, ymm4
    first_of_masks
    call gcm_release_rest
    jmp gcm_return

# gcm_vaes_wipe(): all vector registers, their upper halves as well
.global gcm_vaes_wipe
gcm_vaes_wipe:
    vzeroall
    ret
