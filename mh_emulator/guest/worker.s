# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# A guest at work: goes round and round over its RAM, hashes a word of every page at a place that the hash
# decides, and overwrites every fourth. It must not notice that it is moved.
#
# rdi: worker_info. r12 hash, r13 rounds left, r14 pages seen, xmm0 sum of the words seen.

.equ MSR_KVM_MIGRATION_CONTROL, 0x4b564d08
.equ MIGRATION_ALLOWED, 1
.equ MULTIPLIER, 0x9e3779b97f4a7c15

# struct worker_info: rounds, hash, sum, pages; then (GPA, bytes) of each piece of RAM, ended by zeros.
.equ worker_info.rounds, 0
.equ worker_info.hash, 8
.equ worker_info.sum, 16
.equ worker_info.pages, 24
.equ worker_info.pieces, 32

.text
.global worker
worker:
    mov ecx, MSR_KVM_MIGRATION_CONTROL
    mov eax, MIGRATION_ALLOWED
    xor edx, edx
    wrmsr
    mov r12, [rdi + worker_info.hash]
    mov r13, [rdi + worker_info.rounds]
    xor r14d, r14d
    pxor xmm0, xmm0
    mov r15, MULTIPLIER
.Lround:
    lea rbx, [rdi + worker_info.pieces]
.Lpiece:
    mov rsi, [rbx]
    mov rcx, [rbx + 8]
    add rcx, rsi
    cmp rcx, rsi
    je .Lround_done
.Lpage:
    mov rax, r12
    shr rax, 40
    and eax, 0xff8
    mov rdx, [rsi + rax]
    movq xmm1, rdx
    paddq xmm0, xmm1
    rol r12, 13
    xor r12, rdx
    imul r12, r15
    test r14b, 3
    jnz .Lkept
    mov [rsi + rax], r12
.Lkept:
    inc r14
    add rsi, 4096
    cmp rsi, rcx
    jb .Lpage
    add rbx, 16
    jmp .Lpiece
.Lround_done:
    dec r13
    jnz .Lround
    mov [rdi + worker_info.hash], r12
    movq rax, xmm0
    mov [rdi + worker_info.sum], rax
    mov [rdi + worker_info.pages], r14
    hlt
