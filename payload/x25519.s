# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# X25519 (RFC 7748, 5), legacy encodings only.
#
# All but u and the addresses is secret: the scalar, every coordinate of the ladder, every product, every carry. No branch
# and no address depends on them; MUL takes as long for all operands. What was here is wiped before the return, in the
# frame and in registers.
#
# An element of the field is 4 words of 64 bits, any number below 2^256 for its class modulo p = 2^255 - 19. What leaves at
# the top comes back times 38, since 2^256 = 38 mod p. Only the result is brought below p. Every operation takes any two
# such numbers and leaves one: its comment says why nothing gets lost.
#
# Registers of the field's operations: rdi result, rsi left operand, rbx right operand, any of which may be the same;
# r8..r11 the words of the result, also at return; rcx what goes beyond them. Lost: all but rdi and rbp.

# The frame. rbp points to its middle, so that one byte reaches every element.
.equ ladder.x1, -128            # u
.equ ladder.x2, -96
.equ ladder.z2, -64             # follows x2, as z3 follows x3: they are swapped as pairs
.equ ladder.x3, -32
.equ ladder.z3, 0
.equ ladder.a, 32
.equ ladder.b, 64
.equ ladder.c, 96
.equ ladder.swaps, 128          # bit t: whether step t of the ladder begins with a swap
.equ ladder.result, 160
.equ ladder.bit, 168
.equ sizeof.ladder, 304

.equ A24, 121665                # (486662 - 2) / 4

.section .rodata
.balign 16
.Lbase_point:
    .quad 9, 0, 0, 0

.text

.macro load_words from
    mov r8, [\from]
    mov r9, [\from + 8]
    mov r10, [\from + 16]
    mov r11, [\from + 24]
.endm

.macro store_words to
    mov [\to], r8
    mov [\to + 8], r9
    mov [\to + 16], r10
    mov [\to + 24], r11
.endm

# r8..r11 = r8..r11 mod 2^255 + 19 * rax
.macro fold_255
    btr r11, 63
    imul eax, eax, 19
    add r8, rax
    adc r9, 0
    adc r10, 0
    adc r11, 0
.endm

# carry:sum = sum + left * right + carry, at most (2^64 - 1)^2 + 2 (2^64 - 1) = 2^128 - 1. Loses rax and rdx.
.macro accumulate sum, carry, left, right
    mov rax, \left
    mul \right
    add rax, \carry
    adc rdx, 0
    add \sum, rax
    adc rdx, 0
    mov \carry, rdx
.endm

# top:sum3:sum2:sum1:sum0 = sum3:sum2:sum1:sum0 + left operand * the right one's word at \offset
.macro accumulate_row offset, sum0, sum1, sum2, sum3, top
    mov rcx, [rbx + \offset]
    xor \top, \top
    accumulate \sum0, \top, [rsi], rcx
    accumulate \sum1, \top, [rsi+8], rcx
    accumulate \sum2, \top, [rsi+16], rcx
    accumulate \sum3, \top, [rsi+24], rcx
.endm

.macro field operation, result, left, right
    lea rdi, [rbp + ladder.\result]
    lea rsi, [rbp + ladder.\left]
    lea rbx, [rbp + ladder.\right]
    call .L\operation
.endm

# left + right, below 2^257: rcx is at most 1.
.balign 16, 0xcc
.Ladd:
    load_words rsi
    xor ecx, ecx
    add r8, [rbx]
    adc r9, [rbx + 8]
    adc r10, [rbx + 16]
    adc r11, [rbx + 24]
    adc ecx, ecx
    jmp .Lfold

# left + A24 * right, below (A24 + 1) 2^256: rcx is at most A24.
.Ladd_scaled:
    load_words rsi
    mov esi, A24
    xor ecx, ecx
    accumulate r8, rcx, [rbx], rsi
    accumulate r9, rcx, [rbx+8], rsi
    accumulate r10, rcx, [rbx+16], rsi
    accumulate r11, rcx, [rbx+24], rsi
    jmp .Lfold

# left * right, by rows, is below 2^512. Its upper half comes back times 38: the sum is below 39 * 2^256, rcx at most 38.
.balign 16, 0xcc
.Lmultiply:
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    accumulate_row 0, r8, r9, r10, r11, r12
    accumulate_row 8, r9, r10, r11, r12, r13
    accumulate_row 16, r10, r11, r12, r13, r14
    accumulate_row 24, r11, r12, r13, r14, r15
    mov ebx, 38
    xor ecx, ecx
    accumulate r8, rcx, r12, rbx
    accumulate r9, rcx, r13, rbx
    accumulate r10, rcx, r14, rbx
    accumulate r11, rcx, r15, rbx

# Stores r8..r11 + rcx * 2^256, rcx at most A24, so 38 rcx is below 2^23. If adding it carries, less than 2^23 is left: r8 alone,
# and the 38 for that carry has none.
.Lfold:
    imul rcx, rcx, 38
    add r8, rcx
    adc r9, 0
    adc r10, 0
    adc r11, 0
    sbb ecx, ecx
    and ecx, 38
    add r8, rcx
.Lstore:
    store_words rdi
    ret

