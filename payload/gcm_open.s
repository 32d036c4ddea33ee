# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Opening with AES-NI. All that gcm.s says holds here, and ghash.inc has the arithmetic.
#
# Plaintext whose tag is not known yet waits in the scratch, every block under a mask of its own that only registers have: the
# host can neither choose what lies there nor compare it. Once the tag is known to be right, it goes to its place. A host that
# puts older bytes into the scratch in between gets noise.
#
# Block i of the source goes to the scratch under M(i) = MASK + i MASK_STEP, each half by itself, and from there into the last round
# of AES as its key operand, which that adds. The plaintext takes its place, under M(i) and a veil: MASK_STEP after one round of
# AES without a key, which masks of two places do not cancel. So whatever a host puts back there, the guest gets nothing of the key.
# Every block is read once from the source, where it is hashed, and AES need not be ready by then.

.include "gcm.inc"
.include "ghash.inc"

.extern gcm_begin
.extern gcm_begin_rest
.extern gcm_compare
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

.equ SET_BYTES, 8 * BLOCK_BYTES

.reg BLOCK, xmm0                # as in gcm.s
.reg STREAM, xmm1
.reg POWER, rbx                 # a product with the last block of a set takes the power at POWER + gcm_key.first_power
.reg TAKEN, xmm9
.reg BY, xmm10

# A round for the eight blocks of a set, `key` bytes from the first round key.
.macro cipher key
    movdqa T, [KEY + \key]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    aesenc xmm\i, T
.endr
.endm

# The block of a set at offset `at` to the scratch, under its mask; TAKEN = it, its bytes swapped. Loses BY.
.macro take at
    movdqu TAKEN, [SOURCE + \at]
    movdqa BY, TAKEN
    pxor BY, MASK
    paddq MASK, MASK_STEP
    movdqa [DESTINATION + \at], BY
    pshufb TAKEN, [rip + .Lswap]
.endm

# `to` = the veil, plus the last round key.
.macro veil_and_key to
    movdqa \to, MASK_STEP
    aesenc \to, [KEY + AES256_LAST]
.endm

# xmm0..xmm7 = the next counter blocks plus round key 0. The counters of the first six, 8 n + 2 to 8 n + 7, differ in the last byte
# from 8 n, those of the other two from 8 (n + 1). Loses rax, T.
.macro next_set
    counter_block T, COUNTER-2
.irp i, 0, 1, 2, 3, 4, 5
    movdqa xmm\i, [rip + .Lcounters + (\i + 2) * BLOCK_BYTES]
    pxor xmm\i, T
.endr
    counter_block xmm6, COUNTER+6
    movdqa xmm7, [rip + .Lcounters + 1 * BLOCK_BYTES]
    pxor xmm7, xmm6
    add COUNTER32, 8
.endm

# int gcm_aesni_open(const struct gcm_key *key, const struct gcm_job *job, __m128i mask, __m128i mask_step);
#
# rdi, rsi, xmm8, xmm11 -> eax: GCM_DONE, or GCM_WRONG_TAG.
.balign 16, 0xcc
.global gcm_aesni_open
gcm_aesni_open:
    call gcm_begin
    mov DESTINATION, [JOB + gcm_job.scratch]
    call gcm_open_rest
    jnz gcm_return
    call gcm_release_rest
    jmp gcm_return

# What is left goes to the scratch. eax and the flags: as of gcm_compare. Leaves the registers as gcm_release_rest needs them, which
# then begins at the start.
.balign 16, 0xcc
.global gcm_open_rest
gcm_open_rest:
    cmp LEFT, SET_BYTES
    jb .Lopen_short
    push rbx
    sum_of_hash
    mov POWER, KEY
.Lopen_set:
    next_set
    cipher BLOCK_BYTES
    cmp POWER, KEY
    jne 1f
    reduce_low
    reduce_high
    mov eax, GCM_STEP_BYTES
    cmp LEFT, rax
    ja 2f
    lea eax, [LEFT + 2 * BLOCK_BYTES - 1]
    and eax, -BLOCK_BYTES       # one more for the block of the lengths
2:  sub POWER, rax
    take 0
    pxor TAKEN, HASH
    pxor LOW, LOW
    pxor HIGH, HIGH
    pxor MIDDLE, MIDDLE
    jmp 3f
