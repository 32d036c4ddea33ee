# SPDX-License-Identifier: BSD-2-Clause-Patent
# not here: the tests of the kernels run it natively, on CPUs that have AVX-512; unicorn executes no EVEX
#
# AES-256-GCM with VAES and VPCLMULQDQ on 512-bit vectors: 32 blocks in a step, with one reduction; what is shorter than a
# step goes by single vectors, with one more; what is shorter than a vector is left to gcm.s and gcm_seal.s. Everything that
# gcm.s and ghash.inc say holds here. The only file with EVEX instructions: AVX-512F, BW and VL. It is linked for parts that
# may have them, with MH_VECTORS_512.
#
# Where the cycles of a step go, by instructions, in sealing:
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
# 24 + 42 + 6 are 65.5 cycles, 0.128 a byte. Opening has 61 sums (masks and veil 27, no ciphertext to make), a broadcast and a
# vaesenc more: 70.8 cycles, and behind the tag 4 more for the 16 sums of what is released.

.include "gcm.inc"
.include "ghash.inc"
.include "gcm_zmm.inc"

.extern gcm_aesni_open
.extern gcm_aesni_seal
.extern gcm_begin_job
.extern gcm_hash_aad
.extern gcm_open_rest
.extern gcm_release_rest
.extern gcm_return
.extern gcm_seal_rest

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

# The constants, and the counters from COUNTER on. Loses rax, OPERAND.
.balign 16, 0xcc
.Lbegin_steps:
    vbroadcasti32x4 SWAP, [rip + .Lswap]
    vbroadcasti32x4 LAST_KEY, [KEY + AES256_LAST]
    each_kept_key keep_key
    counter_base BASE
    ret

# HASH = the hash of a step whose vectors are in zmm0 to zmm7, their bytes swapped, added to the sum so far; the first of them
# is multiplied last, for it has the hash before and is ready last.
.balign 64, 0xcc
.Lhash_step:
    wide_multiply 1, 28, 2, 24
    wide_multiply 3, 20, 4, 16
    wide_multiply 5, 12, 6, 8
    wide_multiply 7, 4, 0, 32
.Lreduce:
    wide_reduce_low
    wide_reduce_high
    ret

# The same between the rounds of a step: zmm16 to zmm23 = the next counter blocks, but for the last round.
.balign 64, 0xcc
.Lcipher_and_hash:
    counter_blocks
    cipher_kept 1, 9
    products WIDE_LOW, LOW_LOW, 1, 28, 2, 24
    cipher_kept 2, 10
    products WIDE_HIGH, HIGH_HIGH, 1, 28, 2, 24
    cipher_kept 3, 11
    products_middle 1, 28, 2, 24
    cipher_kept 4, 26
    products WIDE_LOW, LOW_LOW, 3, 20, 4, 16
    cipher_kept 5, 27
    products WIDE_HIGH, HIGH_HIGH, 3, 20, 4, 16
    cipher_kept 6, 29
    products_middle 3, 20, 4, 16
    cipher_kept 7, 31
    products WIDE_LOW, LOW_LOW, 5, 12, 6, 8
    cipher_round 8
    products WIDE_HIGH, HIGH_HIGH, 5, 12, 6, 8
    cipher_round 9
    products_middle 5, 12, 6, 8
    cipher_round 10
    products WIDE_LOW, LOW_LOW, 7, 4, 0, 32
    cipher_round 11
    products WIDE_HIGH, HIGH_HIGH, 7, 4, 0, 32
    cipher_round 12
    products_middle 7, 4, 0, 32
    cipher_round 13
    jmp .Lreduce

# Adds VECTOR times the powers of its place, by what is left with it. Loses rax, VECTOR, OPERAND, WIDE_T.
.balign 16, 0xcc
.Lhash_vector:
    mov rax, LEFT
    and rax, -VECTOR_BYTES
    neg rax
    add rax, KEY
    vpxorq VECTOR, VECTOR, BEFORE
    vpxor xmm7, xmm7, xmm7
    vpshufd OPERAND, VECTOR, SWAP_HALVES
    vpxorq OPERAND, OPERAND, VECTOR
    vpclmulqdq WIDE_T, VECTOR, [rax + gcm_key.first_power + BLOCK_BYTES], LOW_LOW
    vpclmulqdq OPERAND, OPERAND, [rax + gcm_key.first_sum + BLOCK_BYTES], LOW_LOW
    vpclmulqdq VECTOR, VECTOR, [rax + gcm_key.first_power + BLOCK_BYTES], HIGH_HIGH
    vpxorq WIDE_LOW, WIDE_LOW, WIDE_T
    vpxorq WIDE_MIDDLE, WIDE_MIDDLE, OPERAND
    vpxorq WIDE_HIGH, WIDE_HIGH, VECTOR
    ret

# As gcm_begin, additional data of less than a step by vectors; then .Lbegin_steps.
.balign 16, 0xcc
.Lbegin:
    call gcm_begin_job
    vbroadcasti32x4 SWAP, [rip + .Lswap]
    cmp LEFT, STEP_BYTES
    jae 3f
    begin_vectors
    jmp 2f
1:  vmovdqu64 VECTOR, [SOURCE]
    vpshufb VECTOR, VECTOR, SWAP
    call .Lhash_vector
    add SOURCE, VECTOR_BYTES
    sub LEFT, VECTOR_BYTES
2:  cmp LEFT, VECTOR_BYTES
    jae 1b
    call .Lreduce
    vzeroupper
3:  call gcm_hash_aad
    jmp .Lbegin_steps

