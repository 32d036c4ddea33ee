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

.extern aes256_block
.extern aes256_expand

.section .rodata
.balign 16
.Lswap:
    .byte 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
.Lpoly: # x^128 + x^127 + x^126 + x^121 + 1, reflected: the upper half, and what a shifted-out bit folds to
    .quad 1, 0xc200000000000000
.Lcounters:
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

# xmm\to = the block with \counter plus round key 0. Loses rax.
.macro counter_block to, counter
    lea eax, [\counter]
    bswap eax
    shl rax, 32
    xor rax, r11
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

# Adds the eight byte-swapped blocks in xmm0..xmm7 to the hash. Loses them.
.balign 64, 0xcc
.Lhash_eight:
    pxor xmm0, xmm12
    multiply_first xmm0, rdi, 7
.irp i, 1, 2, 3, 4, 5, 6, 7
    multiply xmm\i, rdi, 7-\i
.endr
    reduce_low
    reduce_high
    ret

# What .Lcipher_eight needs, for a first counter of 8 n + 2: xmm11 the block of 8 n plus round key 0, xmm10 that block
# byte-swapped. Loses rax.
.balign 16, 0xcc
.Lbegin_eight:
    counter_block xmm11, rdx-2
    movdqa xmm10, xmm11
    pxor xmm10, [rdi]
    pshufb xmm10, [rip + .Lswap]
    ret

# All rounds but the last for the next eight blocks in xmm0..xmm7; round key 14 in xmm9.
.balign 64, 0xcc
.Lcipher_eight:
.irp i, 0, 1, 2, 3, 4, 5
    movdqa xmm\i, xmm11
    pxor xmm\i, [rip + .Lcounters + (\i + 2) * 16]
.endr
    paddd xmm10, [rip + .Leight]
    movdqa xmm6, xmm10
    pshufb xmm6, [rip + .Lswap]
    pxor xmm6, [rdi]
    movdqa xmm11, xmm6
    movdqa xmm7, xmm6
    pxor xmm7, [rip + .Lcounters + 16]
    add edx, 8
.irp offset, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208
    movdqa xmm9, [rdi + \offset]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    aesenc xmm\i, xmm9
.endr
.endr
    movdqa xmm9, [rdi + 224]
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

# The last round for a set, with its source, which begins at r8 + from; then byte-swapped. Loses t.
.macro last_round from, a, b, c, d, t
    movdqa xmm15, [rdi + 224]
.set place, \from
.irp i, \a, \b, \c, \d
    movdqu xmm\t, [r8 + place]
    pxor xmm\t, xmm15
    aesenclast xmm\i, xmm\t
    movdqu [r9 + place], xmm\i
    .set place, place + 16
.endr
    movdqa xmm15, [rip + .Lswap]
.irp i, \a, \b, \c, \d
    pshufb xmm\i, xmm15
.endr
.endm

# gcm_aesni_seal(rdi: gcm_key, rsi: gcm_job) -> eax: 0
.balign 16, 0xcc
.global gcm_aesni_seal
gcm_aesni_seal:
    call gcm_begin
.global gcm_seal_rest
gcm_seal_rest:
    sub rcx, 128
    jb .Lsealed_steps
    counter_block xmm8, rdx-2
    movdqa xmm9, xmm8
    movdqa xmm10, xmm8
    movdqa xmm11, xmm8
    pxor xmm9, [rip + .Lcounters + 3 * 16]
    pxor xmm10, [rip + .Lcounters + 4 * 16]
    pxor xmm11, [rip + .Lcounters + 5 * 16]
    pxor xmm8, [rip + .Lcounters + 2 * 16]
.irp round, 1, 2, 3, 4, 5, 6, 7
    cipher_set \round, 8, 9, 10, 11
.endr
    pxor xmm0, xmm0
    pxor xmm1, xmm1
    pxor xmm2, xmm2
    pxor xmm3, xmm3
    movdqa xmm13, xmm12
    movdqa xmm14, xmm12
    pxor xmm12, xmm12
