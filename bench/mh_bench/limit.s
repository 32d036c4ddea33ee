# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# AES-256-CTR alone and GHASH alone on one page: what GCM costs when neither runs in the other's shadow. Both are on the
# good side: no AAD, no lengths, no wiping, counters and key powers ready. And the instructions of both that only some
# ports of a core execute, with nothing else and none waiting for another: what no order of them can beat.
#
# All functions: (rdi: gcm_key, rsi: source, rdx: destination)

.include "gcm.inc"
.include "ghash.inc"

.section .rodata
.balign 64
.Lswap:
.rept 4
    .byte 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
.endr
.Lpoly:
.rept 4
    .quad 1, 0xc200000000000000
.endr
.Lcounters: # little-endian
.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .quad \i, 0
.endr
.irp i, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    .quad \i, 0
.endr
.Lthirty_two:
.rept 4
    .quad 32, 0
.endr
.Leight:
    .quad 8, 0
.Lsixteen:
.rept 2
    .quad 16, 0
.endr

.text

# Eight xmm blocks in a round.
.balign 64, 0xcc
.global aes_aesni
aes_aesni:
    mov ecx, MH_PAGE_BYTES
    movdqa xmm10, [rip + .Lcounters]
    movdqa xmm11, [rip + .Lswap]
    movdqa xmm12, [rdi]
1:
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqa xmm\i, [rip + .Lcounters + \i * 16]
    paddd xmm\i, xmm10
    pshufb xmm\i, xmm11
    pxor xmm\i, xmm12
.endr
    paddd xmm10, [rip + .Leight]
.irp offset, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208
    movdqa xmm8, [rdi + \offset]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    aesenc xmm\i, xmm8
.endr
.endr
    movdqa xmm8, [rdi + 224]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqu xmm9, [rsi + \i * 16]
    pxor xmm9, xmm8
    aesenclast xmm\i, xmm9
    movdqu [rdx + \i * 16], xmm\i
.endr
    add rsi, 128
    add rdx, 128
    sub ecx, 128
    jnz 1b
    ret

# Eight ymm vectors in a round.
.balign 64, 0xcc
.global aes_vaes
aes_vaes:
    mov ecx, MH_PAGE_BYTES
    vpxor xmm10, xmm10, xmm10
    vmovdqa ymm11, [rip + .Lswap]
    vbroadcasti128 ymm12, [rdi]
1:
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vpaddd ymm\i, ymm10, [rip + .Lcounters + \i * 32]
    vpshufb ymm\i, ymm\i, ymm11
    vpxor ymm\i, ymm\i, ymm12
.endr
    vpaddd ymm10, ymm10, [rip + .Lsixteen]
.irp offset, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208
    vbroadcasti128 ymm8, [rdi + \offset]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vaesenc ymm\i, ymm\i, ymm8
.endr
.endr
    vbroadcasti128 ymm8, [rdi + 224]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vpxor ymm9, ymm8, [rsi + \i * 32]
    vaesenclast ymm\i, ymm\i, ymm9
    vmovdqu [rdx + \i * 32], ymm\i
.endr
    add rsi, 256
    add rdx, 256
    sub ecx, 256
    jnz 1b
    vzeroupper
    ret

# Eight zmm vectors in a round.
.balign 64, 0xcc
.global aes_zmm
aes_zmm:
    mov ecx, MH_PAGE_BYTES
    vpxor xmm10, xmm10, xmm10
    vmovdqa64 zmm11, [rip + .Lswap]
    vbroadcasti32x4 zmm12, [rdi]
1:
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vpaddd zmm\i, zmm10, [rip + .Lcounters + \i * 64]
    vpshufb zmm\i, zmm\i, zmm11
    vpxorq zmm\i, zmm\i, zmm12
.endr
    vpaddd zmm10, zmm10, [rip + .Lthirty_two]
.irp offset, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208
    vbroadcasti32x4 zmm8, [rdi + \offset]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vaesenc zmm\i, zmm\i, zmm8
