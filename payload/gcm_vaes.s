# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# AES-256-GCM with VAES and VPCLMULQDQ on 256-bit vectors: 16 blocks in a step. Everything that gcm.s says holds here,
# its registers too; it takes what is shorter than a step and what is left behind the last. The only file with VEX
# instructions.
#
# The counter of a step's first block is 16 n + 2, so the blocks of the first seven vectors differ from that of
# 16 n in the lowest four bits only: one exclusive-or each. The eighth vector has 16 n + 16 and 17.

.include "gcm.inc"
.include "ghash.inc"

.extern gcm_begin
.extern gcm_aesni_open
.extern gcm_aesni_seal
.extern gcm_decrypt_rest
.extern gcm_return
.extern gcm_seal_rest
.extern gcm_verify_rest

.section .rodata
.balign 32
.Lswap:
.rept 2
    .byte 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
.endr
.Lpoly:                                 # as in gcm.s
.rept 2
    .quad 1, 0xc200000000000000
.endr
.Lcounters:
.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .quad 0, (\i) << 56
.endr
.Lsixteen:
.rept 2
    .quad 16, 0
.endr

.text

# As counter_block of gcm.inc, in both halves.
.macro counter_blocks to, counter
    counter_half \counter
    vmovq xmm\to, r10
    vpinsrq xmm\to, xmm\to, rax, 1
    vinserti128 ymm\to, ymm\to, xmm\to, 1
.endm

# As multiply_first and multiply of gcm.inc: two blocks times two powers, of which the first is H^(power).
.macro wide_multiply_first block, base, power
    vpshufd ymm14, ymm\block, 0x4e
    vpclmulqdq ymm12, ymm\block, [\base + gcm_key.first_power - ((\power) - 1) * 16], 0x00
    vpxor ymm14, ymm14, ymm\block
    vpclmulqdq ymm13, ymm\block, [\base + gcm_key.first_power - ((\power) - 1) * 16], 0x11
    vpclmulqdq ymm14, ymm14, [\base + gcm_key.first_sum - ((\power) - 1) * 16], 0x00
.endm
.macro wide_multiply block, base, power
    vpclmulqdq ymm15, ymm\block, [\base + gcm_key.first_power - ((\power) - 1) * 16], 0x00
    vpxor ymm12, ymm12, ymm15
    vpclmulqdq ymm15, ymm\block, [\base + gcm_key.first_power - ((\power) - 1) * 16], 0x11
    vpxor ymm13, ymm13, ymm15
    vpshufd ymm15, ymm\block, 0x4e
    vpxor ymm\block, ymm\block, ymm15
    vpclmulqdq ymm\block, ymm\block, [\base + gcm_key.first_sum - ((\power) - 1) * 16], 0x00
    vpxor ymm14, ymm14, ymm\block
.endm

# As reduce_low and reduce_high of gcm.inc, on both halves; then their sum.
.macro wide_reduce_low
    vpxor ymm14, ymm14, ymm12
    vpclmulqdq ymm15, ymm12, [rip + .Lpoly], 0x10
    vpxor ymm14, ymm14, ymm13
    vpshufd ymm12, ymm12, 0x4e
    vpxor ymm14, ymm14, ymm12
    vpxor ymm14, ymm14, ymm15
.endm
.macro wide_reduce_high
    vpclmulqdq ymm15, ymm14, [rip + .Lpoly], 0x10
    vpshufd ymm12, ymm14, 0x4e
    vpxor ymm12, ymm12, ymm13
    vpxor ymm12, ymm12, ymm15
    vextracti128 xmm15, ymm12, 1
    vpxor xmm12, xmm12, xmm15
.endm

# A round for one set of four vectors.
.macro cipher_set round, a, b, c, d
    vbroadcasti128 ymm15, [rdi + (\round) * 16]
.irp i, \a, \b, \c, \d
    vaesenc ymm\i, ymm\i, ymm15
.endr
.endm

# The last round for a set with its source. Loses u, v.
.macro last_round from, a, b, c, d, u, v
    vbroadcasti128 ymm15, [rdi + 224]
    vpxor ymm\u, ymm15, [r8 + \from]
    vpxor ymm\v, ymm15, [r8 + \from + 32]
    vaesenclast ymm\a, ymm\a, ymm\u
    vaesenclast ymm\b, ymm\b, ymm\v
    vpxor ymm\u, ymm15, [r8 + \from + 64]
    vpxor ymm\v, ymm15, [r8 + \from + 96]
    vaesenclast ymm\c, ymm\c, ymm\u
    vaesenclast ymm\d, ymm\d, ymm\v
    vmovdqu [r9 + \from], ymm\a
    vmovdqu [r9 + \from + 32], ymm\b
    vmovdqu [r9 + \from + 64], ymm\c
    vmovdqu [r9 + \from + 96], ymm\d
