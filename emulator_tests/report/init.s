# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The first process of a Linux guest: says that it runs, then works until it is stopped. Three system calls.

.text
.balign 16
    mov eax, 9                  # mmap(0, 2 MiB, read and write, private and anonymous, -1, 0)
    xor edi, edi
    mov esi, 0x200000
    mov edx, 3
    mov r10d, 0x22
    mov r8, -1
    xor r9d, r9d
    syscall
    mov rbx, rax
    xor ecx, ecx
.Lwrite:
    mov [rbx + rcx], rcx        # every other page is written, and so gets memory of its own
    mov dl, [rbx + rcx + 4096]  # every other one is read: the zero page
    add rcx, 8192
    cmp rcx, 0x200000
    jb .Lwrite
    lea rsi, [rip + .Lwords]
    mov eax, 1                  # write(1, words)
    mov edi, 1
    mov edx, 16
    syscall
.Lwork:
    inc qword ptr [rbx]
    jmp .Lwork

.balign 16
.Lwords:
    .ascii "init is working\n"
