# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# AES-256 with AES-NI, legacy SSE encodings only (FIPS 197; Gueron, "Intel AES New Instructions Set").

.include "gcm.inc"

.text

# One round key: \older becomes the key two places on, \newer is the one between. \lane selects the word.
.macro next_key older, newer, round_constant, lane, offset
    aeskeygenassist xmm2, \newer, \round_constant
    pshufd xmm2, xmm2, \lane
    movdqa xmm3, \older
    pslldq xmm3, 4
    pxor \older, xmm3
    pslldq xmm3, 4
    pxor \older, xmm3
    pslldq xmm3, 4
    pxor \older, xmm3
    pxor \older, xmm2
    movdqu [rdi + \offset], \older
.endm

# aes256_expand(rdi: 240 bytes for the schedule, rsi: 32-byte key)
.balign 16, 0xcc
.global aes256_expand
aes256_expand:
    movdqu xmm0, [rsi]
    movdqu xmm1, [rsi + 16]
    movdqu [rdi], xmm0
    movdqu [rdi + 16], xmm1
    next_key xmm0, xmm1, 0x01, 0xff, 32
    next_key xmm1, xmm0, 0x00, 0xaa, 48
    next_key xmm0, xmm1, 0x02, 0xff, 64
    next_key xmm1, xmm0, 0x00, 0xaa, 80
    next_key xmm0, xmm1, 0x04, 0xff, 96
    next_key xmm1, xmm0, 0x00, 0xaa, 112
    next_key xmm0, xmm1, 0x08, 0xff, 128
    next_key xmm1, xmm0, 0x00, 0xaa, 144
    next_key xmm0, xmm1, 0x10, 0xff, 160
    next_key xmm1, xmm0, 0x00, 0xaa, 176
    next_key xmm0, xmm1, 0x20, 0xff, 192
    next_key xmm1, xmm0, 0x00, 0xaa, 208
    next_key xmm0, xmm1, 0x40, 0xff, 224
    wipe_xmm
    ret

# aes256_block(rdi: schedule of any alignment, xmm0: block) -> xmm0, for other assembly: it touches
# xmm1 and no other register, and leaves the last round key in it. The caller wipes.
.balign 16, 0xcc
.global aes256_block
aes256_block:
    movdqu xmm1, [rdi]
    pxor xmm0, xmm1
.irp offset, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208
    movdqu xmm1, [rdi + \offset]
    aesenc xmm0, xmm1
.endr
    movdqu xmm1, [rdi + 224]
    aesenclast xmm0, xmm1
    ret
