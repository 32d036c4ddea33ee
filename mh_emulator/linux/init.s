# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The first process of a Linux guest: works on its memory and on a file in the root file system, prints a digest of
# both, step by step, sleeps in between, and says when it is done. It reads the time-stamp counter, which decides nothing
# of that: behind RDTSC its timer may interrupt it. Names that are not here are those of work.py.

.equ SYS_READ_AT, 17                    # pread64 and so on: arch/x86/entry/syscalls/syscall_64.tbl
.equ SYS_WRITE, 1
.equ SYS_OPEN, 2
.equ SYS_WRITE_AT, 18
.equ SYS_PAUSE, 34
.equ SYS_NANOSLEEP, 35
.equ O_RDWR_CREATE, 0x42
.equ PRIVATE_MODE, 0x180                # 0600
.equ STDOUT, 1

.reg HASH, r12
.reg STEP, r13
.reg BUFFER, r14
.reg FILE, r15

.text
.balign 16
    mov HASH, work.seed
    xor STEP, STEP
    mov BUFFER, work.buffer
    lea rdi, [rip + .Lname]
    mov esi, O_RDWR_CREATE
    mov edx, PRIVATE_MODE
    mov eax, SYS_OPEN
    syscall
    test rax, rax
    js .Lfailed
    mov FILE, rax

.Lstep:
    # A word of every page, at a place that the digest decides.
    xor ebx, ebx
.Lpage:
    rdtsc
    mov rcx, HASH
    shr rcx, 40
    and ecx, 0xff8
    mov rax, rbx
    shl rax, 12
    add rcx, rax
    mov rdx, [BUFFER + rcx]
    call mix
    mov [BUFFER + rcx], HASH
    inc ebx
    cmp ebx, work.pages
    jb .Lpage

    # Another page goes to the end of the file, and one from its middle comes back.
    mov rsi, STEP
    and esi, work.pages - 1
    shl rsi, 12
    add rsi, BUFFER
    mov r10, STEP
    shl r10, 12
    mov eax, SYS_WRITE_AT
    call transfer
    mov esi, work.input
    mov r10, STEP
    shr r10, 1
    shl r10, 12
    mov eax, SYS_READ_AT
    call transfer
    mov ebx, work.input
.Lword:
    mov rdx, [rbx]
    call mix
    add rbx, 8
    cmp ebx, work.input + 4096
    jb .Lword

    # "step NN ", 16 digits and a line feed.
    mov edi, work.line
    mov rax, 0x2070657473
    mov [rdi], rax
    mov rax, STEP
    mov ecx, 10
    xor edx, edx
    div ecx
    add al, '0'
    add dl, '0'
    mov [rdi + 5], al
    mov [rdi + 6], dl
    mov byte ptr [rdi + 7], ' '
    mov rax, HASH
    mov ecx, 16
.Ldigit:
    rol rax, 4
    mov edx, eax
    and edx, 15
    add edx, '0'
    cmp edx, '9'
    jbe 1f
    add edx, 'a' - '9' - 1
1:  mov [rdi + 8], dl
    inc rdi
    dec ecx
    jnz .Ldigit
    mov byte ptr [rdi + 8], 10
    mov esi, work.line
    mov edx, 25
    call print
    lea rdi, [rip + .Lpause]
    xor esi, esi
    mov eax, SYS_NANOSLEEP
    syscall
    inc STEP
    cmp STEP, work.steps
    jb .Lstep
    lea rsi, [rip + .Ldone]
    mov edx, .Ldone_end - .Ldone
    call print
.Lidle:
    mov eax, SYS_PAUSE
    syscall
    jmp .Lidle

.Lfailed:
    lea rsi, [rip + .Lno]
    mov edx, .Lno_end - .Lno
    call print
    jmp .Lidle

# rdx: a word. Changes rax.
mix:
    rol HASH, 13
    xor HASH, rdx
    mov rax, work.multiplier
    imul HASH, rax
    ret

# eax: the system call, rsi: a page of memory, r10: where in the file.
transfer:
    mov rdi, FILE
    mov edx, 4096
    syscall
    cmp rax, 4096
    jne .Lfailed
    ret

# rsi: text, edx: bytes.
print:
    mov edi, STDOUT
    mov eax, SYS_WRITE
    syscall
    ret

.balign 8
.Lpause:
    .quad 0, work.pause_ns
.Lname:
    .asciz "work"
.Ldone:
    .ascii "done\n"
.Ldone_end:
.Lno:
    .ascii "the system call failed\n"
.Lno_end:
