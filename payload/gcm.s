# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# AES-256-GCM (SP 800-38D) with a 96-bit IV, legacy SSE encodings only. kernel.s has checked the key. gcm_vaes.s takes
# whole steps of its own and comes here for the rest.
#
# The host is hostile. It may change shared memory at any instant: every byte of source, aad, iv and tag is read once, every
# byte of destination and tag is written once and never read. And it sees the ciphertext of private memory, which tells
# when the same bytes lie at the same address: the stack has return addresses, and all that is made of page, key
# or counter stays in registers; what is left of a page, too, is put together there byte by byte. Branches and addresses
# depend on lengths only.
#
# Opening has two passes. The first hashes the source and writes it to the scratch, every block under a mask that only
# a register has: the host can neither choose what lies there nor compare it. The second decrypts the scratch, once the tag is
# known to be right. The host that puts older bytes back in between gets noise decrypted.
#
# GHASH is in the reflected form of Gueron and Kounavis, "Intel Carry-Less Multiplication Instruction and
# its Usage for Computing the GCM Mode": blocks are byte-swapped, the key is multiplied by x beforehand, so a
# product needs no shift. Eight products share one reduction.
#
# Registers, here and in gcm_vaes.s: rdi key, rsi job, r8 source, r9 destination, rcx bytes left, edx next counter,
# r11:r10 the IV and a counter of zero plus round key 0, xmm8 mask, xmm12 hash so far; rax scratch.

.include "gcm.inc"

.equ STEP_BYTES, 256            # 16 blocks, which share a reduction

.extern aes256_block
.extern aes256_expand

.section .rodata
.balign 16
.Lswap:
    .byte 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
.Lpoly: # x^128 + x^127 + x^126 + x^121 + 1, reflected: the upper half, and what a shifted-out bit folds to
    .quad 1, 0xc200000000000000
.Lcounters: # what a counter block of 8 n differs in from those that follow
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    .quad 0, (\i) << 56
.endr
.Leight:
    .quad 8, 0

.text

# gcm_key_init(rdi: gcm_key, rsi: 32-byte key). What makes the key valid is written last.
.balign 16, 0xcc
.global gcm_key_init
gcm_key_init:
    call aes256_expand          # keeps rdi
    pxor xmm0, xmm0
    call aes256_block
    movdqa xmm2, xmm0
    pshufb xmm0, [rip + .Lswap]
    # H * x: a bit that leaves at the top folds back. No branch: it is secret.
    pshufd xmm1, xmm0, 0xff
    psrad xmm1, 31
    movdqa xmm3, xmm0
    psllq xmm0, 1
    psrlq xmm3, 63
    pslldq xmm3, 8
    por xmm0, xmm3
    pand xmm1, [rip + .Lpoly]
    pxor xmm0, xmm1
    mov ecx, (GCM_POWERS - 1) * 16
.Lpower:
    movdqa [rdi + rcx + gcm_key.powers], xmm0
    pshufd xmm1, xmm0, 0x4e
    pxor xmm1, xmm0
    movdqa [rdi + rcx + gcm_key.sums], xmm1
    multiply_first xmm0, rdi, 0
    reduce_low
    reduce_high
    movdqa xmm0, xmm12
    sub ecx, 16
    jns .Lpower
    movdqa [rdi + gcm_key.check], xmm2
    wipe_xmm
    ret

# The block with a counter plus round key 0: its upper half in rax, all of it.
.macro counter_half counter
    lea eax, [\counter]
    bswap eax
    shl rax, 32
    xor rax, r11
.endm
.macro counter_block to, counter
    counter_half \counter
    movq \to, r10
    pinsrq \to, rax, 1
.endm

# xmm1 = the key stream of the next block. Loses rax, xmm0.
.balign 16, 0xcc
.Lnext_stream:
    counter_block xmm0, rdx
    inc edx
.Lstream:
    pxor xmm0, [rdi]            # aes256_block adds it again
    call aes256_block
    movdqa xmm1, xmm0
    ret

# xmm0 = the next block of the source, with zeros behind what is left of it. Loses rax.
.balign 16, 0xcc
.Lload:
    cmp rcx, 16
    jb .Lload_part
    movdqu xmm0, [r8]
    add r8, 16
    ret
.Lload_part:
    mov eax, ecx
    pxor xmm0, xmm0
1:  pslldq xmm0, 1
    pinsrb xmm0, byte ptr [r8 + rax - 1], 0
    dec eax
    jnz 1b
    ret

# Writes xmm1, or as much of it as is left. Loses rax, xmm2.
.balign 16, 0xcc
.Lstore:
    cmp rcx, 16
    jb .Lstore_part
    movdqu [r9], xmm1
    add r9, 16
    ret
.Lstore_part:
    movdqa xmm2, xmm1
    xor eax, eax
1:  pextrb byte ptr [r9 + rax], xmm2, 0
    psrldq xmm2, 1
    inc eax
    cmp eax, ecx
    jb 1b
    ret

# xmm1 = xmm1 + xmm0, with zeros behind what is left: the rest of the key stream is no ciphertext. Loses rax.
.balign 16, 0xcc
.Lencrypt:
    pxor xmm1, xmm0
    mov eax, 16
    sub eax, ecx
    jbe 3f
1:  pslldq xmm1, 1
    dec eax
    jnz 1b
    mov eax, 16
    sub eax, ecx
2:  psrldq xmm1, 1
    dec eax
    jnz 2b
3:  ret

# Adds the block in xmm0 to the hash. Loses xmm0.
.balign 16, 0xcc
.Lhash:
    pshufb xmm0, [rip + .Lswap]
.Lhash_swapped:
    pxor xmm0, xmm12
    multiply_first xmm0, rdi, 0
    reduce_low
    reduce_high
    ret

# What every kernel begins with, from the arguments to the hash of the additional data. Loses xmm0.
.balign 16, 0xcc
.global gcm_begin
gcm_begin:
    mov rax, [rsi + gcm_job.iv]
    mov r10, [rax]
    mov r11d, [rax + 8]
    xor r10, [rdi]
    xor r11, [rdi + 8]
    pxor xmm12, xmm12
    mov r8, [rsi + gcm_job.aad]
    mov rcx, [rsi + gcm_job.aad_bytes]
.Laad_group:
    lea rax, [rcx + 15]         # up to 16 blocks share a reduction: rdx + first_power is the power of the next one
    and rax, -16
    jz .Laad_end
    mov edx, GCM_POWERS * 16
    cmp rax, rdx
    cmovb rdx, rax
    neg rdx
    lea rdx, [rdi + rdx + 16]
    call .Lload
    pshufb xmm0, [rip + .Lswap]
    pxor xmm0, xmm12
    multiply_first xmm0, rdx, 0
    jmp .Laad_next
.Laad_block:
    call .Lload
    pshufb xmm0, [rip + .Lswap]
    multiply xmm0, rdx, 0
.Laad_next:
    add rdx, 16
    sub rcx, 16
    cmp rdx, rdi
    jbe .Laad_block
    reduce_low
    reduce_high
    test rcx, rcx
    jg .Laad_group
.Laad_end:
    mov r8, [rsi + gcm_job.source]
    mov r9, [rsi + gcm_job.destination]
    mov rcx, [rsi + gcm_job.bytes]
    mov edx, 2                  # inc32(J0), SP 800-38D 7.1
    ret

# The tag to xmm0, its address to rax.
.balign 16, 0xcc
.Lfinish:
    mov edx, 1
    call .Lnext_stream          # CIPH(J0)
    mov rax, [rsi + gcm_job.aad_bytes]
    mov rcx, [rsi + gcm_job.bytes]
    shl rax, 3
    shl rcx, 3
    movq xmm0, rcx
    pinsrq xmm0, rax, 1
    call .Lhash_swapped
    pshufb xmm12, [rip + .Lswap]
    movdqa xmm0, xmm1
    pxor xmm0, xmm12
    mov rax, [rsi + gcm_job.tag]
    ret

# A round for one set of four blocks.
.macro cipher_set round, a, b, c, d
    movdqa xmm15, [rdi + (\round) * 16]
.irp i, \a, \b, \c, \d
    aesenc xmm\i, xmm15
.endr
.endm

# Sealing takes sets of four blocks, and three sets at once, so that AES and GHASH run side by side: the second half of
# one set's rounds, the first half of the next one's, and the hash of the set before. Four sets share a reduction.
#
# Between sets: xmm0..xmm3 the set whose rounds are half done; xmm5..xmm7 the blocks to hash of the one before, whose first
# one is in the sum already; xmm8 the block with the counter of the set after it less 2, a multiple of 4, plus round key 0. A
# product with the last block to hash takes the power at rbx + first_power.

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
    sub rbx, STEP_BYTES
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
    cmp rcx, STEP_BYTES
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
    cmp rcx, STEP_BYTES
    jae .Lseal_set
    call .Lend_sets
    pop rbx
# From here on with less than a step.
.global gcm_seal_rest
gcm_seal_rest:
    test rcx, rcx
    jz .Lsealed
.Lseal_block:
    call .Lnext_stream
    call .Lload
    call .Lencrypt
    call .Lstore
    movdqa xmm0, xmm1
    call .Lhash
    sub rcx, 16
    ja .Lseal_block
.Lsealed:
    call .Lfinish
    movdqu [rax], xmm0
    xor eax, eax

# Returns eax. The SSE halves only: gcm_vaes.s has cleared the others.
.global gcm_return
gcm_return:
    wipe_xmm
    xor r10d, r10d
    xor r11d, r11d
    ret

# gcm_aesni_matches(rdi: gcm_key, rsi: gcm_job) -> eax: 0, or 1 when the source, sealed, would have another tag
#
# As sealing, but the ciphertext goes nowhere.
.balign 16, 0xcc
.global gcm_aesni_matches
gcm_aesni_matches:
    call gcm_begin
    cmp rcx, STEP_BYTES
    jb .Lmatch_rest
    push rbx
    call .Lbegin_sets
.Lmatch_set:
    call .Lset
    call .Lready
    jne .Lmatch_set
    cmp rcx, STEP_BYTES
    jae .Lmatch_set
    call .Lend_sets
    pop rbx
.Lmatch_rest:
    test rcx, rcx
    jz .Lmatched
.Lmatch_block:
    call .Lnext_stream
    call .Lload
    call .Lencrypt
    movdqa xmm0, xmm1
    call .Lhash
    sub rcx, 16
    ja .Lmatch_block
.Lmatched:
    call .Lfinish
    call .Lcompare
    jmp gcm_return

# gcm_aesni_open(rdi: gcm_key, rsi: gcm_job, xmm8: mask) -> eax: 0, or 1 when the tag is wrong
.balign 16, 0xcc
.global gcm_aesni_open
gcm_aesni_open:
    call gcm_begin
    mov r9, [rsi + gcm_job.scratch]
    call gcm_verify_rest
    jnz gcm_return
    call gcm_decrypt_rest
    jmp gcm_return

# xmm0 = the next block, byte-swapped; to the scratch it goes under the mask. Loses xmm1.
.macro take_block
    movdqu xmm0, [r8]
    movdqa xmm1, xmm0
    pxor xmm1, xmm8
    movdqu [r9], xmm1
    pshufb xmm0, [rip + .Lswap]
    add r8, 16
    add r9, 16
.endm

# The first pass: eax and the flags say whether the tag is right; then the second can begin, all registers are as it needs
# them. Keeps xmm8, r10, r11.
.balign 16, 0xcc
.global gcm_verify_rest
gcm_verify_rest:
    cmp rcx, STEP_BYTES
    jb .Lverify_rest
.Lverify_step:
    lea rdx, [rdi - STEP_BYTES + 16]
    take_block
    pxor xmm0, xmm12
    pxor xmm12, xmm12
    pxor xmm13, xmm13
    pxor xmm14, xmm14
    jmp 2f
1:  take_block
2:  multiply xmm0, rdx, 0
    add rdx, 16
    cmp rdx, rdi
    jbe 1b
    reduce_low
    reduce_high
    sub rcx, STEP_BYTES
    cmp rcx, STEP_BYTES
    jae .Lverify_step
.Lverify_rest:
    test rcx, rcx
    jz .Lverified
.Lverify_block:
    call .Lload
    movdqa xmm1, xmm0
    pxor xmm1, xmm8
    call .Lstore
    call .Lhash
    sub rcx, 16
    ja .Lverify_block
.Lverified:
    call .Lfinish
    mov r8, [rsi + gcm_job.scratch]
    mov r9, [rsi + gcm_job.destination]
    mov rcx, [rsi + gcm_job.bytes]
    mov edx, 2
# eax and the flags: whether xmm0 is the tag at rax. Loses xmm0, xmm1.
.Lcompare:
    movdqu xmm1, [rax]
    pxor xmm0, xmm1
    xor eax, eax
    ptest xmm0, xmm0
    setnz al
    ret

# The second pass. eax = 0.
.balign 16, 0xcc
.global gcm_decrypt_rest
gcm_decrypt_rest:
    movdqa xmm10, [rdi + 224]
    pxor xmm10, xmm8
    counter_block xmm11, rdx-2
    movdqa xmm12, xmm11
    pxor xmm12, [rdi]
    pshufb xmm12, [rip + .Lswap]
    sub rcx, 128
    jb .Ldecrypted_steps
.Ldecrypt_step:
.irp i, 0, 1, 2, 3, 4, 5
    movdqa xmm\i, xmm11
    pxor xmm\i, [rip + .Lcounters + (\i + 2) * 16]
.endr
    paddd xmm12, [rip + .Leight]
    movdqa xmm11, xmm12
    pshufb xmm11, [rip + .Lswap]
    pxor xmm11, [rdi]
    movdqa xmm6, xmm11
    movdqa xmm7, xmm11
    pxor xmm7, [rip + .Lcounters + 16]
    add edx, 8
    mov rax, -13 * 16
1:  movdqa xmm9, [rdi + rax + 14 * 16]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    aesenc xmm\i, xmm9
.endr
    add rax, 16
    jnz 1b
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqu xmm9, [r8 + \i * 16]
    pxor xmm9, xmm10
    aesenclast xmm\i, xmm9
    movdqu [r9 + \i * 16], xmm\i
.endr
    add r8, 128
    add r9, 128
    sub rcx, 128
    jae .Ldecrypt_step
.Ldecrypted_steps:
    add rcx, 128
    jz .Ldecrypted
.Ldecrypt_block:
    call .Lnext_stream
    call .Lload
    pxor xmm1, xmm0
    pxor xmm1, xmm8
    call .Lstore
    sub rcx, 16
    ja .Ldecrypt_block
.Ldecrypted:
    xor eax, eax
    ret
