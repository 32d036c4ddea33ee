# SPDX-License-Identifier: BSD-2-Clause-Patent
# not here: the tests of the kernels run it natively, on CPUs that have AVX-512; unicorn executes no EVEX
#
# AES-256-GCM with VAES and VPCLMULQDQ on 512-bit vectors: 32 blocks in a step, with one reduction. Everything that gcm.s and
# ghash.inc say holds here; what is shorter than a step is left to gcm_vaes.s, what is left behind the last to gcm.s. The
# only file with EVEX instructions: AVX-512F, BW and VL. It is linked for parts that may have them, with MH_VECTORS_512.
#
# Where the cycles of a step go, by instructions:
#
#                                   vaesenc, vaesenclast    vpclmulqdq    shuffles    sums
#   counter blocks                                                           4           8
#   rounds, 8 vectors                       112                                              and 6 broadcasts
#   ciphertext, byte-swapped                                                 8           9
#   products, 8 vectors                                        24            8          20
#   reduction, sum of four lanes                                2            4           5
#                                           ---                ---          ---         ---
#   512 bytes                               112                 26           24          42
#
# A core with one 512-bit AES unit begins one of the first column in a cycle: 0.22 cycles a byte. Zen 5 begins two of them,
# and four vector instructions in all, of which a vpclmulqdq counts as three (measured) and a broadcast as one: 112 + 3 * 26 +
# 24 + 42 + 6 are 65.5 cycles, 0.128 a byte. Opening takes what its passes are bound by, one after the other: the first one
# the 26, two cycles each there, the second one the 112.

.include "gcm.inc"
.include "ghash.inc"

.extern gcm_begin
.extern gcm_decrypt_rest
.extern gcm_return
.extern gcm_seal_rest
.extern gcm_vaes_open
.extern gcm_vaes_seal
.extern gcm_verify_rest

.ifdef MH_VECTORS_512

.section .rodata
.balign 64
.Lcounters: # what a counter block of 32 n differs in from those that follow, the last two from the next one of 32 n
.irp i, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 0, 1
    .quad 0, (\i) << 56
.endr
.Lpoly:                                 # as in ghash.inc
.rept 4
    .quad 1, 0xc200000000000000
.endr
.Lswap:
    .byte 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0

.text

.equ VECTOR_BYTES, 4 * BLOCK_BYTES
.equ STEP_BYTES, 8 * VECTOR_BYTES
.equ STEP_BLOCKS, STEP_BYTES / BLOCK_BYTES

# The sum of products, of each of the four blocks of every vector for itself. The hash lies in the lowest of the first.
.reg WIDE_LOW, zmm12
.reg WIDE_HIGH, zmm13
.reg WIDE_MIDDLE, zmm14
.reg WIDE_T, zmm15
.reg WIDE_LOW_HALF, ymm12
.reg WIDE_T_HALF, ymm15
.reg OPERAND, zmm8              # a round key, or the key operand of the last round
.reg WIDE_U, zmm8
.reg SWAP, zmm24                # .Lswap
.reg BASE, zmm25                # the counter block of 32 n plus round key 0, four times
.reg LAST_KEY, zmm28            # of the last round; in opening plus the mask
.reg WIDE_MASK, zmm30           # MASK, four times

# `step NUMBER, REGISTER` for the round keys that stay in registers; opening has room for the others too, behind.
.macro each_kept_key step
    \step 1, 9
    \step 2, 10
    \step 3, 11
    \step 4, 26
    \step 5, 27
    \step 6, 29
    \step 7, 31
.endm
.macro each_other_key step
    \step 8, 16
    \step 9, 17
    \step 10, 18
    \step 11, 19
    \step 12, 20
    \step 13, 21
.endm
.macro keep_key number, register
    vbroadcasti32x4 zmm\register, [KEY + (\number) * BLOCK_BYTES]
.endm