.endr
.endr
    vbroadcasti32x4 zmm8, [rdi + 224]
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vpxorq zmm9, zmm8, [rsi + \i * 64]
    vaesenclast zmm\i, zmm\i, zmm9
    vmovdqu64 [rdx + \i * 64], zmm\i
.endr
    add rsi, 512
    add rdx, 512
    sub ecx, 512
    jnz 1b
    vzeroupper
    ret

# Eight blocks to a reduction.
.balign 64, 0xcc
.global ghash_aesni
ghash_aesni:
    mov ecx, MH_PAGE_BYTES
    pxor xmm12, xmm12
    movdqa xmm8, [rip + .Lswap]
1:
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    movdqu xmm9, [rsi + \i * 16]
    pshufb xmm9, xmm8
.if \i == 0
    pxor xmm9, xmm12
    multiply_first xmm9, rdi, 7
.else
    multiply xmm9, rdi, 7-\i, xmm10
.endif
.endr
    reduce_low
    reduce_high
    add rsi, 128
    sub ecx, 128
    jnz 1b
    movdqu [rdx], xmm12
    ret

# Sixteen blocks to a reduction.
.balign 64, 0xcc
.global ghash_vaes
ghash_vaes:
    mov ecx, MH_PAGE_BYTES
    vpxor xmm15, xmm15, xmm15
    vmovdqa ymm8, [rip + .Lswap]
    vmovdqa ymm7, [rip + .Lpoly]
1:
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vmovdqu ymm0, [rsi + \i * 32]
    vpshufb ymm0, ymm0, ymm8
.if \i == 0
    vpxor ymm0, ymm0, ymm15
    vpshufd ymm1, ymm0, 0x4e
    vpxor ymm1, ymm1, ymm0
    vpclmulqdq ymm12, ymm0, [rdi + gcm_key.first_power - 240], 0x00
    vpclmulqdq ymm13, ymm0, [rdi + gcm_key.first_power - 240], 0x11
    vpclmulqdq ymm14, ymm1, [rdi + gcm_key.first_sum - 240], 0x00
.else
    vpshufd ymm1, ymm0, 0x4e
    vpxor ymm1, ymm1, ymm0
    vpclmulqdq ymm2, ymm0, [rdi + gcm_key.first_power - 240 + \i * 32], 0x00
    vpclmulqdq ymm3, ymm0, [rdi + gcm_key.first_power - 240 + \i * 32], 0x11
    vpclmulqdq ymm1, ymm1, [rdi + gcm_key.first_sum - 240 + \i * 32], 0x00
    vpxor ymm12, ymm12, ymm2
    vpxor ymm13, ymm13, ymm3
    vpxor ymm14, ymm14, ymm1
.endif
.endr
    vpxor ymm14, ymm14, ymm12
    vpclmulqdq ymm2, ymm12, ymm7, 0x10
    vpxor ymm14, ymm14, ymm13
    vpshufd ymm12, ymm12, 0x4e
    vpxor ymm14, ymm14, ymm12
    vpxor ymm14, ymm14, ymm2
    vpclmulqdq ymm2, ymm14, ymm7, 0x10
    vpshufd ymm15, ymm14, 0x4e
    vpxor ymm15, ymm15, ymm13
    vpxor ymm15, ymm15, ymm2
    vextracti128 xmm2, ymm15, 1
    vpxor xmm15, xmm15, xmm2
    add rsi, 256
    sub ecx, 256
    jnz 1b
    vmovdqu [rdx], xmm15
    vzeroupper
    ret

# Thirty-two blocks to a reduction.
.balign 64, 0xcc
.global ghash_zmm
ghash_zmm:
    mov ecx, MH_PAGE_BYTES
    vpxor xmm15, xmm15, xmm15
    vmovdqa64 zmm8, [rip + .Lswap]
    vmovdqa64 zmm7, [rip + .Lpoly]
