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

.extern gcm_begin
.extern gcm_aesni_open
.extern gcm_aesni_seal
.extern gcm_decrypt_rest
.extern gcm_return
.extern gcm_seal_rest
.extern gcm_verify_rest

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
.Lsixteen:
.rept 2
    .quad 16, 0
.endr

.text

.equ VECTOR_BYTES, 2 * BLOCK_BYTES
.equ STEP_BLOCKS, GCM_STEP_BYTES / BLOCK_BYTES

# The sum of products, of the first and the second block of every vector for itself.
.reg WIDE_LOW, ymm12
.reg WIDE_HIGH, ymm13
.reg WIDE_MIDDLE, ymm14
.reg WIDE_T, ymm15

# As counter_block of ghash.inc, in both halves of vector number `to`.
.macro counter_blocks to, counter
    counter_half \counter
    vmovq xmm\to, IV_LOW
    vpinsrq xmm\to, xmm\to, rax, 1
    vinserti128 ymm\to, ymm\to, xmm\to, 1
.endm

# As multiply_first and multiply of ghash.inc: two blocks times two neighbours, H^power and H^(power - 1). Loses block, WIDE_T.
.macro wide_multiply_first block, base, power
    vpshufd WIDE_MIDDLE, \block, SWAP_HALVES
    vpxor WIDE_MIDDLE, WIDE_MIDDLE, \block
    vpclmulqdq WIDE_LOW, \block, [\base + gcm_key.first_power - ((\power) - 1) * BLOCK_BYTES], LOW_LOW
    vpclmulqdq WIDE_HIGH, \block, [\base + gcm_key.first_power - ((\power) - 1) * BLOCK_BYTES], HIGH_HIGH
    vpclmulqdq WIDE_MIDDLE, WIDE_MIDDLE, [\base + gcm_key.first_sum - ((\power) - 1) * BLOCK_BYTES], LOW_LOW
.endm
.macro wide_multiply block, base, power
    vpclmulqdq WIDE_T, \block, [\base + gcm_key.first_power - ((\power) - 1) * BLOCK_BYTES], LOW_LOW
    vpxor WIDE_LOW, WIDE_LOW, WIDE_T
    vpclmulqdq WIDE_T, \block, [\base + gcm_key.first_power - ((\power) - 1) * BLOCK_BYTES], HIGH_HIGH
    vpxor WIDE_HIGH, WIDE_HIGH, WIDE_T
    vpshufd WIDE_T, \block, SWAP_HALVES
    vpxor \block, \block, WIDE_T
    vpclmulqdq \block, \block, [\base + gcm_key.first_sum - ((\power) - 1) * BLOCK_BYTES], LOW_LOW
    vpxor WIDE_MIDDLE, WIDE_MIDDLE, \block
.endm

# The same where a register is free: all products stand together, as in ghash.inc. Loses by, too.
.macro wide_multiply_by block, base, power, by
    vpshufd \by, \block, SWAP_HALVES
    vpxor \by, \by, \block
    vpclmulqdq WIDE_T, \block, [\base + gcm_key.first_power - ((\power) - 1) * BLOCK_BYTES], LOW_LOW
    vpclmulqdq \by, \by, [\base + gcm_key.first_sum - ((\power) - 1) * BLOCK_BYTES], LOW_LOW
    vpclmulqdq \block, \block, [\base + gcm_key.first_power - ((\power) - 1) * BLOCK_BYTES], HIGH_HIGH
    vpxor WIDE_LOW, WIDE_LOW, WIDE_T
    vpxor WIDE_MIDDLE, WIDE_MIDDLE, \by
    vpxor WIDE_HIGH, WIDE_HIGH, \block
.endm

# As reduce_low and reduce_high of ghash.inc, on both blocks; then HASH is the sum of the two.
.macro wide_reduce_low
    vpxor WIDE_MIDDLE, WIDE_MIDDLE, WIDE_LOW
    vpclmulqdq WIDE_T, WIDE_LOW, [rip + .Lpoly], LOW_HIGH
    vpxor WIDE_MIDDLE, WIDE_MIDDLE, WIDE_HIGH
    vpshufd WIDE_LOW, WIDE_LOW, SWAP_HALVES
    vpxor WIDE_MIDDLE, WIDE_MIDDLE, WIDE_LOW
    vpxor WIDE_MIDDLE, WIDE_MIDDLE, WIDE_T
.endm
.macro wide_reduce_high
    vpclmulqdq WIDE_T, WIDE_MIDDLE, [rip + .Lpoly], LOW_HIGH
    vpshufd WIDE_LOW, WIDE_MIDDLE, SWAP_HALVES
    vpxor WIDE_LOW, WIDE_LOW, WIDE_HIGH
    vpxor WIDE_LOW, WIDE_LOW, WIDE_T
    vextracti128 T, WIDE_LOW, 1
    vpxor HASH, HASH, T