.Lseal_step:
    movdqa xmm4, xmm8
    movdqa xmm5, xmm9
    movdqa xmm6, xmm10
    movdqa xmm7, xmm11
    movdqa xmm8, xmm0
    movdqa xmm9, xmm1
    movdqa xmm10, xmm2
    movdqa xmm11, xmm3
    cipher_set 8, 4, 5, 6, 7
    multiply xmm8, rdi, 3
    counter_block xmm0, rdx+4
    movdqa xmm1, xmm0
    pxor xmm1, [rip + .Lcounters + 16]
    add edx, 8
    counter_block xmm8, rdx-2
    movdqa xmm2, xmm8
    movdqa xmm3, xmm8
    pxor xmm3, [rip + .Lcounters + 16]
    cipher_set 1, 0, 1, 2, 3
    multiply xmm9, rdi, 2
    cipher_set 9, 4, 5, 6, 7
    cipher_set 2, 0, 1, 2, 3
    multiply xmm10, rdi, 1
    cipher_set 10, 4, 5, 6, 7
    cipher_set 3, 0, 1, 2, 3
    multiply xmm11, rdi, 0
    cipher_set 11, 4, 5, 6, 7
    cipher_set 4, 0, 1, 2, 3
    reduce_low
    cipher_set 12, 4, 5, 6, 7
    cipher_set 5, 0, 1, 2, 3
    cipher_set 13, 4, 5, 6, 7
    reduce_high
    cipher_set 6, 0, 1, 2, 3
    last_round 0, 4, 5, 6, 7, 9
    cipher_set 7, 0, 1, 2, 3

    movdqa xmm9, xmm8
    movdqa xmm10, xmm8
    movdqa xmm11, xmm8
    pxor xmm9, [rip + .Lcounters + 3 * 16]
    pxor xmm10, [rip + .Lcounters + 4 * 16]
    pxor xmm11, [rip + .Lcounters + 5 * 16]
    pxor xmm8, [rip + .Lcounters + 2 * 16]
    cipher_set 8, 0, 1, 2, 3
    pxor xmm4, xmm12
    cipher_set 1, 8, 9, 10, 11
    multiply_first xmm5, rdi, 6
    cipher_set 9, 0, 1, 2, 3
    cipher_set 2, 8, 9, 10, 11
    multiply xmm6, rdi, 5
    cipher_set 10, 0, 1, 2, 3
    cipher_set 3, 8, 9, 10, 11
    multiply xmm7, rdi, 4
    cipher_set 11, 0, 1, 2, 3
    cipher_set 4, 8, 9, 10, 11
    multiply xmm4, rdi, 7
    cipher_set 12, 0, 1, 2, 3
    cipher_set 5, 8, 9, 10, 11
    cipher_set 13, 0, 1, 2, 3
    cipher_set 6, 8, 9, 10, 11
    last_round 64, 0, 1, 2, 3, 5
    cipher_set 7, 8, 9, 10, 11
    add r8, 128
    add r9, 128
    sub rcx, 128
    jae .Lseal_step
    multiply xmm0, rdi, 3
    multiply xmm1, rdi, 2
    multiply xmm2, rdi, 1
    multiply xmm3, rdi, 0
    reduce_low
    reduce_high
.Lsealed_steps:
    add rcx, 128
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

# The first pass: eax and the flags say whether the tag is right; then the second can begin, all registers are as it needs
# them. Keeps xmm8, r10, r11.
.balign 16, 0xcc
.global gcm_verify_rest
gcm_verify_rest:
    sub rcx, 128
    jb .Lverified_steps
.Lverify_step:
    movdqa xmm10, [rip + .Lswap]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqu xmm\i, [r8 + \i * 16]
    movdqa xmm9, xmm\i
    pxor xmm9, xmm8
    movdqu [r9 + \i * 16], xmm9
    pshufb xmm\i, xmm10
.endr
    call .Lhash_eight
    add r8, 128
    add r9, 128
    sub rcx, 128
    jae .Lverify_step
.Lverified_steps:
    add rcx, 128
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
    sub rcx, 128
    jb .Ldecrypted_steps
    call .Lbegin_eight
.Ldecrypt_step:
    call .Lcipher_eight
    pxor xmm9, xmm8
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqu xmm12, [r8 + \i * 16]
    pxor xmm12, xmm9
    aesenclast xmm\i, xmm12
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

# gcm_aesni_matches(rdi: gcm_key, rsi: gcm_job) -> eax: 0, or 1 when the source, sealed, would have another tag
#
# As sealing, but the ciphertext goes nowhere.
.balign 16, 0xcc
.global gcm_aesni_matches
gcm_aesni_matches:
    call gcm_begin
    sub rcx, 128
    jb .Lmatched_steps
    call .Lbegin_eight
.Lmatch_step:
    call .Lcipher_eight
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqu xmm13, [r8 + \i * 16]
    pxor xmm13, xmm9
    aesenclast xmm\i, xmm13
    pshufb xmm\i, [rip + .Lswap]
.endr
    call .Lhash_eight
    add r8, 128
    sub rcx, 128
    jae .Lmatch_step
.Lmatched_steps:
    add rcx, 128
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