.endm

# gcm_vaes_seal(rdi: gcm_key, rsi: gcm_job) -> eax: 0
#
# As in gcm_seal.s three sets are at work, here of four vectors. A step has two sets, in which they change places: ymm0..ymm3,
# ymm4..ymm7 and ymm8..ymm11; ymm12..ymm14 the sum, ymm15 round keys and products. Of a set to hash the first or second
# vector comes early: its register then has the counter block.
.balign 16, 0xcc
.global gcm_vaes_seal
gcm_vaes_seal:
    cmp qword ptr [rsi + gcm_job.bytes], GCM_STEP_BYTES
    jb gcm_aesni_seal
    call gcm_begin
    counter_blocks 5, rdx-2
    vpxor ymm8, ymm5, [rip + .Lcounters + 2*16]
    vpxor ymm9, ymm5, [rip + .Lcounters + 4*16]
    vpxor ymm10, ymm5, [rip + .Lcounters + 6*16]
    vpxor ymm11, ymm5, [rip + .Lcounters + 8*16]
.irp round, 1, 2, 3, 4, 5, 6, 7
    cipher_set \round, 8, 9, 10, 11
.endr
    # Zero blocks before the first, and a sum whose remainder is the hash so far.
.irp i, 0, 1, 2, 3
    vpxor xmm\i, xmm\i, xmm\i
.endr
    vmovdqa xmm13, xmm12
    vmovdqa xmm14, xmm12
    vpxor xmm12, xmm12, xmm12
    sub rcx, GCM_STEP_BYTES
.Lseal_step:
    vbroadcasti128 ymm15, [rdi + 8*16]
    vaesenc ymm4, ymm8, ymm15
    vaesenc ymm6, ymm10, ymm15
    vaesenc ymm7, ymm11, ymm15
    vpshufb ymm8, ymm0, [rip + .Lswap]
    vpshufb ymm10, ymm2, [rip + .Lswap]
    vpshufb ymm11, ymm3, [rip + .Lswap]
    vpxor ymm0, ymm5, [rip + .Lcounters + 10*16]
    vpxor ymm3, ymm5, [rip + .Lcounters + 12*16]
    vpxor ymm2, ymm5, [rip + .Lcounters + 14*16]
    vaesenc ymm5, ymm9, ymm15
    vpshufb ymm9, ymm1, [rip + .Lswap]
    vmovdqa ymm1, ymm3
    wide_multiply 8, rdi, 8
    add edx, 16
    counter_blocks 8, rdx-2
    vpxor ymm3, ymm8, [rip + .Lcounters]
    cipher_set 1, 0, 1, 2, 3
    cipher_set 9, 4, 5, 6, 7
    wide_multiply 9, rdi, 6
    cipher_set 2, 0, 1, 2, 3
    cipher_set 10, 4, 5, 6, 7
    wide_multiply 10, rdi, 4
    cipher_set 3, 0, 1, 2, 3
    cipher_set 11, 4, 5, 6, 7
    wide_multiply 11, rdi, 2
    cipher_set 4, 0, 1, 2, 3
    cipher_set 12, 4, 5, 6, 7
    wide_reduce_low
    cipher_set 5, 0, 1, 2, 3
    cipher_set 13, 4, 5, 6, 7
    wide_reduce_high
    cipher_set 6, 0, 1, 2, 3
    last_round 0, 4, 5, 6, 7, 9, 10
.irp i, 4, 5, 6, 7
    vpshufb ymm\i, ymm\i, [rip + .Lswap]
.endr
    vpxor ymm4, ymm4, ymm12
    wide_multiply_first 5, rdi, 14
    cipher_set 7, 0, 1, 2, 3

    vmovdqa ymm5, ymm8
    vpxor ymm8, ymm5, [rip + .Lcounters + 2*16]
    vpxor ymm9, ymm5, [rip + .Lcounters + 4*16]
    vpxor ymm10, ymm5, [rip + .Lcounters + 6*16]
    vpxor ymm11, ymm5, [rip + .Lcounters + 8*16]
    cipher_set 8, 0, 1, 2, 3
    cipher_set 1, 8, 9, 10, 11
    wide_multiply 6, rdi, 12
    cipher_set 9, 0, 1, 2, 3
    cipher_set 2, 8, 9, 10, 11
    wide_multiply 7, rdi, 10
    cipher_set 10, 0, 1, 2, 3
    cipher_set 3, 8, 9, 10, 11
    wide_multiply 4, rdi, 16
    cipher_set 11, 0, 1, 2, 3
    cipher_set 4, 8, 9, 10, 11
    cipher_set 12, 0, 1, 2, 3
    cipher_set 5, 8, 9, 10, 11
    cipher_set 13, 0, 1, 2, 3
    cipher_set 6, 8, 9, 10, 11
    last_round 128, 0, 1, 2, 3, 6, 7
    cipher_set 7, 8, 9, 10, 11
    add r8, GCM_STEP_BYTES
    add r9, GCM_STEP_BYTES
    sub rcx, GCM_STEP_BYTES
    jae .Lseal_step
    add rcx, GCM_STEP_BYTES
