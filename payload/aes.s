# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# AES-256 with AES-NI, legacy SSE encodings only (FIPS 197; Gueron, "Intel AES New Instructions Set").

.include "gcm.inc"

.section .rodata
.balign 16
.Lround_constant:
    .long 1, 1, 1, 1
.Lrotate:                               # the last word, its bytes rotated, in every word
    .long 0x0c0f0e0d, 0x0c0f0e0d, 0x0c0f0e0d, 0x0c0f0e0d

.text

# One round key: \key, two places back, becomes the next; xmm2 has what SubWord made of the one between.
.macro next_key key
    movdqa xmm3, \key
.rept 3
    pslldq xmm3, 4
    pxor \key, xmm3
.endr
    pxor \key, xmm2
.endm

# aes256_expand(rdi: 240 bytes for the schedule, rsi: 32-byte key). Keeps rdi.
#
# AESENCLAST of four equal words is SubWord of each, plus its operand: ShiftRows moves equal bytes.
.balign 16, 0xcc
.global aes256_expand
aes256_expand:
    movdqu xmm0, [rsi]
    movdqu xmm1, [rsi + 16]
    movdqa xmm4, [rip + .Lround_constant]
    pxor xmm5, xmm5
    mov ecx, 7
    jmp 2f
1:  movdqa xmm2, xmm1
    pshufb xmm2, [rip + .Lrotate]
    aesenclast xmm2, xmm4
    pslld xmm4, 1
    next_key xmm0
    movdqu [rdi], xmm0
    dec ecx
    jz 3f
    pshufd xmm2, xmm0, 0xff
    aesenclast xmm2, xmm5
    next_key xmm1
    jmp 4f
2:  movdqu [rdi], xmm0
4:  movdqu [rdi + 16], xmm1
    add rdi, 32
    jmp 1b
3:  sub rdi, AES256_LAST
    wipe_xmm
    ret

.macro block_round key
    aesenc xmm0, [rdi + \key]
.endm

# aes256_block(rdi: schedule, 16-byte aligned, xmm0: block) -> xmm0, for other assembly: it touches no other register.
# The caller wipes.
.balign 16, 0xcc
.global aes256_block
aes256_block:
    pxor xmm0, [rdi]
    each_round_key block_round
    aesenclast xmm0, [rdi + AES256_LAST]
    ret

.macro pair_round key
    movdqa xmm2, [rdi + \key]
    aesenc xmm0, xmm2
    aesenc xmm1, xmm2
.endm

# aes256_pair(rdi: as before, xmm0, xmm1: blocks) -> xmm0, xmm1. Loses xmm2; the caller wipes.
.balign 16, 0xcc
.global aes256_pair
aes256_pair:
    movdqa xmm2, [rdi]
    pxor xmm0, xmm2
    pxor xmm1, xmm2
    each_round_key pair_round
    movdqa xmm2, [rdi + AES256_LAST]
    aesenclast xmm0, xmm2
    aesenclast xmm1, xmm2
    ret
