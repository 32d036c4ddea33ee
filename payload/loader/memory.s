# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Memory of the firmware's: reserved, given back.

.include "uefi.inc"
.include "state.inc"

.extern check_private
.extern unpublish
.extern unset_variable

.equ PAGE_SHIFT, 12

.text

# Exactly the helper's pages, or none; they must be private.
.global reserve
reserve:
    frame
    mov rax, [rbx + state.image]
    mov r8, [rax + mh_descriptor.memory_bytes]
    shr r8, PAGE_SHIFT
    mov rsi, r8
    mov ecx, AllocateAddress
    mov edx, EfiReservedMemoryType
    lea r9, [rbx + state.base]
    boot_service AllocatePages
    test rax, rax
    jnz .Lleave
    mov [rbx + state.pages], rsi
    mov rdx, rsi
    shl rdx, PAGE_SHIFT
    mov rsi, [rbx + state.base]
    call check_private
.Lleave:
    leave_frame

# Takes back, the last thing first, what a loader that failed has done.
.global undo
undo:
    frame
    call unset_variable
    call unpublish
    mov rdx, [rbx + state.pages]
    test rdx, rdx
    jz .Lundone
    mov rdi, [rbx + state.base]
    mov rcx, rdx
    shl rcx, PAGE_SHIFT - 3
    xor eax, eax
    rep stosq
    mov rcx, [rbx + state.base]
    boot_service FreePages
.Lundone:
    leave_frame

# Frees the buffers that only the loader needs.
.global release
release:
    frame
    lea rsi, [rbx + state.image]
    call free_pool
    lea rsi, [rbx + state.digest]
    call free_pool
    lea rsi, [rbx + state.handles]
    call free_pool
    leave_frame

# The buffer at [rsi], if there is one.
.global free_pool
free_pool:
    frame
    mov rcx, [rsi]
    test rcx, rcx
    jz .Lfreed
    mov qword ptr [rsi], 0
    boot_service FreePool
.Lfreed:
    leave_frame