# What .Lstream_vector needs. The counters of less than a step differ from BASE in their last byte, without a carry.
.balign 16, 0xcc
.Lbegin_ciphers:
    each_other_key keep_key
    vbroadcasti32x4 FIRST_KEY, [KEY]
    vbroadcasti32x4 FOUR, [rip + .Lcounters + 2 * BLOCK_BYTES]
    vpxorq COUNTERS, BASE, FIRST_KEY
    vpxorq COUNTERS, COUNTERS, [rip + .Lcounters]
    ret

# STREAM = the next counter blocks, but for the last round.
.balign 16, 0xcc
.Lstream_vector:
    vpxorq STREAM, COUNTERS, FIRST_KEY
    vpaddd COUNTERS, COUNTERS, FOUR
    add COUNTER32, VECTOR_BYTES / BLOCK_BYTES
    each_kept_key cipher_one
    each_other_key cipher_one
    ret

# Behind a vector. Carry set if what is left is less than one.
.balign 16, 0xcc
.Lnext_vector:
    add SOURCE, VECTOR_BYTES
    add DESTINATION, VECTOR_BYTES
    sub LEFT, VECTOR_BYTES
    cmp LEFT, VECTOR_BYTES
    ret

# int gcm_zmm_seal(const struct gcm_key *key, const struct gcm_job *job);
#
# rdi, rsi -> eax: GCM_DONE.
#
# The ciphertext of a step is hashed between the rounds of the next one.
.balign 64, 0xcc
.global gcm_zmm_seal
gcm_zmm_seal:
    cmp qword ptr [JOB + gcm_job.bytes], VECTOR_BYTES
    jb gcm_aesni_seal
    call .Lbegin
    sub LEFT, STEP_BYTES
    jb .Lseal_vectors
    # Zero blocks before the first, and a sum whose remainder is the hash so far.
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vpxorq zmm\i, zmm\i, zmm\i
.endr
    vmovdqa HIGH, HASH          # as sum_of_hash
    vmovdqa MIDDLE, HASH
    vpxor LOW, LOW, LOW
.Lseal_step:
    call .Lcipher_and_hash
    each_vector seal_last
    begin_sum
    add SOURCE, STEP_BYTES
    add DESTINATION, STEP_BYTES
    sub LEFT, STEP_BYTES
    jae .Lseal_step
    call .Lhash_step
.Lseal_vectors:
    add LEFT, STEP_BYTES
    cmp LEFT, VECTOR_BYTES
    jb .Lsealed_vectors
    call .Lbegin_ciphers
    begin_vectors
1:  call .Lstream_vector
    last_round 16, 0
    vpshufb VECTOR, OPERAND, SWAP
    call .Lhash_vector
    call .Lnext_vector
    jae 1b
    call .Lreduce
.Lsealed_vectors:
    call .Lend_steps
    jmp gcm_seal_rest

# int gcm_zmm_open(const struct gcm_key *key, const struct gcm_job *job, __m128i mask, __m128i mask_step);
#
# rdi, rsi, xmm8, xmm11 -> eax: GCM_DONE, or GCM_WRONG_TAG.
.balign 64, 0xcc
.global gcm_zmm_open
gcm_zmm_open:
    cmp qword ptr [JOB + gcm_job.bytes], VECTOR_BYTES
    jb gcm_aesni_open
    vmovdqa64 xmm16, MASK
    vmovdqa64 xmm17, MASK_STEP
    call .Lbegin
    spread_masks
    mov DESTINATION, [JOB + gcm_job.scratch]
    sub LEFT, STEP_BYTES
    jb .Lopen_vectors
    vmovdqa HASH, HASH          # the other blocks have no hash to start from
.Lopen_step:
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    take \i, \i
.endr
    begin_sum
    call .Lcipher_and_hash
    veil_and_key 4
    each_vector open_last
    add SOURCE, STEP_BYTES
    add DESTINATION, STEP_BYTES
    sub LEFT, STEP_BYTES
    jae .Lopen_step
.Lopen_vectors:
    add LEFT, STEP_BYTES
    cmp LEFT, VECTOR_BYTES
    jb .Lopened_vectors
    call .Lbegin_ciphers
    veil_and_key 20
    begin_vectors
1:  call .Lstream_vector
    take 6, 0
    open_vector 16, 0, 20
    call .Lhash_vector
    call .Lnext_vector
    jae 1b
    call .Lreduce
.Lopened_vectors:
    first_of_masks
    vzeroupper                  # keeps zmm16 to zmm31
    call gcm_open_rest
    jnz .Lopened

    # As gcm_release_rest, 16 blocks at a time, then 4.
    vmovdqa64 xmm16, MASK
    vmovdqa64 xmm17, MASK_STEP
    spread_masks
    veil_and_key 0
    vpxorq WIDE_T, WIDE_T, zmm0
    sub LEFT, 4 * VECTOR_BYTES
    jb 2f
    vpaddq zmm20, WIDE_STEP, WIDE_STEP
    vpaddq zmm17, WIDE_MASK, WIDE_STEP
    vpaddq zmm18, WIDE_MASK, zmm20
    vpaddq zmm19, zmm17, zmm20
    vpaddq zmm20, zmm20, zmm20
1:  release 0, 30, zmm20
    release 1, 17, zmm20
    release 2, 18, zmm20
    release 3, 19, zmm20
    add SOURCE, 4 * VECTOR_BYTES
    add DESTINATION, 4 * VECTOR_BYTES
    sub LEFT, 4 * VECTOR_BYTES
    jae 1b
2:  add LEFT, 4 * VECTOR_BYTES
    jmp 4f
3:  release 0, 30, WIDE_STEP
    add SOURCE, VECTOR_BYTES
    add DESTINATION, VECTOR_BYTES
    sub LEFT, VECTOR_BYTES
4:  cmp LEFT, VECTOR_BYTES
    jae 3b
    first_of_masks
    call .Lend_steps
    call gcm_release_rest
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