# The constants, and the counters from COUNTER on. Loses rax, OPERAND.
.macro begin_steps
    vbroadcasti32x4 SWAP, [rip + .Lswap]
    vbroadcasti32x4 LAST_KEY, [KEY + AES256_LAST]
    each_kept_key keep_key
    counter_base BASE
.endm

# `to` = the counter block of COUNTER - 2 plus round key 0, four times. Loses rax, OPERAND.
.macro counter_base to
    counter_half COUNTER-2
    vmovq xmm8, IV_LOW
    vpinsrq xmm8, xmm8, rax, 1
    vshufi64x2 \to, OPERAND, OPERAND, 0
.endm

# zmm0 to zmm7 = the next counter blocks plus round key 0. Loses rax, OPERAND.
.macro counter_blocks
.irp i, 0, 1, 2, 3, 4, 5, 6
    vpxorq zmm\i, BASE, [rip + .Lcounters + \i * VECTOR_BYTES]
.endr
    add COUNTER32, STEP_BLOCKS
    counter_base zmm8
    vshufi64x2 zmm7, BASE, OPERAND, 0
    vpxorq zmm7, zmm7, [rip + .Lcounters + 7 * VECTOR_BYTES]
    vmovdqa64 BASE, OPERAND
.endm

# A round for zmm0 to zmm7, with a key in a register, or with one from the schedule.
.macro cipher_kept number, register
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vaesenc zmm\i, zmm\i, zmm\register
.endr
.endm
.macro cipher_round number
    keep_key \number, 8
    cipher_kept \number, 8
.endm

# As multiply of ghash.inc, two vectors at once: four blocks of each times four neighbours, H^power to H^(power - 3). Loses
# both, WIDE_T, WIDE_U. 0x96: the sum of all three.
.macro products to, part, a, p, b, q
    vpclmulqdq WIDE_T, zmm\a, [KEY + gcm_key.first_power - ((\p) - 1) * BLOCK_BYTES], \part
    vpclmulqdq WIDE_U, zmm\b, [KEY + gcm_key.first_power - ((\q) - 1) * BLOCK_BYTES], \part
    vpternlogq \to, WIDE_T, WIDE_U, 0x96
.endm
.macro products_middle a, p, b, q
    vpshufd WIDE_T, zmm\a, SWAP_HALVES
    vpshufd WIDE_U, zmm\b, SWAP_HALVES
    vpxorq zmm\a, zmm\a, WIDE_T
    vpxorq zmm\b, zmm\b, WIDE_U
    vpclmulqdq zmm\a, zmm\a, [KEY + gcm_key.first_sum - ((\p) - 1) * BLOCK_BYTES], LOW_LOW
    vpclmulqdq zmm\b, zmm\b, [KEY + gcm_key.first_sum - ((\q) - 1) * BLOCK_BYTES], LOW_LOW
    vpternlogq WIDE_MIDDLE, zmm\a, zmm\b, 0x96
.endm
.macro wide_multiply a, p, b, q
    products WIDE_LOW, LOW_LOW, \a, \p, \b, \q
    products WIDE_HIGH, HIGH_HIGH, \a, \p, \b, \q
    products_middle \a, \p, \b, \q
.endm

# As reduce_low and reduce_high of ghash.inc, on all four blocks; then HASH is their sum.
.macro wide_reduce_low
    vpternlogq WIDE_MIDDLE, WIDE_LOW, WIDE_HIGH, 0x96
    vpclmulqdq WIDE_T, WIDE_LOW, [rip + .Lpoly], LOW_HIGH
    vpshufd WIDE_LOW, WIDE_LOW, SWAP_HALVES
    vpternlogq WIDE_MIDDLE, WIDE_LOW, WIDE_T, 0x96
