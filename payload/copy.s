# SPDX-License-Identifier: BSD-2-Clause-Patent

.text

# copy64(rdi: to, rsi: from): 64 bytes between the ring and private memory, each read once. Keeps rdi and rsi.
.global copy64
copy64:
    movdqu xmm0, [rsi]
    movdqu xmm1, [rsi + 16]
    movdqu xmm2, [rsi + 32]
    movdqu xmm3, [rsi + 48]
    movdqu [rdi], xmm0
    movdqu [rdi + 16], xmm1
    movdqu [rdi + 32], xmm2
    movdqu [rdi + 48], xmm3
    ret
