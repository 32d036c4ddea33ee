# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# AES-256-GCM (SP 800-38D) with a 96-bit IV, legacy SSE encodings only: the key, opening, and what gcm_seal.s and
# gcm_vaes.s begin and end with. kernel.s has checked the key.
#
# The host is hostile. It may change shared memory at any instant: every byte of source, aad, iv and tag is read once,
# every byte of destination and tag is written once and never read. And it sees the ciphertext of private memory, which
# tells when the same bytes lie at the same address: the stack has return addresses and the caller's rbx only, all
# that is made of page, key or counter stays in registers, and what is shorter than a block is put together there, byte
# by byte. Branches and addresses depend on lengths only, and the last step of opening on the verdict.
#
# Opening has two passes. The first hashes the source and writes it to the scratch, every block under a mask that only
# a register has: the host can neither choose what lies there nor compare it. The second decrypts the scratch, once the
# tag is known to be right. A host that puts older bytes there in between gets noise.
#
# ghash.inc has the arithmetic, after Gueron and Kounavis, "Intel Carry-Less Multiplication Instruction and its Usage for
# Computing the GCM Mode", and names the registers that all kernels have in common. rax is scratch everywhere.

.include "gcm.inc"
.include "ghash.inc"

.extern aes256_block
.extern aes256_expand

.section .rodata
.balign 16
    gcm_constants
.Leight:
    .quad 8, 0

.text

.reg BLOCK, xmm0                # goes to aes256_block and gcm_hash
.reg STREAM, xmm1               # key stream, then what it makes of a block
.reg BEFORE, xmm9               # the hash so far, until the first block of the rest takes it
.reg TAG_STREAM, xmm10          # CIPH(J0), which the tag is hidden with
.reg LEFT32, ecx

# void gcm_key_init(struct gcm_key *key, const uint8_t raw[32]);
#
# rdi, rsi. What makes the key valid is written last.
.reg H, xmm0                    # H^1, then its powers
.reg CHECK, xmm2
.balign 16, 0xcc
.global gcm_key_init
gcm_key_init:
    call aes256_expand          # keeps KEY
    pxor H, H
    call aes256_block
    movdqa CHECK, H
    pshufb H, [rip + .Lswap]
    # H * x: every bit one place up. Bit 127 becomes x^128, which is P without it, by a mask: no branch on a secret.
    pshufd xmm1, H, 0xff        # the highest of four words, four times
    psrad xmm1, 31              # its sign, 128 times
    movdqa xmm3, H
    psllq H, 1
    psrlq xmm3, 63              # what leaves each half
    pslldq xmm3, 8              # of which the lower half's goes to the upper
    por H, xmm3
    pand xmm1, [rip + .Lpoly]
    pxor H, xmm1
    mov ecx, (GCM_POWERS - 1) * BLOCK_BYTES
.Lpower:
    movdqa [KEY + rcx + gcm_key.powers], H
    pshufd xmm1, H, SWAP_HALVES
    pxor xmm1, H
    movdqa [KEY + rcx + gcm_key.sums], xmm1
    multiply_first H, KEY, 0
    reduce_low
    reduce_high
    movdqa H, HASH
    sub ecx, BLOCK_BYTES
    jns .Lpower
    movdqa [KEY + gcm_key.check], CHECK
    wipe_xmm
    ret
.unreg H, CHECK

# STREAM = the key stream of the next block. Loses rax, BLOCK.
.balign 16, 0xcc
.global gcm_next_stream
gcm_next_stream:
    counter_block BLOCK, COUNTER
    inc COUNTER32
    pxor BLOCK, [KEY]           # aes256_block adds it again
    call aes256_block
    movdqa STREAM, BLOCK
    ret

# BLOCK = the next block of the source, with zeros behind what is left of it. Loses rax. Every byte is read once.
.balign 16, 0xcc
.global gcm_load
gcm_load:
    cmp LEFT, BLOCK_BYTES
    jb .Lload_part
    movdqu BLOCK, [SOURCE]
    add SOURCE, BLOCK_BYTES
    ret
.Lload_part:
    mov eax, LEFT32
    pxor BLOCK, BLOCK
1:  pslldq BLOCK, 1
    pinsrb BLOCK, byte ptr [SOURCE + rax - 1], 0
    dec eax
    jnz 1b
    ret

# Writes STREAM, or as much of it as is left. Loses rax, xmm2.
.balign 16, 0xcc
.global gcm_store
gcm_store:
    cmp LEFT, BLOCK_BYTES
    jb .Lstore_part
    movdqu [DESTINATION], STREAM
    add DESTINATION, BLOCK_BYTES
    ret
.Lstore_part:
    movdqa xmm2, STREAM
    xor eax, eax
1:  pextrb byte ptr [DESTINATION + rax], xmm2, 0
    psrldq xmm2, 1
    inc eax
    cmp eax, LEFT32
    jb 1b
    ret

# STREAM = STREAM + BLOCK, with zeros behind what is left: the rest of the key stream is no ciphertext. Loses rax.
.balign 16, 0xcc
.global gcm_encrypt
gcm_encrypt:
    pxor STREAM, BLOCK
    mov eax, BLOCK_BYTES
    sub eax, LEFT32
    jbe 3f
1:  pslldq STREAM, 1
    dec eax
    jnz 1b
    mov eax, BLOCK_BYTES
    sub eax, LEFT32
2:  psrldq STREAM, 1
    dec eax
    jnz 2b
3:  ret

