# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# probe(rdi: record): calls a kernel on a stack of its own and records every register at its return. Vector registers but
# xmm0 are all ones at the call.

.equ record.target, 0
.equ record.arguments, 8        # rdi, rsi, rdx, rcx
.equ record.stack, 40
.equ record.saved, 48
.equ record.flags, 56
.equ record.general, 64         # in the order of the encoding, rax..r15; rsp is left out
.equ record.fifth, 96           # r8, in the place of rsp
.equ record.vector, 192         # at the call that of xmm0, at the return all

# Of VECTOR_BYTES each; those of 64 bytes are twice as many.
.macro record_vectors
.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
.if VECTOR_BYTES == 64
    vmovdqu64 [rdi + record.vector + \i * 64], zmm\i
.elseif VECTOR_BYTES == 32
    vmovdqu [rdi + record.vector + \i * 32], ymm\i
.else
    movdqu [rdi + record.vector + \i * 16], xmm\i
.endif
.endr
.if VECTOR_BYTES == 64
.irp i, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovdqu64 [rdi + record.vector + \i * 64], zmm\i
.endr
.endif
.endm

.text
.global probe
probe:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rdi + record.saved], rsp
    mov rsp, [rdi + record.stack]
    push rdi
.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
.if VECTOR_BYTES == 64
    vpternlogq zmm\i, zmm\i, zmm\i, 0xff
.elseif VECTOR_BYTES == 32
    vpcmpeqd ymm\i, ymm\i, ymm\i
.else
    pcmpeqd xmm\i, xmm\i
.endif
.endr
.if VECTOR_BYTES == 64
.irp i, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vpternlogq zmm\i, zmm\i, zmm\i, 0xff
.endr
.endif
    movdqu xmm0, [rdi + record.vector]  # keeps the upper half
    mov rax, [rdi + record.target]
    mov rsi, [rdi + record.arguments + 8]
    mov rdx, [rdi + record.arguments + 16]
    mov rcx, [rdi + record.arguments + 24]
    mov r8, [rdi + record.fifth]
    mov rdi, [rdi + record.arguments]
    mov ebx, 0x33333333
    mov ebp, 0x55555555
    mov r9d, 0x99999999
    mov r10d, 0xaaaaaaaa
    mov r11d, 0xbbbbbbbb
    mov r12d, 0xcccccccc
    mov r13d, 0xdddddddd
    mov r14d, 0xeeeeeeee
    mov r15d, 0xffffffff
    call rax
    xchg rdi, [rsp]
    mov [rdi + record.general], rax
    mov [rdi + record.general + 8], rcx
    mov [rdi + record.general + 16], rdx
    mov [rdi + record.general + 24], rbx
    mov [rdi + record.general + 40], rbp
    mov [rdi + record.general + 48], rsi
    pop rax
    mov [rdi + record.general + 56], rax
    mov [rdi + record.general + 64], r8
    mov [rdi + record.general + 72], r9
    mov [rdi + record.general + 80], r10
    mov [rdi + record.general + 88], r11
    mov [rdi + record.general + 96], r12
    mov [rdi + record.general + 104], r13
    mov [rdi + record.general + 112], r14
    mov [rdi + record.general + 120], r15
    pushfq
    pop rax
    mov [rdi + record.flags], rax
    record_vectors
    mov rsp, [rdi + record.saved]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
