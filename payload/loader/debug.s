# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The one line on the debug port (payload/abi.h).

.include "uefi.inc"
.include "state.inc"

.section .rodata
.Lmarker:
    .ascii MH_DEBUG_MARKER
.Lmarker_end:
.Lfailed:
    .ascii "failed "
.Lfailed_end:
.Ldigits:
    .ascii "0123456789abcdef"

.text

.global print_loaded
print_loaded:
    lea rsi, [rip + .Lmarker]
    mov ecx, .Lmarker_end - .Lmarker
    call print
    mov rax, [rbx + state.base]
    mov ecx, 16
    call print_number
    mov al, ' '
    out dx, al
    mov rax, [rbx + state.pages]
    shl rax, 12
    jmp print_last

.global print_failed
print_failed:
    lea rsi, [rip + .Lmarker]
    mov ecx, .Lmarker_end - .Lmarker
    call print
    lea rsi, [rip + .Lfailed]
    mov ecx, .Lfailed_end - .Lfailed
    call print
    mov rax, [rbx + state.step]
    shl rax, 56
    mov ecx, 2
    call print_number
    mov al, ' '
    out dx, al
    mov rax, [rbx + state.status]
print_last:
    mov ecx, 16
    call print_number
    mov al, '\n'
    out dx, al
    ret

# ecx bytes at rsi; leaves the port in dx.
print:
    mov edx, MH_DEBUG_PORT
.Lcharacter:
    lodsb
    out dx, al
    dec ecx
    jnz .Lcharacter
    ret

# The upper ecx hexadecimal digits of rax; the port is in dx.
print_number:
    mov rsi, rax
    lea r8, [rip + .Ldigits]
.Ldigit:
    rol rsi, 4
    mov eax, esi
    and eax, 15
    mov al, [r8 + rax]
    out dx, al
    dec ecx
    jnz .Ldigit
    ret
