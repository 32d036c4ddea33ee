# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Opening with AES-NI. All that gcm.s says holds here, and ghash.inc has the arithmetic.
#
# Opening has two passes. The first hashes the source and writes it to the scratch, every block under a mask that only
# a register has: the host can neither choose what lies there nor compare it. The second decrypts the scratch, once the
# tag is known to be right. A host that puts older bytes there in between gets noise.

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
.Leight:
    .quad 8, 0

.text

.reg BLOCK, xmm0                # as in gcm.s
.reg STREAM, xmm1
.reg POWER, rdx

# int gcm_aesni_open(const struct gcm_key *key, const struct gcm_job *job, __m128i mask);
#
# rdi, rsi, xmm8 -> eax: GCM_DONE, or GCM_WRONG_TAG.
.balign 16, 0xcc
.global gcm_aesni_open
gcm_aesni_open:
    call gcm_begin
    mov DESTINATION, [JOB + gcm_job.scratch]
    call gcm_verify_rest
    jnz gcm_return
    call gcm_decrypt_rest
    jmp gcm_return

# BLOCK = the next block, byte-swapped; to the scratch it goes under the mask. Loses STREAM.
.macro take_block
    movdqu BLOCK, [SOURCE]
    movdqa STREAM, BLOCK
    pxor STREAM, MASK
    movdqu [DESTINATION], STREAM
    pshufb BLOCK, [rip + .Lswap]
    add SOURCE, BLOCK_BYTES
    add DESTINATION, BLOCK_BYTES
.endm

# The first pass, or what is left of it. eax and the flags: as of gcm_compare. Leaves the registers as the second needs them,
# which then decrypts from the start.
.balign 16, 0xcc
.global gcm_verify_rest
gcm_verify_rest:
    cmp LEFT, BLOCK_BYTES       # survives one more: what takes a part takes a whole block as well
    jb .Lverify_none
    lea POWER, [LEFT + 2 * BLOCK_BYTES - 1]
    and POWER, -BLOCK_BYTES     # one more for the block of the lengths
    mov eax, GCM_STEP_BYTES
    cmp LEFT, rax
    cmova POWER, rax
    neg POWER
    lea POWER, [KEY + POWER + BLOCK_BYTES]      # as in gcm_begin
    take_block
    pxor BLOCK, HASH
    pxor LOW, LOW
    pxor HIGH, HIGH
    pxor MIDDLE, MIDDLE
    jmp 3f
2:  take_block
3:  multiply BLOCK, POWER, 0, STREAM
    add POWER, BLOCK_BYTES
    sub LEFT, BLOCK_BYTES
    cmp POWER, KEY
    ja .Lverify_next
    cmp LEFT, BLOCK_BYTES       # survives one more: the same
    jae 2b
    call gcm_go_on
    jmp .Lverify_part
.Lverify_next:
    reduce_low
    reduce_high
    jmp gcm_verify_rest
.Lverify_none:
    call gcm_begin_rest
.Lverify_part:
    test LEFT, LEFT
    jz .Lverified
    call gcm_load
    movdqa STREAM, BLOCK
    pxor STREAM, MASK
    call gcm_store
    call gcm_hash
.Lverified:
    call gcm_finish
    mov SOURCE, [JOB + gcm_job.scratch]
    mov DESTINATION, [JOB + gcm_job.destination]
    mov LEFT, [JOB + gcm_job.bytes]
    mov COUNTER32, 2            # of the first block again
    jmp gcm_compare

# The second pass, or what is left of it; the next counter is 8 n + 2. eax = GCM_DONE.
#
# Eight blocks a step. The counters of the first six are 8 n + 2 to 8 n + 7: BASE, and a bit or three of the last byte. Those
# of the other two are 8 (n + 1) and 8 (n + 1) + 1, of the next BASE. The last round of AES adds its key operand, here
# the last round key plus a block of the scratch plus the mask: what comes out is plaintext.
.equ DECRYPT_BYTES, 8 * BLOCK_BYTES
.reg LAST, xmm10                # the last round key plus the mask
.reg BASE, xmm11                # the counter block of 8 n plus round key 0
.reg NEXT, xmm12                # the counter block of 8 n, its bytes swapped: paddd counts in the lowest word
.reg OPERAND, xmm9
.balign 16, 0xcc
.global gcm_decrypt_rest
gcm_decrypt_rest:
    movdqa LAST, [KEY + AES256_LAST]
    pxor LAST, MASK
    counter_block BASE, COUNTER-2
    movdqa NEXT, BASE
    pxor NEXT, [KEY]
    pshufb NEXT, [rip + .Lswap]
    sub LEFT, DECRYPT_BYTES
    jb .Ldecrypted_steps
.Ldecrypt_step:
.irp i, 0, 1, 2, 3, 4, 5
    movdqa xmm\i, BASE
    pxor xmm\i, [rip + .Lcounters + (\i + 2) * BLOCK_BYTES]
.endr
    paddd NEXT, [rip + .Leight]
    movdqa BASE, NEXT
    pshufb BASE, [rip + .Lswap]
    pxor BASE, [KEY]
    movdqa xmm6, BASE
    movdqa xmm7, BASE
    pxor xmm7, [rip + .Lcounters + 1 * BLOCK_BYTES]
    add COUNTER32, 8
    mov rax, -(AES256_ROUNDS - 1) * BLOCK_BYTES
1:  movdqa OPERAND, [KEY + rax + AES256_LAST]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    aesenc xmm\i, OPERAND
.endr
    add rax, BLOCK_BYTES
    jnz 1b
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqu OPERAND, [SOURCE + \i * BLOCK_BYTES]
    pxor OPERAND, LAST
    aesenclast xmm\i, OPERAND
    movdqu [DESTINATION + \i * BLOCK_BYTES], xmm\i
.endr
    add SOURCE, DECRYPT_BYTES
    add DESTINATION, DECRYPT_BYTES
    sub LEFT, DECRYPT_BYTES
    jae .Ldecrypt_step          # survives dropped: what takes blocks takes the rest as well
.Ldecrypted_steps:
    add LEFT, DECRYPT_BYTES
    jz .Ldecrypted
.Ldecrypt_block:
    call gcm_next_stream
    call gcm_load
    pxor STREAM, BLOCK
    pxor STREAM, MASK
    call gcm_store
    sub LEFT, BLOCK_BYTES
    ja .Ldecrypt_block
.Ldecrypted:
    xor eax, eax
    ret