.irp i, 0, 1, 2, 3
    vpshufb ymm\i, ymm\i, [rip + .Lswap]
    wide_multiply \i, rdi, 8-2*\i
.endr
    wide_reduce_low
    wide_reduce_high
    vzeroupper
    jmp gcm_seal_rest

# Two blocks of the source, byte-swapped, to ymm\to; to the scratch they go under the mask. Loses ymm9.
.macro verify to, number
    vmovdqu ymm\to, [r8 + (\number) * 32]
    vpxor ymm9, ymm\to, ymm8
    vmovdqu [r9 + (\number) * 32], ymm9
    vpshufb ymm\to, ymm\to, ymm10
.endm

# gcm_vaes_open(rdi: gcm_key, rsi: gcm_job, xmm8: mask) -> eax: 0, or 1 when the tag is wrong
.balign 16, 0xcc
.global gcm_vaes_open
gcm_vaes_open:
    cmp qword ptr [rsi + gcm_job.bytes], GCM_STEP_BYTES
    jb gcm_aesni_open
    call gcm_begin
    mov r9, [rsi + gcm_job.scratch]
    vinserti128 ymm8, ymm8, xmm8, 1
    vmovdqa xmm12, xmm12                # clears the upper half
    vmovdqa ymm10, [rip + .Lswap]
    # 32 blocks share a reduction.
    sub rcx, 2 * GCM_STEP_BYTES
    jb .Lverified
.Lverify_step:
    verify 0, 0
    vpxor ymm0, ymm0, ymm12
    verify 1, 1
    wide_multiply_first 1, rdi, 30
.irp i, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    verify 1, \i
    wide_multiply 1, rdi, 32-2*\i
.endr
    wide_multiply 0, rdi, 32
    wide_reduce_low
    wide_reduce_high
    add r8, 2 * GCM_STEP_BYTES
    add r9, 2 * GCM_STEP_BYTES
    sub rcx, 2 * GCM_STEP_BYTES
    jae .Lverify_step
.Lverified:
    add rcx, 2 * GCM_STEP_BYTES
    vzeroupper
    call gcm_verify_rest
    jnz gcm_return

    vinserti128 ymm10, ymm8, xmm8, 1
    vbroadcasti128 ymm9, [rdi + 224]
    vpxor ymm10, ymm10, ymm9
    counter_blocks 12, rdx-2
    vbroadcasti128 ymm13, [rdi]
    vpxor ymm11, ymm12, ymm13
    vpshufb ymm11, ymm11, [rip + .Lswap]
    sub rcx, GCM_STEP_BYTES
.Ldecrypt_step:
    vpaddd ymm11, ymm11, [rip + .Lsixteen]
.irp i, 0, 1, 2, 3, 4, 5, 6
    vpxor ymm\i, ymm12, [rip + .Lcounters + (\i + 1) * 32]
.endr
    vpshufb ymm12, ymm11, [rip + .Lswap]
    vpxor ymm12, ymm12, ymm13
    vpxor ymm7, ymm12, [rip + .Lcounters]
    add edx, 16
.irp round, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
    vbroadcasti128 ymm9, [rdi + (\round) * 16]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vaesenc ymm\i, ymm\i, ymm9
.endr
.endr
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vpxor ymm9, ymm10, [r8 + \i * 32]
    vaesenclast ymm\i, ymm\i, ymm9
    vmovdqu [r9 + \i * 32], ymm\i
.endr
    add r8, GCM_STEP_BYTES
    add r9, GCM_STEP_BYTES
    sub rcx, GCM_STEP_BYTES
    jae .Ldecrypt_step
    add rcx, GCM_STEP_BYTES
    vzeroupper
    call gcm_decrypt_rest
    jmp gcm_return

# gcm_vaes_wipe(): all vector registers, their upper halves as well
.global gcm_vaes_wipe
gcm_vaes_wipe:
    vzeroall
    ret