.endm

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

.reg WIDE_MASK, ymm8            # MASK, in both halves
.reg MASKED, ymm9
.reg SWAP, ymm10                # .Lswap
.reg FIRST, ymm0                # waits for the hash of the step before
.reg NEXT, ymm1

# Two blocks of the source, byte-swapped, to `to`; to the scratch they go under the mask. Loses MASKED.
.macro verify to, number
    vmovdqu \to, [SOURCE + (\number) * VECTOR_BYTES]
    vpxor MASKED, \to, WIDE_MASK
    vmovdqu [DESTINATION + (\number) * VECTOR_BYTES], MASKED
    vpshufb \to, \to, SWAP
.endm

# int gcm_vaes_open(const struct gcm_key *key, const struct gcm_job *job, __m128i mask);
#
# rdi, rsi, xmm8 -> eax: GCM_DONE, or GCM_WRONG_TAG.
.balign 16, 0xcc
.global gcm_vaes_open
gcm_vaes_open:
    cmp qword ptr [JOB + gcm_job.bytes], GCM_STEP_BYTES
    jb gcm_aesni_open
    call gcm_begin
    mov DESTINATION, [JOB + gcm_job.scratch]
    vinserti128 WIDE_MASK, WIDE_MASK, MASK, 1
    vmovdqa HASH, HASH          # the second block has no hash to start from
    vmovdqa SWAP, [rip + .Lswap]
    # 32 blocks share a reduction.
    sub LEFT, 2 * GCM_STEP_BYTES
    jb .Lverified
.Lverify_step:
    verify FIRST, 0
    vpxor FIRST, FIRST, WIDE_LOW
    verify NEXT, 1
    wide_multiply_first NEXT, KEY, 30
.irp i, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    verify NEXT, \i
    wide_multiply_by NEXT, KEY, 32-2*\i, ymm2
.endr
    wide_multiply_by FIRST, KEY, 32, ymm2
    wide_reduce_low
    wide_reduce_high
    add SOURCE, 2 * GCM_STEP_BYTES
    add DESTINATION, 2 * GCM_STEP_BYTES
    sub LEFT, 2 * GCM_STEP_BYTES
    jae .Lverify_step
.Lverified:
    add LEFT, 2 * GCM_STEP_BYTES
    vzeroupper
    call gcm_verify_rest
    jnz gcm_return
.unreg MASKED, SWAP, FIRST, NEXT

    # As gcm_decrypt_rest, 16 blocks a step, all in ymm0 to ymm7.
.reg OPERAND, ymm9
.reg LAST, ymm10                # the last round key plus the mask
.reg COUNTERS, ymm11            # the counter block of 16 n, its bytes swapped
.reg BASE, ymm12                # the same block plus round key 0
.reg FIRST_KEY, ymm13           # round key 0
.macro decrypt_round key
    vbroadcasti128 OPERAND, [KEY + \key]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vaesenc ymm\i, ymm\i, OPERAND
.endr
.endm
    vinserti128 LAST, WIDE_MASK, MASK, 1
    vbroadcasti128 OPERAND, [KEY + AES256_LAST]
    vpxor LAST, LAST, OPERAND
    counter_blocks 12, COUNTER-2
    vbroadcasti128 FIRST_KEY, [KEY]
    vpxor COUNTERS, BASE, FIRST_KEY
    vpshufb COUNTERS, COUNTERS, [rip + .Lswap]
    sub LEFT, GCM_STEP_BYTES
.Ldecrypt_step:
    vpaddd COUNTERS, COUNTERS, [rip + .Lsixteen]
.irp i, 0, 1, 2, 3, 4, 5, 6
    vpxor ymm\i, BASE, [rip + .Lcounters + (\i + 1) * VECTOR_BYTES]
.endr
    vpshufb BASE, COUNTERS, [rip + .Lswap]
    vpxor BASE, BASE, FIRST_KEY
    vpxor ymm7, BASE, [rip + .Lcounters]
    add COUNTER32, STEP_BLOCKS
    each_round_key decrypt_round
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vpxor OPERAND, LAST, [SOURCE + \i * VECTOR_BYTES]
    vaesenclast ymm\i, ymm\i, OPERAND
    vmovdqu [DESTINATION + \i * VECTOR_BYTES], ymm\i
.endr
    add SOURCE, GCM_STEP_BYTES
    add DESTINATION, GCM_STEP_BYTES
    sub LEFT, GCM_STEP_BYTES
    jae .Ldecrypt_step
    add LEFT, GCM_STEP_BYTES
    vzeroupper
    call gcm_decrypt_rest
    jmp gcm_return

# gcm_vaes_wipe(): all vector registers, their upper halves as well
.global gcm_vaes_wipe
gcm_vaes_wipe:
    vzeroall
    ret
