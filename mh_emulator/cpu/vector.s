# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# What unicorn computes for vector instructions bit by bit, in the same instructions of the computer that emulates:
# mh_emulator/cpu/vector.py puts these in the place of unicorn's functions.
#
# Source of the arguments: QEMU 5.0.1, on which unicorn 2 builds, target/i386/ops_sse.h; of the convention: System V
# ABI for AMD64, 3.2.3.
#
# void function(CPUX86State *rdi, ZMMReg *destination rsi, ZMMReg *source rdx, u32 immediate ecx)

.equ FEATURES, 1                        # CPUID function; ecx of its answer has those of what is used here

.text

# u32 cpu_features(void)
.global cpu_features
cpu_features:
    mov r8, rbx
    mov eax, FEATURES
    xor ecx, ecx
    cpuid
    mov eax, ecx
    mov rbx, r8
    ret

# By halves, as the code that unicorn makes stores them: what takes bytes of two recent stores would wait for both.
.macro in_place name, instruction
.global \name
\name:
    movq xmm0, [rsi]
    movhps xmm0, [rsi + 8]
    movq xmm1, [rdx]
    movhps xmm1, [rdx + 8]
    \instruction xmm0, xmm1
    movdqu [rsi], xmm0
    ret
.endm

    in_place aesenc, aesenc
    in_place aesenclast, aesenclast
    in_place pshufb, pshufb
    in_place pxor, pxor
    in_place paddq, paddq
    in_place por, por

.global pclmulqdq
pclmulqdq:
    mov eax, ecx
    and ecx, 1
    shr eax, 4
    and eax, 1
    movq xmm0, [rsi + rcx * 8]
    movq xmm1, [rdx + rax * 8]
    pclmulqdq xmm0, xmm1, 0
    movdqu [rsi], xmm0
    ret