# What is left behind the steps shares a reduction with the block of the lengths. The sum of products is empty, or has the first
# ones already where gcm_go_on is called; BEFORE and TAG_STREAM are ready. Loses rax, BLOCK.
.balign 16, 0xcc
.global gcm_begin_rest
gcm_begin_rest:
    movdqa BEFORE, HASH
    pxor LOW, LOW
    pxor HIGH, HIGH
    pxor MIDDLE, MIDDLE
    jmp 1f
.global gcm_go_on
gcm_go_on:
    pxor BEFORE, BEFORE
1:  mov eax, 1                  # J0, SP 800-38D 7.1
    counter_block BLOCK, rax
    pxor BLOCK, [KEY]           # aes256_block adds it again
    call aes256_block
    movdqa TAG_STREAM, BLOCK
    ret

# Adds BLOCK times the power of its place, by what is left: itself, what follows it, the block of the lengths. Loses BLOCK, STREAM,
# rax.
.balign 16, 0xcc
.global gcm_hash
gcm_hash:
    pshufb BLOCK, [rip + .Lswap]
.Lhash_swapped:
    pxor BLOCK, BEFORE
    pxor BEFORE, BEFORE
    lea rax, [LEFT + BLOCK_BYTES - 1]
    and rax, -BLOCK_BYTES
    neg rax
    multiply BLOCK, KEY+rax, 0, STREAM
    ret

# What every kernel begins with, from the arguments to the hash of the additional data. Loses BLOCK, STREAM, rax.
#
# A product with the next block takes the power at POWER + gcm_key.first_power; the last of a group is H^1, at the key.
.reg POWER, rdx
.reg POWER32, edx
.balign 16, 0xcc
.global gcm_begin
gcm_begin:
    call gcm_begin_job
    jmp gcm_hash_aad

# The first part: the IV, and the additional data as the source, to be hashed.
.balign 16, 0xcc
.global gcm_begin_job
gcm_begin_job:
    mov rax, [JOB + gcm_job.iv]
    # By fours: eight bytes that the caller has just written in two parts would be waited for.
    mov r10d, [rax]
    mov r11d, [rax + 4]
    shl r11, 32
    or IV_LOW, r11
    mov r11d, [rax + 8]         # bytes 8 to 11; the counter is 0
    xor IV_LOW, [KEY]
    xor IV_HIGH, [KEY + 8]
    pxor HASH, HASH
    mov SOURCE, [JOB + gcm_job.aad]
    mov LEFT, [JOB + gcm_job.aad_bytes]
    ret

# The second part, with what is left of the additional data.
.balign 16, 0xcc
.global gcm_hash_aad
gcm_hash_aad:
    lea rax, [LEFT + BLOCK_BYTES - 1]
    and rax, -BLOCK_BYTES
    jz .Laad_end
    mov POWER32, GCM_POWERS * BLOCK_BYTES
    cmp rax, POWER
    cmovb POWER, rax            # as many blocks as there are, or powers
    neg POWER
    lea POWER, [KEY + POWER + BLOCK_BYTES]
    call gcm_load
    pshufb BLOCK, [rip + .Lswap]
    pxor BLOCK, HASH
    multiply_first BLOCK, POWER, 0
    jmp .Laad_next
.Laad_block:
    call gcm_load
    pshufb BLOCK, [rip + .Lswap]
    multiply BLOCK, POWER, 0, STREAM
.Laad_next:
    add POWER, BLOCK_BYTES
    sub LEFT, BLOCK_BYTES
    cmp POWER, KEY
    jbe .Laad_block
    reduce_low
    reduce_high
    test LEFT, LEFT
    jg gcm_hash_aad
.Laad_end:
    mov SOURCE, [JOB + gcm_job.source]
    mov DESTINATION, [JOB + gcm_job.destination]
    mov LEFT, [JOB + gcm_job.bytes]
    mov COUNTER32, 2            # inc32(J0), SP 800-38D 7.1
    ret

# BLOCK = the tag, rax = its address. The last block hashed has both lengths, in bits; here its bytes are swapped already.
# Loses LEFT.
.balign 16, 0xcc
.global gcm_finish
gcm_finish:
    mov rax, [JOB + gcm_job.aad_bytes]
    mov LEFT, [JOB + gcm_job.bytes]
    shl rax, 3                  # bits
    shl LEFT, 3
    movq BLOCK, LEFT
    pinsrq BLOCK, rax, 1
    xor LEFT32, LEFT32          # its power is H^1
    call .Lhash_swapped
    reduce_low
    reduce_high
    pshufb HASH, [rip + .Lswap] # a block again
    movdqa BLOCK, TAG_STREAM
    pxor BLOCK, HASH
    mov rax, [JOB + gcm_job.tag]
    ret

# What every kernel ends with: returns eax. Wipes the SSE halves only: gcm_vaes.s has cleared the others.
.balign 16, 0xcc
.global gcm_return
gcm_return:
    wipe_xmm
    xor r10d, r10d              # IV_LOW
    xor r11d, r11d              # IV_HIGH
    ret

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
    cmp LEFT, BLOCK_BYTES
    jb .Lverify_none
    lea POWER, [LEFT + 2 * BLOCK_BYTES - 1]
    and POWER, -BLOCK_BYTES     # one more for the block of the lengths
    cmp LEFT, GCM_STEP_BYTES
    jbe 1f
    mov POWER32, GCM_STEP_BYTES
1:  neg POWER
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
    cmp LEFT, BLOCK_BYTES
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
# eax: GCM_DONE and the zero flag set if BLOCK is the tag at rax, else GCM_WRONG_TAG. Loses BLOCK, STREAM.
.global gcm_compare
gcm_compare:
    movdqu STREAM, [rax]
    pxor BLOCK, STREAM
    xor eax, eax
    ptest BLOCK, BLOCK
    setnz al
    ret

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
    jae .Ldecrypt_step
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
