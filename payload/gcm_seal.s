# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Sealing with AES-NI. All that gcm.s says holds here, its registers too.
#
# The steps go in sets of four blocks, three sets at once, so that AES and GHASH run side by side: the second half of one
# set's rounds, the first half of the next one's, and the hash of the set before. Four sets share a reduction.
#
# Between sets: xmm0..xmm3 the set whose rounds are half done; xmm5..xmm7 the blocks to hash of the one before, whose first
# one is in the sum already; xmm8 the block with the counter of the set after it less 2, a multiple of 4, plus round
# key 0. A product with the last block to hash takes the power at rbx + first_power.

.include "gcm.inc"
.include "ghash.inc"

.extern gcm_begin
.extern gcm_compare
.extern gcm_encrypt
.extern gcm_finish
.extern gcm_hash
.extern gcm_load
.extern gcm_next_stream
.extern gcm_return
.extern gcm_store

.section .rodata
.balign 16
    gcm_constants

.text

# A round for one set of four blocks.
.macro cipher_set round, a, b, c, d
    movdqa xmm15, [rdi + (\round) * 16]
.irp i, \a, \b, \c, \d
    aesenc xmm\i, xmm15
.endr
.endm

# xmm0..xmm3 = the counter blocks of the next set plus round key 0. Loses rax.
.macro next_set
    movdqa xmm0, xmm8
    movdqa xmm1, xmm8
    pxor xmm0, [rip + .Lcounters + 2 * 16]
    pxor xmm1, [rip + .Lcounters + 3 * 16]
    counter_half rdx+2
    pinsrq xmm8, rax, 1
    movdqa xmm2, xmm8
    movdqa xmm3, xmm8
    pxor xmm3, [rip + .Lcounters + 1 * 16]
    add edx, 4
.endm

# Before the first set stand zero blocks, and a sum whose remainder is the hash so far. Loses rax, xmm15.
.balign 16, 0xcc
.Lbegin_sets:
    counter_block xmm8, rdx-2
    next_set
.irp round, 1, 2, 3, 4, 5, 6, 7
    cipher_set \round, 0, 1, 2, 3
.endr
.irp i, 5, 6, 7
    pxor xmm\i, xmm\i
.endr
    movdqa xmm13, xmm12
    movdqa xmm14, xmm12
    pxor xmm12, xmm12
    mov rbx, rdi
    ret

# Hashes what is left to hash and makes the ciphertext of the next set in xmm4..xmm7. Loses rax, xmm9..xmm11, xmm15.
.balign 64, 0xcc
.Lset:
    movdqa xmm9, xmm5
    movdqa xmm10, xmm6
    movdqa xmm11, xmm7
    movdqa xmm4, xmm0
    movdqa xmm5, xmm1
    movdqa xmm6, xmm2
    movdqa xmm7, xmm3
    cipher_set 8, 4, 5, 6, 7
    next_set
    cipher_set 1, 0, 1, 2, 3
    cipher_set 9, 4, 5, 6, 7
    multiply xmm9, rbx, 2
    cipher_set 2, 0, 1, 2, 3
    cipher_set 10, 4, 5, 6, 7
    multiply xmm10, rbx, 1
    cipher_set 3, 0, 1, 2, 3
    cipher_set 11, 4, 5, 6, 7
    multiply xmm11, rbx, 0
    cipher_set 4, 0, 1, 2, 3
    cipher_set 12, 4, 5, 6, 7
    cipher_set 5, 0, 1, 2, 3
    cipher_set 13, 4, 5, 6, 7
    cipher_set 6, 0, 1, 2, 3
    movdqa xmm15, [rdi + 224]
    movdqu xmm9, [r8]
    movdqu xmm10, [r8 + 16]
    movdqu xmm11, [r8 + 32]
    pxor xmm9, xmm15
    pxor xmm10, xmm15
    pxor xmm11, xmm15
    aesenclast xmm4, xmm9
    aesenclast xmm5, xmm10
    aesenclast xmm6, xmm11
    movdqu xmm9, [r8 + 48]
    pxor xmm9, xmm15
    aesenclast xmm7, xmm9
    cipher_set 7, 0, 1, 2, 3
    add r8, 64
    ret

# Goes on from the ciphertext in xmm4..xmm7, whose first block it hashes. Zero flag set if this was the last of the
# sets that share a reduction. Loses xmm15.
.balign 16, 0xcc
.Lready:
    movdqa xmm15, [rip + .Lswap]
.irp i, 4, 5, 6, 7
    pshufb xmm\i, xmm15
.endr
    cmp rbx, rdi
    jne 1f
    reduce_low
    reduce_high
    pxor xmm4, xmm12
    pxor xmm12, xmm12
    pxor xmm13, xmm13
    pxor xmm14, xmm14
    sub rbx, GCM_STEP_BYTES
1:  add rbx, 64
    multiply xmm4, rbx, 3
    sub rcx, 64
    cmp rbx, rdi
    ret

# Hashes what is left to hash, and forgets the counters of the set that is half done.
.balign 16, 0xcc
.Lend_sets:
    multiply xmm5, rbx, 2
    multiply xmm6, rbx, 1
    multiply xmm7, rbx, 0
    reduce_low
    reduce_high
    sub edx, 4
    ret

# gcm_aesni_seal(rdi: gcm_key, rsi: gcm_job) -> eax: 0
.balign 16, 0xcc
.global gcm_aesni_seal
gcm_aesni_seal:
    call gcm_begin
    cmp rcx, GCM_STEP_BYTES
    jb gcm_seal_rest
    push rbx
    call .Lbegin_sets
.Lseal_set:
    call .Lset
    movdqu [r9], xmm4
    movdqu [r9 + 16], xmm5
    movdqu [r9 + 32], xmm6
    movdqu [r9 + 48], xmm7
    add r9, 64
    call .Lready
    jne .Lseal_set
    cmp rcx, GCM_STEP_BYTES
    jae .Lseal_set
    call .Lend_sets
    pop rbx
# From here on with less than a step.
.global gcm_seal_rest
gcm_seal_rest:
    test rcx, rcx
    jz .Lsealed
.Lseal_block:
    call gcm_next_stream
    call gcm_load
    call gcm_encrypt
    call gcm_store
    movdqa xmm0, xmm1
    call gcm_hash
    sub rcx, 16
    ja .Lseal_block
.Lsealed:
    call gcm_finish
    movdqu [rax], xmm0
    xor eax, eax
    jmp gcm_return

# gcm_aesni_matches(rdi: gcm_key, rsi: gcm_job) -> eax: 0, or 1 when the source, sealed, would have another tag
#
# As sealing, but the ciphertext goes nowhere.
.balign 16, 0xcc
.global gcm_aesni_matches
gcm_aesni_matches:
    call gcm_begin
    cmp rcx, GCM_STEP_BYTES
    jb .Lmatch_rest
    push rbx
    call .Lbegin_sets
.Lmatch_set:
    call .Lset
    call .Lready
    jne .Lmatch_set
    cmp rcx, GCM_STEP_BYTES
    jae .Lmatch_set
    call .Lend_sets
    pop rbx
.Lmatch_rest:
    test rcx, rcx
    jz .Lmatched
.Lmatch_block:
    call gcm_next_stream
    call gcm_load
    call gcm_encrypt
    movdqa xmm0, xmm1
    call gcm_hash
    sub rcx, 16
    ja .Lmatch_block
.Lmatched:
    call gcm_finish
    call gcm_compare
    jmp gcm_return