1:  take 0
3:  add POWER, SET_BYTES
    multiply TAKEN, POWER, 7, BY
    cipher 2*BLOCK_BYTES
    mov eax, BLOCK_BYTES
1:  take rax
    multiply TAKEN, POWER+rax, 7, BY
    cipher rax+2*BLOCK_BYTES
    add eax, BLOCK_BYTES
    cmp eax, SET_BYTES          # survives one less: eax counts in blocks
    jb 1b
.irp round, 10, 11, 12, 13
    cipher \round*BLOCK_BYTES
.endr
    veil_and_key T
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    aesenclast xmm\i, [DESTINATION + \i * BLOCK_BYTES]
    pxor xmm\i, T
    movdqa [DESTINATION + \i * BLOCK_BYTES], xmm\i
.endr
    add SOURCE, SET_BYTES
    add DESTINATION, SET_BYTES
    sub LEFT, SET_BYTES
    cmp LEFT, SET_BYTES
    jae .Lopen_set
    cmp POWER, KEY
    pop rbx
    je 4f
    call gcm_go_on
    jmp 5f
4:  reduce_low
    reduce_high
.Lopen_short:
    call gcm_begin_rest
5:  test LEFT, LEFT
    jz .Lopened
.Lopen_block:
    call gcm_next_stream
    call gcm_load
    veil_and_key T
    pxor STREAM, BLOCK
    pxor STREAM, [KEY + AES256_LAST]
    pxor STREAM, MASK
    pxor STREAM, T
    paddq MASK, MASK_STEP
    call gcm_store
    call gcm_hash
    sub LEFT, BLOCK_BYTES
    ja .Lopen_block
.Lopened:
    call gcm_finish
    mov SOURCE, [JOB + gcm_job.scratch]
    mov DESTINATION, [JOB + gcm_job.destination]
    mov LEFT, [JOB + gcm_job.bytes]
    # The mask of the first block again: as many steps back as there are blocks.
    lea rdx, [LEFT + BLOCK_BYTES - 1]
    shr rdx, 4
    movq r10, MASK_STEP
    pextrq r11, MASK_STEP, 1
    imul r10, rdx
    imul r11, rdx
    movq xmm2, r10
    pinsrq xmm2, r11, 1
    psubq MASK, xmm2
    jmp gcm_compare

# The scratch, or what is left of it, without the masks, to the destination; MASK is that of the next block. eax = GCM_DONE.
#
# Four masks at a time, for a sum waits for the one before.
.equ RELEASE_BYTES, 4 * BLOCK_BYTES
.reg STEP4, xmm10
.balign 16, 0xcc
.global gcm_release_rest
gcm_release_rest:
    veil_and_key T
    pxor T, [KEY + AES256_LAST]
    sub LEFT, RELEASE_BYTES
    jb 2f
    movdqa STEP4, MASK_STEP
    paddq STEP4, STEP4
    movdqa xmm4, MASK
    movdqa xmm5, MASK
    paddq xmm5, MASK_STEP
    movdqa xmm6, MASK
    paddq xmm6, STEP4
    movdqa xmm7, xmm5
    paddq xmm7, STEP4
    paddq STEP4, STEP4
1:
.irp i, 0, 1, 2, 3
    movdqa xmm\i, [SOURCE + \i * BLOCK_BYTES]
    pxor xmm\i, T
.endr
    pxor xmm0, xmm4
    pxor xmm1, xmm5
    pxor xmm2, xmm6
    pxor xmm3, xmm7
.irp i, 4, 5, 6, 7
    paddq xmm\i, STEP4
.endr
.irp i, 0, 1, 2, 3
    movdqu [DESTINATION + \i * BLOCK_BYTES], xmm\i
.endr
    add SOURCE, RELEASE_BYTES
    add DESTINATION, RELEASE_BYTES
    sub LEFT, RELEASE_BYTES
    jae 1b                      # survives dropped: what takes blocks takes the rest as well
    movdqa MASK, xmm4
2:  add LEFT, RELEASE_BYTES
    jz .Lreleased
.Lrelease_block:
    call gcm_load
    movdqa STREAM, BLOCK
    pxor STREAM, MASK
    pxor STREAM, T
    paddq MASK, MASK_STEP
    call gcm_store
    sub LEFT, BLOCK_BYTES
    ja .Lrelease_block
.Lreleased:
    xor eax, eax
    ret
