# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# AES-256-GCM with VAES and VPCLMULQDQ on 256-bit vectors: 16 blocks in a step. Everything that gcm.s says holds here;
# it takes what is shorter than a step and what is left behind the last. The only file with VEX instructions.
#
# GHASH runs one step behind AES and both share the ports of the vector unit, so the instructions alternate.
#
# The counter of a step's first block is 16 n + 2. With 16 n in the lower 28 bits, the blocks of the first seven
# vectors differ from it in the lowest four bits only: one exclusive-or each. The eighth vector has 16 n + 16 and 17.
#
# Registers: as in gcm.s; edx 16 n, ymm15 hash so far in its lower half, ymm9..ymm14 of GHASH, ymm8 round key.

.include "gcm.inc"

.extern gcm_begin
.extern gcm_aesni_open
.extern gcm_aesni_seal
.extern gcm_open_rest
.extern gcm_open_tag
.extern gcm_seal_rest
.extern gcm_seal_tag

.equ STEP_BYTES, 256
.equ frame.first, frame.lanes           # the block with counter 16 n, plus round key 0
.equ frame.last, frame.lanes + 32       # the blocks of the eighth vector

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
.irp i, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .quad 0, (\i) << 56
.endr

.text

# Stores the last word of a counter block plus round key 0.
.macro set_counter counter, to
    lea eax, [\counter]
    bswap eax
    xor eax, r10d
    mov dword ptr [r11 + \to + 12], eax
.endm

.macro cipher_round round
    vbroadcasti128 ymm8, [rdi + (\round) * 16]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vaesenc ymm\i, ymm\i, ymm8
.endr
.endm

# Two blocks times two powers, of which the first is H^(power): begins or adds to ymm12 (low), ymm13 (high), ymm14
# (middle). The first slot takes the hash so far. The halves are exchanged in registers: loads across the stores of the
# step before are slower than the shuffles.
.macro hash_slot slot, power
.if \slot == 0
    vpxor ymm9, ymm15, [r11 + frame.wide]
.else
    vmovdqa ymm9, [r11 + frame.wide + (\slot) * 32]
.endif
    vpshufd ymm11, ymm9, 0x4e
    vpxor ymm11, ymm11, ymm9
.if \slot == 0
    vpclmulqdq ymm12, ymm9, [rdi + gcm_key.first_power - ((\power) - 1) * 16], 0x00
    vpclmulqdq ymm13, ymm9, [rdi + gcm_key.first_power - ((\power) - 1) * 16], 0x11
    vpclmulqdq ymm14, ymm11, [rdi + gcm_key.first_sum - ((\power) - 1) * 16], 0x00
.else
    vpclmulqdq ymm10, ymm9, [rdi + gcm_key.first_power - ((\power) - 1) * 16], 0x00
    vpclmulqdq ymm9, ymm9, [rdi + gcm_key.first_power - ((\power) - 1) * 16], 0x11
    vpclmulqdq ymm11, ymm11, [rdi + gcm_key.first_sum - ((\power) - 1) * 16], 0x00
    vpxor ymm12, ymm12, ymm10
    vpxor ymm13, ymm13, ymm9
    vpxor ymm14, ymm14, ymm11
.endif
.endm

# As reduce_low and reduce_high of gcm.inc, on both halves; then their sum.
.macro reduce_wide_low
    vpxor ymm14, ymm14, ymm12
    vpclmulqdq ymm9, ymm12, [rip + .Lpoly], 0x10
    vpxor ymm14, ymm14, ymm13
    vpshufd ymm12, ymm12, 0x4e
    vpxor ymm14, ymm14, ymm12
    vpxor ymm14, ymm14, ymm9
.endm
.macro reduce_wide_high
    vpclmulqdq ymm10, ymm14, [rip + .Lpoly], 0x10
    vpshufd ymm15, ymm14, 0x4e
    vpxor ymm15, ymm15, ymm13
    vpxor ymm15, ymm15, ymm10
    vextracti128 xmm9, ymm15, 1
    vpxor xmm15, xmm15, xmm9
.endm

# From the state of gcm_begin to that of the first step. A hash of earlier groups goes to the block after the zeros.
.balign 16, 0xcc
.Lbegin:
    vpxor xmm0, xmm15, [r11 + frame.blocks]
    vmovdqa [r11 + frame.blocks], xmm0
    vpxor xmm15, xmm15, xmm15
.irp i, 0, 1, 2, 3
    vmovdqa [r11 + frame.wide + \i * 32], ymm15
.endr
    xor edx, edx
    set_counter rdx, frame.first
    set_counter rdx+16, frame.last
    set_counter rdx+17, frame.last+16
    ret

# All rounds but the last for 16 blocks in ymm0..ymm7, the last round key in ymm8; hashes the 16 blocks of the frame.
.balign 64, 0xcc
.Lstep:
    vbroadcasti128 ymm8, [r11 + frame.first]