# left - right. A borrow has added 2^256, so 38 is taken away. If that borrows too, at least 2^256 - 38 is left: r8 is at least
# 2^64 - 38, and the 38 for that borrow has none.
.balign 16, 0xcc
.Lsubtract:
    load_words rsi
    sub r8, [rbx]
    sbb r9, [rbx + 8]
    sbb r10, [rbx + 16]
    sbb r11, [rbx + 24]
    sbb ecx, ecx
    and ecx, 38
    sub r8, rcx
    sbb r9, 0
    sbb r10, 0
    sbb r11, 0
    sbb ecx, ecx
    and ecx, 38
    sub r8, rcx
    jmp .Lstore

# r8..r11 below p: first below 2^255 + 19, for 2^255 = 19 mod p, then p less where adding 19 reaches 2^255. Loses rax.
.balign 16, 0xcc
.Lreduce:
    mov rax, r11
    shr rax, 63
    fold_255
    mov rax, r8
    add rax, 19
    mov rax, r9
    adc rax, 0
    mov rax, r10
    adc rax, 0
    mov rax, r11
    adc rax, 0
    shr rax, 63
    fold_255
    btr r11, 63
    ret

# x25519_base(rdi: 32 bytes for the result, rsi: 32-byte scalar) -> eax: x25519 with u = 9, into which it falls
.balign 16, 0xcc
.global x25519_base
x25519_base:
    lea rdx, [rip + .Lbase_point]

# x25519(rdi: 32 bytes for the result, rsi: 32-byte scalar, rdx: 32-byte u) -> eax: 0, or 1 where the result is zero,
# which the caller must refuse (RFC 7748, 6.1). Clamps the scalar, takes any u. The result overlaps neither input.
.global x25519
x25519:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    sub rsp, sizeof.ladder
    lea rbp, [rsp + 128]
    mov [rbp + ladder.result], rdi

    load_words rdx
    btr r11, 63                 # RFC 7748, 5: an implementation MUST mask it
    store_words rbp+ladder.x1
    store_words rbp+ladder.x3
    xor eax, eax
.irp offset, 8, 16, 24
    mov [rbp + ladder.x2 + \offset], rax
    mov [rbp + ladder.z3 + \offset], rax
.endr
.irp offset, 0, 8, 16, 24
    mov [rbp + ladder.z2 + \offset], rax
.endr
    inc eax
    mov [rbp + ladder.x2], rax
    mov [rbp + ladder.z3], rax

    # Step t swaps where bits t and t + 1 of the scalar differ. Bit 0 is cleared, so the last step is the last swap.
    load_words rsi
    and r8, -8
    btr r11, 63
    bts r11, 62
    mov rax, r8
    shrd rax, r9, 1
    xor r8, rax
    mov rax, r9
    shrd rax, r10, 1
    xor r9, rax
    mov rax, r10
    shrd rax, r11, 1
    xor r10, rax
    mov rax, r11
    shr rax, 1
    xor r11, rax
    store_words rbp+ladder.swaps

    mov dword ptr [rbp + ladder.bit], 254
.Lladder_step:
    mov ecx, [rbp + ladder.bit]
    mov edx, ecx
    shr edx, 6
    mov rax, [rbp + rdx * 8 + ladder.swaps]
    shr rax, cl
    and eax, 1
    neg rax
.irp offset, 0, 8, 16, 24, 32, 40, 48, 56
    mov rcx, [rbp + ladder.x2 + \offset]
    xor rcx, [rbp + ladder.x3 + \offset]
    and rcx, rax
    xor [rbp + ladder.x2 + \offset], rcx
    xor [rbp + ladder.x3 + \offset], rcx
.endr

    # RFC 7748, 5, in its names: A, B, C; D in x3; DA in x3, CB in z3; AA in a, BB in b; E in b.
    field add, a, x2, z2
    field subtract, b, x2, z2
    field add, c, x3, z3
    field subtract, x3, x3, z3
    field multiply, x3, x3, a
    field multiply, z3, c, b
    field multiply, a, a, a
    field multiply, b, b, b
    field multiply, x2, a, b
    field subtract, b, a, b
    field add_scaled, a, a, b
    field multiply, z2, b, a
    field add, c, x3, z3
    field subtract, z3, x3, z3
    field multiply, x3, c, c
    field multiply, z3, z3, z3
    field multiply, z3, x1, z3
    dec dword ptr [rbp + ladder.bit]
    jns .Lladder_step

    # a = z2^(p - 2): p - 2 = 2^255 - 21 has 255 bits, all of them ones but bits 4 and 2.
    load_words rbp+ladder.z2
    store_words rbp+ladder.a
    mov dword ptr [rbp + ladder.bit], 253
.Linvert_step:
    field multiply, a, a, a
    mov eax, [rbp + ladder.bit]
    cmp eax, 4
    je .Linvert_next
    cmp eax, 2
    je .Linvert_next
    field multiply, a, a, z2
.Linvert_next:
    dec dword ptr [rbp + ladder.bit]
    jns .Linvert_step
    field multiply, a, a, x2

    call .Lreduce
    mov rdi, [rbp + ladder.result]
    store_words rdi
    or r8, r9
    or r8, r10
    or r8, r11
    xor edx, edx
    cmp r8, 1                   # survives one more: 1 has order 4, and is no multiple by a clamped scalar
    adc edx, edx

    mov rdi, rsp
    mov ecx, sizeof.ladder / 8
    xor eax, eax
    rep stosq
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    mov eax, edx
    xor edx, edx
    add rsp, sizeof.ladder
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
