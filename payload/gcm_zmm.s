# SPDX-License-Identifier: BSD-2-Clause-Patent
# not here: the tests of the kernels run it natively, on CPUs that have AVX-512; unicorn executes no EVEX
#
# AES-256-GCM with VAES and VPCLMULQDQ on 512-bit vectors: 32 blocks in a step, with one reduction. Everything that gcm.s and
# ghash.inc say holds here; what is shorter than a step is left to gcm_vaes.s, what is left behind the last to gcm.s. The
# only file with EVEX instructions: AVX-512F, BW and VL. It is linked for parts that may have them, with MH_VECTORS_512.
#
# Where the cycles of a step go, by instructions, of which a core with one 512-bit AES unit and one for the carry-less
# products and shuffles begins one of each in a cycle:
#
#                                   vaesenc, vaesenclast    vpclmulqdq    shuffles
#   counter blocks                                                           8
#   rounds, 8 vectors                       112
#   ciphertext, byte-swapped                                                 8
#   products, 8 vectors                                        24            8
#   reduction, sum of four lanes                                2            4
#                                           ---                ---          ---
#   512 bytes                               112                 26           28
#
# So sealing is bound by AES, 0.22 cycles a byte on such a core. The second pass of opening is bound as well, and its first
# one by the 26 + 20 of the other unit, 0.09 cycles a byte.

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
.Lfirst: # what the counters of a vector's blocks differ in, in the lowest word of a swapped block
.irp i, 0, 1, 2, 3
    .quad \i, 0
.endr
.Lfour:
    .quad 4, 0
.Lswap:
    .byte 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
.Lpoly:                                 # as in ghash.inc
    .quad 1, 0xc200000000000000

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
.reg SWAP, zmm24                # .Lswap
.reg COUNTERS, zmm25            # the next four counter blocks, their bytes swapped: vpaddd counts in the lowest word
.reg FOUR, zmm26
.reg FIRST_KEY, zmm27           # round key 0
.reg LAST_KEY, zmm28            # of the last round; in opening plus the mask
.reg POLY, zmm29
.reg WIDE_MASK, zmm30           # MASK, four times

# The constants, and the counters from COUNTER on. Loses rax, OPERAND.
.macro begin_steps
    vbroadcasti32x4 SWAP, [rip + .Lswap]
    vbroadcasti32x4 FOUR, [rip + .Lfour]
    vbroadcasti32x4 POLY, [rip + .Lpoly]
    vbroadcasti32x4 FIRST_KEY, [KEY]
    vbroadcasti32x4 LAST_KEY, [KEY + AES256_LAST]
    counter_half COUNTER
    vmovq xmm8, IV_LOW
    vpinsrq xmm8, xmm8, rax, 1
    vshufi64x2 COUNTERS, OPERAND, OPERAND, 0
    vpxorq COUNTERS, COUNTERS, FIRST_KEY
    vpshufb COUNTERS, COUNTERS, SWAP
    vpaddd COUNTERS, COUNTERS, [rip + .Lfirst]
.endm

# zmm0 to zmm7 = the next counter blocks plus round key 0.
.macro counter_blocks
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vpshufb zmm\i, COUNTERS, SWAP
    vpaddd COUNTERS, COUNTERS, FOUR
    vpxorq zmm\i, zmm\i, FIRST_KEY
.endr
    add COUNTER32, STEP_BLOCKS
.endm

# A round for zmm0 to zmm7; `key` is its key's place in the schedule.
.macro cipher_round key
    vbroadcasti32x4 OPERAND, [KEY + \key]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vaesenc zmm\i, zmm\i, OPERAND
.endr
.endm

# As multiply of ghash.inc: four blocks times four neighbours, H^power to H^(power - 3). Loses block, WIDE_T.
.macro wide_multiply block, power
    vpclmulqdq WIDE_T, \block, [KEY + gcm_key.first_power - ((\power) - 1) * BLOCK_BYTES], LOW_LOW
    vpxorq WIDE_LOW, WIDE_LOW, WIDE_T
    vpclmulqdq WIDE_T, \block, [KEY + gcm_key.first_power - ((\power) - 1) * BLOCK_BYTES], HIGH_HIGH
    vpxorq WIDE_HIGH, WIDE_HIGH, WIDE_T
    vpshufd WIDE_T, \block, SWAP_HALVES
    vpxorq \block, \block, WIDE_T
    vpclmulqdq \block, \block, [KEY + gcm_key.first_sum - ((\power) - 1) * BLOCK_BYTES], LOW_LOW
    vpxorq WIDE_MIDDLE, WIDE_MIDDLE, \block
.endm

# As reduce_low and reduce_high of ghash.inc, on all four blocks; then HASH is their sum. 0x96: the sum of all three.
.macro wide_reduce_low
    vpternlogq WIDE_MIDDLE, WIDE_LOW, WIDE_HIGH, 0x96
    vpclmulqdq WIDE_T, WIDE_LOW, POLY, LOW_HIGH
    vpshufd WIDE_LOW, WIDE_LOW, SWAP_HALVES
    vpternlogq WIDE_MIDDLE, WIDE_LOW, WIDE_T, 0x96
.endm
.macro wide_reduce_high
    vpclmulqdq WIDE_T, WIDE_MIDDLE, POLY, LOW_HIGH
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
    wide_multiply zmm17, 28
    wide_multiply zmm18, 24
    wide_multiply zmm19, 20
    wide_multiply zmm20, 16
    wide_multiply zmm21, 12
    wide_multiply zmm22, 8
    wide_multiply zmm23, 4
    wide_multiply zmm16, 32
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
    cipher_round 1*BLOCK_BYTES
    wide_multiply zmm17, 28
    cipher_round 2*BLOCK_BYTES
    wide_multiply zmm18, 24
    cipher_round 3*BLOCK_BYTES
    wide_multiply zmm19, 20
    cipher_round 4*BLOCK_BYTES
    wide_multiply zmm20, 16
    cipher_round 5*BLOCK_BYTES
    wide_multiply zmm21, 12
    cipher_round 6*BLOCK_BYTES
    wide_multiply zmm22, 8
    cipher_round 7*BLOCK_BYTES
    wide_multiply zmm23, 4
    cipher_round 8*BLOCK_BYTES
    wide_multiply zmm16, 32
    cipher_round 9*BLOCK_BYTES
    wide_reduce_low
    cipher_round 10*BLOCK_BYTES
    wide_reduce_high
    cipher_round 11*BLOCK_BYTES
    cipher_round 12*BLOCK_BYTES
    cipher_round 13*BLOCK_BYTES
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
    vbroadcasti32x4 POLY, [rip + .Lpoly]
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
    vpxorq LAST_KEY, LAST_KEY, WIDE_MASK
    sub LEFT, STEP_BYTES
.Ldecrypt_step:
    counter_blocks
    mov rax, -(AES256_ROUNDS - 1) * BLOCK_BYTES
1:  cipher_round rax+AES256_LAST
    add rax, BLOCK_BYTES
    jnz 1b
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
