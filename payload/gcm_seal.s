# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Sealing with AES-NI. All that gcm.s says holds here, and ghash.inc has the arithmetic.
#
# The steps go in sets of four blocks, three sets at once, so that AES and GHASH run side by side: the second half of one
# set's rounds, the first half of the next one's, and the hash of the set before. Four sets share a reduction; the last
# ones do with the block of the lengths.
#
# Between sets: NEXT0..NEXT3 is the set whose rounds are half done; NOW1..NOW3 the blocks to hash of the one before, whose first
# one is in the sum already. A product with the last block to hash takes the power at POWER + gcm_key.first_power.

.include "gcm.inc"
.include "ghash.inc"

.extern gcm_begin
.extern gcm_begin_rest
.extern gcm_compare
.extern gcm_encrypt
.extern gcm_finish
.extern gcm_go_on
.extern gcm_hash
.extern gcm_load
.extern gcm_next_stream
.extern gcm_return
.extern gcm_store

.section .rodata
.balign 16
    gcm_constants

.text

.equ SET_BYTES, 4 * BLOCK_BYTES

.reg NEXT0, xmm0
.reg NEXT1, xmm1
.reg NEXT2, xmm2
.reg NEXT3, xmm3
.reg NOW0, xmm4
.reg NOW1, xmm5
.reg NOW2, xmm6
.reg NOW3, xmm7
.reg PAST1, xmm9
.reg PAST2, xmm10
.reg PAST3, xmm11
.reg BASE, xmm8         # sealing has no mask: the counter block of 4 n, the first one behind NEXT less 2, plus round key 0
.reg POWER, rbx
.reg BLOCK, xmm0        # what is shorter than a step goes block by block: see gcm.s
.reg STREAM, xmm1

# A round for one set of four blocks.
.macro cipher_set round, a, b, c, d
    movdqa T, [KEY + (\round) * BLOCK_BYTES]
.irp block, \a, \b, \c, \d
    aesenc \block, T
.endr
.endm
.macro cipher_next round
    cipher_set \round, NEXT0, NEXT1, NEXT2, NEXT3
.endm
.macro cipher_now round
    cipher_set \round, NOW0, NOW1, NOW2, NOW3
.endm

# NEXT0..NEXT3 = the counter blocks of the next set plus round key 0. Its counters are 4 n + 2 and 3 of the BASE of before, and
# 4 n + 4 and 5, which are the new BASE and one more. Loses rax.
.macro next_set
    movdqa NEXT0, BASE
    movdqa NEXT1, BASE
    pxor NEXT0, [rip + .Lcounters + 2 * BLOCK_BYTES]
    pxor NEXT1, [rip + .Lcounters + 3 * BLOCK_BYTES]
    counter_half COUNTER+2
    pinsrq BASE, rax, 1
    movdqa NEXT2, BASE
    movdqa NEXT3, BASE
    pxor NEXT3, [rip + .Lcounters + 1 * BLOCK_BYTES]
    add COUNTER32, 4
.endm

# Before the first set stand zero blocks, and a sum whose remainder is the hash so far. Loses rax, T.
.balign 16, 0xcc
.Lbegin_sets:
    counter_block BASE, COUNTER-2
    next_set
.irp round, 1, 2, 3, 4, 5, 6, 7
    cipher_next \round
.endr
.irp i, 1, 2, 3
    pxor NOW\i, NOW\i
.endr
    sum_of_hash
    mov POWER, KEY
    ret

# Hashes NOW1..NOW3, then NOW0..NOW3 = the ciphertext of NEXT0..NEXT3, whose place another set takes. Loses rax, PAST1..PAST3, T.
#
# The last round adds its key operand, here the last round key plus a block of the source: what comes out is ciphertext.
.balign 64, 0xcc
.Lset:
    cipher_next 8
    multiply NOW1, POWER, 2, PAST1
    cipher_next 9
    movdqa PAST2, NOW2
    movdqa PAST3, NOW3
    movdqa NOW0, NEXT0
    movdqa NOW1, NEXT1
    movdqa NOW2, NEXT2
    movdqa NOW3, NEXT3
    next_set
    cipher_next 1
    cipher_now 10
    cipher_next 2
    multiply PAST2, POWER, 1, PAST1
    cipher_now 11
    cipher_next 3
    cipher_now 12
    cipher_next 4
    multiply PAST3, POWER, 0, PAST1
    cipher_now 13
    cipher_next 5
    cipher_next 6
    movdqa T, [KEY + AES256_LAST]
    movdqu PAST1, [SOURCE]
    movdqu PAST2, [SOURCE + 1 * BLOCK_BYTES]
    movdqu PAST3, [SOURCE + 2 * BLOCK_BYTES]
    pxor PAST1, T
    pxor PAST2, T
    pxor PAST3, T
    aesenclast NOW0, PAST1
    aesenclast NOW1, PAST2
    aesenclast NOW2, PAST3
    movdqu PAST1, [SOURCE + 3 * BLOCK_BYTES]
    pxor PAST1, T
    aesenclast NOW3, PAST1
    cipher_next 7
    add SOURCE, SET_BYTES
    ret

