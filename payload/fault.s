# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Exceptions: the helper never expects one. Wipe, say what happened, stop.

.include "vcpu.inc"

.extern end_session
.extern wipe_record
.extern wipe_session
.extern linker.fault_stack_top
.extern linker.vcpu

# An event comes with an error code or without: which one, a host that injects it decides, not the vector. So every stub
# just leaves its return address, of which the vector is made, and the stack tells the rest: the CPU aligns it before it pushes.
.text
fault_stubs:
.irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
fault_\vector:
    call fault_common
.endr
.equ STUB_BYTES, 5

# On the fault stack, which is one page: return address of the stub, error code if there is one, RIP and the rest of
# the CPU's frame. The block lies where the page's own place says: nothing on the page is believed. An event in here
# begins it again.
fault_common:
    cld
    mov r12, offset linker.vcpu
    mov rax, offset linker.fault_stack_top
    sub r12, rax
    mov rax, rsp
    or rax, MH_PAGE_BYTES - 1
    lea r12, [r12 + rax + 1]
    call end_session
    # Ring 0 may have been about to begin one, with the key written already.
    cmp dword ptr [r12 + vcpu.index], 0
    jne 1f
    call wipe_record
1:  call wipe_session
    mov rcx, [r12 + vcpu.ring]
    pop rax
    lea rdx, [rip + fault_stubs]
    sub rax, rdx
    xor edx, edx
    mov ebx, STUB_BYTES
    div ebx
    dec eax
    mov [rcx + mh_ring.fault + mh_fault.vector], rax
    xor eax, eax
    test spl, 8                 # five words from the page's end, or six
    jnz 1f
    pop rax
1:  mov [rcx + mh_ring.fault + mh_fault.error_code], rax
    mov rax, [rsp]
    mov [rcx + mh_ring.fault + mh_fault.rip], rax
    mov rax, cr2
    mov [rcx + mh_ring.fault + mh_fault.cr2], rax
    lidt [rip + no_idt_pointer]
    mov dword ptr [r12 + vcpu.phase], PHASE_IDLE
    mov dword ptr [rcx + mh_ring.state], MH_RING_FAULT

# release(): gives the block back and stops.
.global release
release:
    lidt [rip + no_idt_pointer]
    mov dword ptr [r12 + vcpu.busy], 0

# stop(): halts for good. The host sees no general register of ours. There is no IDT: block and stacks may be another vCPU's by
# now, so an event shuts this one down.
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
.global no_idt_pointer
no_idt_pointer:
    .word 0
    .quad 0
