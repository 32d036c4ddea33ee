# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The firmware's handler of #VC: has the host carry out CPUID, WRMSR and `out dx, al` through the GHCB, and ends the
# guest at everything else, and at a host that does not do it. It believes what CPUID is answered, as OVMF's does.
# Source: GHCB specification (AMD 56421), section 2.6 and tables 3 to 5; edk2, OvmfPkg/Library/CcExitLib.

.equ EXIT_CPUID, 0x72
.equ EXIT_IOIO, 0x7b
.equ EXIT_MSR, 0x7c
.equ IOIO_OUT_8, (1 << 4) | (1 << 9)    # 8 bits, 64-bit addresses
.equ IOIO_PORT_SHIFT, 16
.equ OPCODE_OUT_DX_AL, 0xee
.equ OPCODE_WRMSR, 0x30                 # its second byte
.equ TERMINATE, 0x100                   # GHCBInfo; reason 0 of set 0

.equ ghcb.code, 0x390
.equ ghcb.info1, 0x398
.equ ghcb.info2, 0x3a0
.equ ghcb.bitmap, 0x3f0
.equ ghcb.version, 0xffa
.equ ghcb.usage, 0xffc
# One bit for each 8 bytes of the page, from bit 64 on in the second word.
.equ VALID_RAX, 1 << (vmsa.rax / 8)
.equ VALID_RCX_RDX, (1 << (vmsa.rcx / 8 - 64)) | (1 << (vmsa.rdx / 8 - 64))
.equ VALID_RBX, 1 << (vmsa.rbx / 8 - 64)
.equ VALID_REQUEST, (1 << (ghcb.code / 8 - 64)) | (1 << (ghcb.info1 / 8 - 64)) | (1 << (ghcb.info2 / 8 - 64))

.equ saved.rbx, 8
.equ saved.rdx, 16
.equ saved.rcx, 24
.equ saved.rax, 32
.equ saved.code, 40
.equ saved.rip, 48

.global vc
vc:
    push rax
    push rcx
    push rdx
    push rbx
    push rdi
    mov rdi, GHCB_VIEW
    mov [rdi + vmsa.rax], rax
    mov [rdi + vmsa.rcx], rcx
    mov [rdi + vmsa.rdx], rdx
    mov rax, [rsp + saved.code]
    mov rbx, [rsp + saved.rip]
    xor ecx, ecx                        # EXITINFO1
    mov edx, 2                          # bytes of the instruction
    cmp eax, EXIT_CPUID
    je .Lask
    cmp eax, EXIT_MSR
    je .Lmsr
    cmp eax, EXIT_IOIO
    jne .Lterminate
    cmp byte ptr [rbx], OPCODE_OUT_DX_AL
    jne .Lterminate
    movzx ecx, word ptr [rsp + saved.rdx]
    shl ecx, IOIO_PORT_SHIFT
    or ecx, IOIO_OUT_8
    mov edx, 1
    jmp .Lask
.Lmsr:
    cmp byte ptr [rbx + 1], OPCODE_WRMSR
    jne .Lterminate
    mov ecx, 1
.Lask:
    add [rsp + saved.rip], rdx
    mov [rdi + ghcb.code], rax
    mov [rdi + ghcb.info1], rcx
    xor eax, eax
    mov [rdi + ghcb.info2], rax
    mov [rdi + ghcb.usage], eax
    mov word ptr [rdi + ghcb.version], 1
    mov rax, VALID_RAX
    mov [rdi + ghcb.bitmap], rax
    mov rax, VALID_RCX_RDX | VALID_REQUEST
    mov [rdi + ghcb.bitmap + 8], rax
    rep vmmcall
    mov eax, [rdi + ghcb.info1]
    test eax, eax
    jnz .Lterminate
    cmp qword ptr [rsp + saved.code], EXIT_CPUID
    jne .Ldone
    mov rax, VALID_RAX
    test [rdi + ghcb.bitmap], rax
    jz .Lterminate
    mov rax, VALID_RCX_RDX | VALID_RBX
    mov rcx, [rdi + ghcb.bitmap + 8]
    and rcx, rax
    cmp rcx, rax
    jne .Lterminate
.irp register, rax, rcx, rdx, rbx
    mov eax, [rdi + vmsa.\register]
    mov [rsp + saved.\register], rax
.endr
.Ldone:
    pop rdi
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 8
    iretq

.Lterminate:
    mov ecx, MSR_GHCB
    mov eax, TERMINATE
    xor edx, edx
    wrmsr
    rep vmmcall
    ud2
