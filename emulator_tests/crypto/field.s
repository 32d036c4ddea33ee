# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The operations of x25519.s, callable as field_NAME(rdi: result, rsi: left operand, rdx: right operand).

.include "x25519.s"

.macro callable name
.global field_\name
field_\name:
    push rbx
    push r12
    push r13
    push r14
    push r15
    mov rbx, rdx
.endm

.macro end_callable
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    ret
.endm

.irp operation, add, subtract, add_scaled, multiply
callable \operation
    call .L\operation
end_callable
.endr

callable reduce
    load_words rsi
    call .Lreduce
    store_words rdi
end_callable