.irp i, 0, 1, 2, 3, 4, 5, 6
    vpxor ymm\i, ymm8, [rip + .Lcounters + \i * 32]
.endr
    vmovdqu ymm7, [r11 + frame.last]
.irp round, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
    cipher_round \round
.if \round == 1
    add edx, 16
    set_counter rdx, frame.first
.elseif \round == 2
    set_counter rdx+16, frame.last
    set_counter rdx+17, frame.last+16
.endif
.if (\round >= 3) && (\round <= 10)
    hash_slot \round-3, 16-2*(\round-3)
.elseif \round == 11
    reduce_wide_low
.elseif \round == 13
    reduce_wide_high
.endif
.endr
    vbroadcasti128 ymm8, [rdi + 224]
    ret

# Hashes the 16 blocks of the frame and the lengths: what is left when the data is whole steps. The tag to xmm0, its
# address to rsi.
.balign 16, 0xcc
.Lfinish:
    mov rdx, [rsi + gcm_job.bytes]
    mov rax, [rsi + gcm_job.aad_bytes]
    mov rsi, [rsi + gcm_job.tag]
    shl rdx, 3
    shl rax, 3
    mov [r11 + frame.blocks + 128], rdx
    mov [r11 + frame.blocks + 136], rax
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    hash_slot \i, 17-2*\i
.endr
    vmovdqa xmm9, [r11 + frame.blocks + 128]
    vpshufd xmm11, xmm9, 0x4e
    vpxor xmm11, xmm11, xmm9
    vpclmulqdq xmm10, xmm9, [rdi + gcm_key.first_power], 0x00
    vpclmulqdq xmm9, xmm9, [rdi + gcm_key.first_power], 0x11
    vpclmulqdq xmm11, xmm11, [rdi + gcm_key.first_sum], 0x00
    vpxor ymm12, ymm12, ymm10
    vpxor ymm13, ymm13, ymm9
    vpxor ymm14, ymm14, ymm11
    reduce_wide_low
    reduce_wide_high
    vpshufb xmm0, xmm15, [rip + .Lswap]
    vpxor xmm0, xmm0, [r11 + frame.mask]
    vzeroupper
    ret

# To the state of gcm_begin: eight blocks in the frame, eight hashed.
.balign 16, 0xcc
.Lhand_over:
.irp i, 0, 1, 2, 3
    hash_slot \i, 8-2*\i
.endr
    reduce_wide_low
    reduce_wide_high
    vzeroupper
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    set_counter rdx+2+\i, frame.lanes+16*\i
.endr
    add edx, 10
    ret

.macro crypt seal
    enter_frame
    call gcm_begin
    call .Lbegin
    sub rcx, STEP_BYTES
.Lloop\@:
    call .Lstep
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
.if \seal
    vpxor ymm9, ymm8, [r8 + \i * 32]
    vaesenclast ymm\i, ymm\i, ymm9
    vmovdqu [r9 + \i * 32], ymm\i
    vpshufb ymm9, ymm\i, [rip + .Lswap]
.else
    vmovdqu ymm9, [r8 + \i * 32]
    vpxor ymm10, ymm8, ymm9
    vaesenclast ymm\i, ymm\i, ymm10
    vmovdqu [r9 + \i * 32], ymm\i
    vpshufb ymm9, ymm9, [rip + .Lswap]
.endif
    vmovdqa [r11 + frame.wide + \i * 32], ymm9
.endr
    add r8, STEP_BYTES
    add r9, STEP_BYTES
    sub rcx, STEP_BYTES
    jae .Lloop\@
    add rcx, STEP_BYTES
    jnz .Lrest\@
    call .Lfinish
.if \seal
    jmp gcm_seal_tag
.else
    jmp gcm_open_tag
.endif
.Lrest\@:
    call .Lhand_over
.if \seal
    jmp gcm_seal_rest
.else
    jmp gcm_open_rest
.endif
.endm

# gcm_vaes_seal(rdi: gcm_key, rsi: gcm_job)
.balign 16, 0xcc
.global gcm_vaes_seal
gcm_vaes_seal:
    cmp qword ptr [rsi + gcm_job.bytes], STEP_BYTES
    jb gcm_aesni_seal
    crypt 1

# gcm_vaes_open(rdi: gcm_key, rsi: gcm_job) -> eax: 0, or 1 when the tag is wrong
.balign 16, 0xcc
.global gcm_vaes_open
gcm_vaes_open:
    cmp qword ptr [rsi + gcm_job.bytes], STEP_BYTES
    jb gcm_aesni_open
    crypt 0

# gcm_vaes_wipe(): all vector registers, their upper halves as well
.global gcm_vaes_wipe
gcm_vaes_wipe:
    vzeroall
    ret