.endm
.macro wide_reduce_high
    vpclmulqdq WIDE_T, WIDE_MIDDLE, [rip + .Lpoly], LOW_HIGH
    vpshufd WIDE_LOW, WIDE_MIDDLE, SWAP_HALVES
    vpternlogq WIDE_LOW, WIDE_HIGH, WIDE_T, 0x96
    vextracti64x4 WIDE_T_HALF, WIDE_LOW, 1
    vpxor WIDE_LOW_HALF, WIDE_LOW_HALF, WIDE_T_HALF
    vextracti128 T, WIDE_LOW_HALF, 1
    vpxor HASH, HASH, T
.endm

# HASH = the hash of a step whose vectors are in zmm16 to zmm23, their bytes swapped, added to the sum so far.
.balign 64, 0xcc
.Lhash_step:
    wide_multiply 17, 28, 18, 24
    wide_multiply 19, 20, 20, 16
    wide_multiply 21, 12, 22, 8
    wide_multiply 23, 4, 16, 32
    wide_reduce_low
    wide_reduce_high
    ret

# int gcm_zmm_seal(const struct gcm_key *key, const struct gcm_job *job);
#
# rdi, rsi -> eax: GCM_DONE.
#
# The ciphertext of a step is hashed between the rounds of the next one: its vectors wait in zmm16 to zmm23, their bytes
# swapped, the hash in the first. That one is multiplied last, for it is ready last.
.balign 64, 0xcc
.global gcm_zmm_seal
gcm_zmm_seal:
    cmp qword ptr [JOB + gcm_job.bytes], STEP_BYTES
    jb gcm_vaes_seal
    call gcm_begin
    begin_steps
    # Zero blocks before the first, and a sum whose remainder is the hash so far.
.irp i, 16, 17, 18, 19, 20, 21, 22, 23
    vpxorq zmm\i, zmm\i, zmm\i
.endr
    vmovdqa HIGH, HASH          # as sum_of_hash
    vmovdqa MIDDLE, HASH
    vpxor LOW, LOW, LOW
    sub LEFT, STEP_BYTES
.Lseal_step:
    counter_blocks
    cipher_kept 1, 9
    products WIDE_LOW, LOW_LOW, 17, 28, 18, 24
    cipher_kept 2, 10
    products WIDE_HIGH, HIGH_HIGH, 17, 28, 18, 24
    cipher_kept 3, 11
    products_middle 17, 28, 18, 24
    cipher_kept 4, 26
    products WIDE_LOW, LOW_LOW, 19, 20, 20, 16
    cipher_kept 5, 27
    products WIDE_HIGH, HIGH_HIGH, 19, 20, 20, 16
    cipher_kept 6, 29
    products_middle 19, 20, 20, 16
    cipher_kept 7, 31
    products WIDE_LOW, LOW_LOW, 21, 12, 22, 8
    cipher_round 8
    products WIDE_HIGH, HIGH_HIGH, 21, 12, 22, 8
    cipher_round 9
    products_middle 21, 12, 22, 8
    cipher_round 10
    products WIDE_LOW, LOW_LOW, 23, 4, 16, 32
    cipher_round 11
    products WIDE_HIGH, HIGH_HIGH, 23, 4, 16, 32
    cipher_round 12
    products_middle 23, 4, 16, 32
    cipher_round 13
    wide_reduce_low
    wide_reduce_high
    # The last round adds its key operand, here the last round key plus the source: what comes out is ciphertext.
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vpxorq OPERAND, LAST_KEY, [SOURCE + \i * VECTOR_BYTES]
    vaesenclast zmm\i, zmm\i, OPERAND
    vmovdqu64 [DESTINATION + \i * VECTOR_BYTES], zmm\i
.endr
    vpshufb zmm16, zmm0, SWAP
    vpshufb zmm17, zmm1, SWAP
    vpshufb zmm18, zmm2, SWAP
    vpshufb zmm19, zmm3, SWAP
    vpshufb zmm20, zmm4, SWAP
    vpshufb zmm21, zmm5, SWAP
    vpshufb zmm22, zmm6, SWAP
    vpshufb zmm23, zmm7, SWAP
    vpxorq zmm16, zmm16, WIDE_LOW
