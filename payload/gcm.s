# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# AES-256-GCM (SP 800-38D) with a 96-bit IV, legacy SSE encodings only: the key, and what gcm_seal.s, gcm_open.s, gcm_vaes.s
# and gcm_zmm.s begin and end with. kernel.s has checked the key.
#
# The host is hostile. It may change shared memory at any instant: every byte of source, aad, iv and tag is read once,
# every byte of destination and tag is written once and never read. And it sees the ciphertext of private memory, which
# tells when the same bytes lie at the same address: the stack has return addresses and the caller's rbx only, all
# that is made of page, key or counter stays in registers, and what is shorter than a block is put together there, byte
# by byte. Branches and addresses depend on lengths only, and the last step of opening on the verdict.
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

.text

.reg BLOCK, xmm0                # goes to aes256_block and gcm_hash
.reg STREAM, xmm1               # key stream, then what it makes of a block
.reg BEFORE, xmm9               # the hash so far, until the next block takes it
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
    cmp LEFT, BLOCK_BYTES       # survives one more: what takes a part takes a whole block as well
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
    cmp LEFT, BLOCK_BYTES       # survives one more: the same
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

# Adds BLOCK times the power of its place, by what is left: itself, what follows it, the block of the lengths. Loses BLOCK,
# STREAM, rax.
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

# What every kernel begins with, from the arguments to the hash of the additional data. Loses BLOCK, STREAM, BEFORE, rax.
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
    movdqa BEFORE, HASH
    pxor LOW, LOW
    pxor HIGH, HIGH
    pxor MIDDLE, MIDDLE
.Laad_block:
    cmp LEFT, BLOCK_BYTES       # survives one more: what takes a part takes a whole block as well
    jb .Laad_part
    movdqu BLOCK, [SOURCE]
    add SOURCE, BLOCK_BYTES
.Laad_loaded:
    pshufb BLOCK, [rip + .Lswap]
    pxor BLOCK, BEFORE
    pxor BEFORE, BEFORE
    multiply BLOCK, POWER, 0, STREAM
    add POWER, BLOCK_BYTES
    sub LEFT, BLOCK_BYTES
    cmp POWER, KEY
    jbe .Laad_block
    reduce_low
    reduce_high
    test LEFT, LEFT             # survives dropped: gcm_hash_aad looks again
    jg gcm_hash_aad
.Laad_end:
    mov SOURCE, [JOB + gcm_job.source]
    mov DESTINATION, [JOB + gcm_job.destination]
    mov LEFT, [JOB + gcm_job.bytes]
    mov COUNTER32, 2            # inc32(J0), SP 800-38D 7.1
    ret

.Laad_part:
    call gcm_load
    jmp .Laad_loaded

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

# eax: GCM_DONE and the zero flag set if BLOCK is the tag at rax, else GCM_WRONG_TAG. Loses BLOCK, STREAM.
.global gcm_compare
gcm_compare:
    movdqu STREAM, [rax]
    pxor BLOCK, STREAM
    xor eax, eax
    ptest BLOCK, BLOCK
    setnz al
    ret

# What every kernel ends with: returns eax. Wipes the SSE halves only: gcm_vaes.s has cleared the others.
.balign 16, 0xcc
.global gcm_return
gcm_return:
    wipe_xmm
    xor r10d, r10d              # IV_LOW
    xor r11d, r11d              # IV_HIGH
    ret
