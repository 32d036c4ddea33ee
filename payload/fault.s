# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Exceptions: the helper never expects one. Wipe, say what happened, stop.

.include "vcpu.inc"

.extern end_session
.extern wipe_session

# APM volume 2, table 8-1: these vectors push an error code.
.macro fault_stub vector
fault_\vector:
.if (\vector == 8) || ((\vector >= 10) && (\vector <= 14)) || (\vector == 17) || (\vector == 21) || (\vector == 28) || (\vector == 29) || (\vector == 30)
.else
    push 0
.endif
    push \vector
    jmp fault_common
.endm

.text
.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    fault_stub \vector
.endr

# On the fault stack: vector, error code, the frame of the CPU, RIP first, and above it the address of the block.
fault_common:
    cld
    mov r12, [rsp + 56]
    call end_session
    call wipe_session
    mov rcx, [r12 + vcpu.ring]
    mov rax, [rsp]
    mov [rcx + mh_ring.fault + mh_fault.vector], rax
    mov rax, [rsp + 8]
    mov [rcx + mh_ring.fault + mh_fault.error_code], rax
    mov rax, [rsp + 16]
    mov [rcx + mh_ring.fault + mh_fault.rip], rax
    mov rax, cr2
    mov [rcx + mh_ring.fault + mh_fault.cr2], rax
    mov dword ptr [r12 + vcpu.phase], PHASE_IDLE
    mov dword ptr [rcx + mh_ring.state], MH_RING_FAULT

# release(): gives the block back and stops.
.global release
release:
    mov dword ptr [r12 + vcpu.busy], 0

# stop(): halts for good. The host sees no general register of ours.
.global stop
stop:
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor ebp, ebp
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor r12d, r12d
    xor r13d, r13d
    xor r14d, r14d
    xor r15d, r15d
1:  cli
    hlt
    jmp 1b

.section .rodata
.balign 16
.global idt
idt:
.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    .gate fault_\vector, SELECTOR_CODE, FAULT_IST
.endr
.global idt_pointer
idt_pointer:
    .word VECTORS * 16 - 1
    .quad idt