.irp i, 12, 13, 14
    vpxor xmm\i, xmm\i, xmm\i
.endr
    add SOURCE, STEP_BYTES
    add DESTINATION, STEP_BYTES
    sub LEFT, STEP_BYTES
    jae .Lseal_step
    add LEFT, STEP_BYTES
    call .Lhash_step
    call .Lend_steps
    jmp gcm_seal_rest

# Four blocks of the source, byte-swapped, to vector `to`; to the scratch they go under the mask. Loses vector `by`.
.macro verify to, by, number
    vmovdqu64 zmm\to, [SOURCE + (\number) * VECTOR_BYTES]
    vpxorq zmm\by, zmm\to, WIDE_MASK
    vmovdqu64 [DESTINATION + (\number) * VECTOR_BYTES], zmm\by
    vpshufb zmm\to, zmm\to, SWAP
.endm

# int gcm_zmm_open(const struct gcm_key *key, const struct gcm_job *job, __m128i mask);
#
# rdi, rsi, xmm8 -> eax: GCM_DONE, or GCM_WRONG_TAG.
.balign 64, 0xcc
.global gcm_zmm_open
gcm_zmm_open:
    cmp qword ptr [JOB + gcm_job.bytes], STEP_BYTES
    jb gcm_vaes_open
    call gcm_begin
    mov DESTINATION, [JOB + gcm_job.scratch]
    vshufi64x2 WIDE_MASK, OPERAND, OPERAND, 0
    vbroadcasti32x4 SWAP, [rip + .Lswap]
    vmovdqa HASH, HASH          # the other blocks have no hash to start from
    sub LEFT, STEP_BYTES
.Lverify_step:
    verify 16, 0, 0
    verify 17, 1, 1
    verify 18, 2, 2
    verify 19, 3, 3
    verify 20, 4, 4
    verify 21, 5, 5
    verify 22, 6, 6
    verify 23, 7, 7
    vpxorq zmm16, zmm16, WIDE_LOW
.irp i, 12, 13, 14
    vpxor xmm\i, xmm\i, xmm\i
.endr
    call .Lhash_step
    add SOURCE, STEP_BYTES
    add DESTINATION, STEP_BYTES
    sub LEFT, STEP_BYTES
    jae .Lverify_step
    add LEFT, STEP_BYTES
    vextracti32x4 MASK, WIDE_MASK, 0
    vzeroupper                  # keeps WIDE_MASK
    call gcm_verify_rest
    jnz .Lopened

    # As gcm_decrypt_rest, 32 blocks a step.
    begin_steps
    each_other_key keep_key
    vpxorq LAST_KEY, LAST_KEY, WIDE_MASK
    sub LEFT, STEP_BYTES
.Ldecrypt_step:
    counter_blocks
    each_kept_key cipher_kept
    each_other_key cipher_kept
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vpxorq OPERAND, LAST_KEY, [SOURCE + \i * VECTOR_BYTES]
    vaesenclast zmm\i, zmm\i, OPERAND
    vmovdqu64 [DESTINATION + \i * VECTOR_BYTES], zmm\i
.endr
    add SOURCE, STEP_BYTES
    add DESTINATION, STEP_BYTES
    sub LEFT, STEP_BYTES
    jae .Ldecrypt_step
    add LEFT, STEP_BYTES
    vextracti32x4 MASK, WIDE_MASK, 0
    call .Lend_steps
    call gcm_decrypt_rest
    jmp gcm_return
.Lopened:
    call .Lend_steps
    jmp gcm_return

# gcm_zmm_wipe(): all vector registers, whole
.global gcm_zmm_wipe
gcm_zmm_wipe:
    vzeroall
# Of these registers only those of the other files stay, and of them 128 bits.
.Lend_steps:
.irp i, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vpxorq xmm\i, xmm\i, xmm\i
.endr
    vzeroupper
    ret

.endif