1:
    vpxor xmm12, xmm12, xmm12
    vpxor xmm13, xmm13, xmm13
    vpxor xmm14, xmm14, xmm14
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    vmovdqu64 zmm0, [rsi + \i * 64]
    vpshufb zmm0, zmm0, zmm8
.if \i == 0
    vpxorq zmm0, zmm0, zmm15
.endif
    vpshufd zmm1, zmm0, 0x4e
    vpxorq zmm1, zmm1, zmm0
    vpclmulqdq zmm2, zmm0, [rdi + gcm_key.first_power - 496 + \i * 64], 0x00
    vpclmulqdq zmm3, zmm0, [rdi + gcm_key.first_power - 496 + \i * 64], 0x11
    vpclmulqdq zmm1, zmm1, [rdi + gcm_key.first_sum - 496 + \i * 64], 0x00
    vpxorq zmm12, zmm12, zmm2
    vpxorq zmm13, zmm13, zmm3
    vpxorq zmm14, zmm14, zmm1
.endr
    vpternlogq zmm14, zmm12, zmm13, 0x96
    vpclmulqdq zmm2, zmm12, zmm7, 0x10
    vpshufd zmm12, zmm12, 0x4e
    vpternlogq zmm14, zmm12, zmm2, 0x96
    vpclmulqdq zmm2, zmm14, zmm7, 0x10
    vpshufd zmm15, zmm14, 0x4e
    vpternlogq zmm15, zmm13, zmm2, 0x96
    vextracti64x4 ymm2, zmm15, 1
    vpxor ymm15, ymm15, ymm2
    vextracti128 xmm2, ymm15, 1
    vpxor xmm15, xmm15, xmm2
    add rsi, 512
    sub ecx, 512
    jnz 1b
    vmovdqu [rdx], xmm15
    vzeroupper
    ret

# Eight vectors: 14 rounds of AES; three products for each, and two of a reduction.
.macro eight instruction
.irp i, 0, 1, 2, 3, 4, 5, 6, 7
    \instruction \i
.endr
.endm
.macro ports_round instruction, multiply
.irp place, 8, 9, 10, 11, 12, 13, 8, 9, 10, 11, 12, 13
    \multiply \place
    eight \instruction
    \multiply \place
.endr
.irp place, 8, 9
    \multiply \place
    eight \instruction
.endr
.endm

.macro aes_of_xmm i
    aesenc xmm\i, xmm15
.endm
.macro multiply_xmm place
    pclmulqdq xmm\place, xmm14, 0x00
.endm
.balign 64, 0xcc
.global ports_aesni
ports_aesni:
    mov ecx, MH_PAGE_BYTES
1:
    ports_round aes_of_xmm, multiply_xmm
    sub ecx, 128
    jnz 1b
    ret

.macro aes_of_ymm i
    vaesenc ymm\i, ymm\i, ymm15
.endm
.macro multiply_ymm place
    vpclmulqdq ymm\place, ymm15, ymm14, 0x00
.endm
.balign 64, 0xcc
.global ports_vaes
ports_vaes:
    mov ecx, MH_PAGE_BYTES
1:
    ports_round aes_of_ymm, multiply_ymm
    sub ecx, 256
    jnz 1b
    vzeroupper
    ret

.macro aes_of_zmm i
    vaesenc zmm\i, zmm\i, zmm15
.endm
.macro multiply_zmm place
    vpclmulqdq zmm\place, zmm15, zmm14, 0x00
.endm
.balign 64, 0xcc
.global ports_zmm
ports_zmm:
    mov ecx, MH_PAGE_BYTES
1:
    ports_round aes_of_zmm, multiply_zmm
    sub ecx, 512
    jnz 1b
    vzeroupper
    ret

# A chain of 4096 additions, each of one cycle after the one before: shows the clock of the core.
.balign 64, 0xcc
.global cycles_4096
cycles_4096:
    mov ecx, 64
1:
.rept 64
    add rax, rcx
.endr
    dec ecx
    jnz 1b
    ret
