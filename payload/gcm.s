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
# GHASH is in the reflected form of Gueron and Kounavis, "Intel Carry-Less Multiplication Instruction and
# its Usage for Computing the GCM Mode": blocks are byte-swapped, the key is multiplied by x beforehand, so a
# product needs no shift. Up to 16 products share one reduction.
#
# Registers, of all kernels: rdi key, rsi job, r8 source, r9 destination, rcx bytes left, edx next counter,
# r11:r10 the IV and a counter of zero plus round key 0, xmm8 mask, xmm12 hash so far; rax scratch.

.include "gcm.inc"

.extern aes256_block
.extern aes256_expand

.section .rodata
.balign 16
    gcm_constants
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

# xmm1 = the key stream of the next block. Loses rax, xmm0.
.balign 16, 0xcc
.global gcm_next_stream
gcm_next_stream:
    counter_block xmm0, rdx
    inc edx
    pxor xmm0, [rdi]            # aes256_block adds it again
    call aes256_block
    movdqa xmm1, xmm0
    ret

# xmm0 = the next block of the source, with zeros behind what is left of it. Loses rax.
.balign 16, 0xcc
.global gcm_load
gcm_load:
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
.global gcm_store
gcm_store:
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
.global gcm_encrypt
gcm_encrypt:
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
.global gcm_hash
gcm_hash:
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
    call gcm_load
    pshufb xmm0, [rip + .Lswap]
    pxor xmm0, xmm12
    multiply_first xmm0, rdx, 0
    jmp .Laad_next
.Laad_block:
    call gcm_load
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
.global gcm_finish
gcm_finish:
    mov edx, 1
    call gcm_next_stream        # CIPH(J0)
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

# What every kernel ends with: returns eax. Wipes the SSE halves only: gcm_vaes.s has cleared the others.
.balign 16, 0xcc
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

# The first pass, or what is left of it. eax and the flags: as of gcm_compare. Leaves the registers as the second needs them,
# which then decrypts from the start.
.balign 16, 0xcc
.global gcm_verify_rest
gcm_verify_rest:
    cmp rcx, GCM_STEP_BYTES
    jb .Lverify_rest
.Lverify_step:
    lea rdx, [rdi - GCM_STEP_BYTES + 16]
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
    sub rcx, GCM_STEP_BYTES
    cmp rcx, GCM_STEP_BYTES
    jae .Lverify_step
.Lverify_rest:
    test rcx, rcx
    jz .Lverified
.Lverify_block:
    call gcm_load
    movdqa xmm1, xmm0
    pxor xmm1, xmm8
    call gcm_store
    call gcm_hash
    sub rcx, 16
    ja .Lverify_block
.Lverified:
    call gcm_finish
    mov r8, [rsi + gcm_job.scratch]
    mov r9, [rsi + gcm_job.destination]
    mov rcx, [rsi + gcm_job.bytes]
    mov edx, 2
# eax: 0 and the zero flag set if xmm0 is the tag at rax, else 1. Loses xmm0, xmm1.
.global gcm_compare
gcm_compare:
    movdqu xmm1, [rax]
    pxor xmm0, xmm1
    xor eax, eax
    ptest xmm0, xmm0
    setnz al
    ret

# The second pass, or what is left of it; the next counter is 8 n + 2. eax = 0.
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
    call gcm_next_stream
    call gcm_load
    pxor xmm1, xmm0
    pxor xmm1, xmm8
    call gcm_store
    sub rcx, 16
    ja .Ldecrypt_block
.Ldecrypted:
    xor eax, eax
    ret
