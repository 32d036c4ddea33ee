# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# XORs a page with its tweaks, for computers that emulate: mh_emulator/dram/cipher.py says what a tweak is.
#
# void native_mix(u8 *to rdi, const u8 *from rsi, const u8 *in_page rdx, u64 low rcx, u64 high r8)
#
# in_page holds the part of each block's tweak that comes from its place in the page; low and high are the other part,
# which all have.

.equ PAGE_BYTES, 4096

.text
.global native_mix
native_mix:
    movq xmm0, rcx
    movq xmm1, r8
    punpcklqdq xmm0, xmm1
    xor eax, eax
1:  movdqu xmm1, [rsi + rax]
    movdqu xmm2, [rdx + rax]
    pxor xmm1, xmm0
    pxor xmm1, xmm2
    movdqu [rdi + rax], xmm1
    add eax, 16
    cmp eax, PAGE_BYTES
    jb 1b
    ret
