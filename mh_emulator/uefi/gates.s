# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# What of the firmware runs in the guest: a gate for each service. A gate leaves its number and the registers of its
# caller in a private page, halts until the service has been carried out, and returns with what was left there for it.
# So nobody has to reach into the vCPU, which nobody can under SEV-ES.

.equ GATE_BYTES, 16

.equ call.number, 0
.equ call.rax, 8

.text

# The gate of service N is at N * GATE_BYTES. The last number is that of services that this firmware has not.
.set number, 0
.rept GATES
    .balign GATE_BYTES, 0xcc
    push number
    jmp leave
    .set number, number + 1
.endr

# Here the firmware of an SEV-ES guest begins, rax: the driver's entry. This MSR is no exit.
.global start_es
start_es:
    mov r8, rax
    mov ecx, MSR_GHCB
    mov eax, GHCB
    xor edx, edx
    wrmsr
    mov rax, r8

# Here all others do.
.global start
start:
    mov ecx, IMAGE_HANDLE
    mov edx, SYSTEM_TABLE
    call rax
    push RETURNED
    jmp leave

leave:
    mov [CALL + call.rax], rax
    pop rax
    mov [CALL + call.number], rax
.set place, CALL + call.rax
.irp register, rcx, rdx, r8, r9, r10, r11, rsp, rbx, rbp, rsi, rdi, r12, r13, r14, r15
    .set place, place + 8
    mov [place], \register
.endr
    hlt
.set place, CALL + call.rax - 8
.irp register, rax, rcx, rdx, r8, r9, r10, r11
    .set place, place + 8
    mov \register, [place]
.endr
    # UEFI 2.10, section 2.3.4.2: a service loses these as well.
.irp register, xmm0, xmm1, xmm2, xmm3, xmm4, xmm5
    movq \register, r11
.endr
    ret

.include "vc.s"