# Goes on from the ciphertext in NOW0..NOW3, whose first block it hashes. Carry set if there is no other set. Loses rax, T.
.balign 16, 0xcc
.Lready:
    movdqa T, [rip + .Lswap]
.irp i, 0, 1, 2, 3
    pshufb NOW\i, T
.endr
    cmp POWER, KEY
    jne 1f
    reduce_low
    reduce_high
    pxor NOW0, HASH
    pxor LOW, LOW
    pxor HIGH, HIGH
    pxor MIDDLE, MIDDLE
    mov eax, GCM_STEP_BYTES
    cmp LEFT, rax
    ja 2f
    lea eax, [LEFT + 2 * BLOCK_BYTES - 1]
    and eax, -BLOCK_BYTES       # one more for the block of the lengths
2:  sub POWER, rax
1:  add POWER, SET_BYTES
    multiply NOW0, POWER, 3, PAST1
    sub LEFT, SET_BYTES
    cmp LEFT, SET_BYTES         # survives one more: what takes blocks takes a whole set as well
    ret

# Hashes what is left to hash, forgets the counters of the set that is half done, and begins what is shorter than a set.
.balign 16, 0xcc
.Lend_sets:
    multiply NOW1, POWER, 2, PAST1
    multiply NOW2, POWER, 1, PAST1
    multiply NOW3, POWER, 0, PAST1
    sub COUNTER32, 4
    cmp POWER, KEY
    jne gcm_go_on
    reduce_low
    reduce_high
    jmp gcm_begin_rest

# int gcm_aesni_seal(const struct gcm_key *key, const struct gcm_job *job);
#
# rdi, rsi -> eax: GCM_DONE.
.balign 16, 0xcc
.global gcm_aesni_seal
gcm_aesni_seal:
    call gcm_begin
# From here on with less than all; the next counter is 4 n + 2.
.global gcm_seal_rest
gcm_seal_rest:
    cmp LEFT, SET_BYTES         # survives one more: what takes blocks takes a whole set as well
    jb .Lseal_short
    push rbx
    call .Lbegin_sets
.Lseal_set:
    call .Lset
    movdqu [DESTINATION], NOW0
    movdqu [DESTINATION + 1 * BLOCK_BYTES], NOW1
    movdqu [DESTINATION + 2 * BLOCK_BYTES], NOW2
    movdqu [DESTINATION + 3 * BLOCK_BYTES], NOW3
    add DESTINATION, SET_BYTES
    call .Lready
    jae .Lseal_set
    call .Lend_sets
    pop rbx
    jmp 1f
.Lseal_short:
    call gcm_begin_rest
1:  test LEFT, LEFT
    jz .Lsealed
.Lseal_block:
    call gcm_next_stream
    call gcm_load
    call gcm_encrypt
    call gcm_store
    movdqa BLOCK, STREAM
    call gcm_hash
    sub LEFT, BLOCK_BYTES
    ja .Lseal_block
.Lsealed:
    call gcm_finish
    movdqu [rax], BLOCK
    xor eax, eax
    jmp gcm_return

# int gcm_aesni_matches(const struct gcm_key *key, const struct gcm_job *job);
#
# rdi, rsi -> eax: GCM_DONE, or GCM_WRONG_TAG when the source, sealed, would have another tag.
#
# As sealing, but the ciphertext goes nowhere.
.balign 16, 0xcc
.global gcm_aesni_matches
gcm_aesni_matches:
    call gcm_begin
    cmp LEFT, SET_BYTES         # survives one more: the same
    jb .Lmatch_short
    push rbx
    call .Lbegin_sets
.Lmatch_set:
    call .Lset
    call .Lready
    jae .Lmatch_set
    call .Lend_sets
    pop rbx
    jmp 1f
.Lmatch_short:
    call gcm_begin_rest
1:  test LEFT, LEFT
    jz .Lmatched
.Lmatch_block:
    call gcm_next_stream
    call gcm_load
    call gcm_encrypt
    movdqa BLOCK, STREAM
    call gcm_hash
    sub LEFT, BLOCK_BYTES
    ja .Lmatch_block
.Lmatched:
    call gcm_finish
    call gcm_compare
    jmp gcm_return
