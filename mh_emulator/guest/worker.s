# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# A guest at work: tells the host what it shares, hands over where the helper lies, allows its migration, then goes
# round and round over its RAM, hashes a word of every page at a place that the hash decides, and overwrites every
# fourth. It must not notice that it is moved.
#
# rdi: worker_info. r12 hash, r13 rounds left, r14 pages seen, xmm0 sum of the words seen.

.equ MSR_KVM_MIGRATION_CONTROL, 0x4b564d08
.equ MIGRATION_ALLOWED, 1
.equ MSR_GHCB, 0xc0010130
.equ MSR_SEV_STATUS, 0xc0010131
.equ SEV_STATUS_ES, 1 << 1
.equ SEV_STATUS_SNP, 1 << 2
.equ GHCB_REGISTER, 0x12        # GHCB specification, 2.3.2: only an SNP guest has to
.equ KVM_HC_MAP_GPA_RANGE, 12
.equ MULTIPLIER, 0x9e3779b97f4a7c15

# struct worker_info, then (GPA, bytes) of each piece of RAM, ended by zeros.
.equ worker_info.rounds, 0
.equ worker_info.hash, 8
.equ worker_info.sum, 16
.equ worker_info.pages, 24
.equ worker_info.shared, 32     # GPA of the page that the guest shares, its GHCB under SEV-ES
.equ worker_info.carrier, 40    # GPA of the shared page for mh_handover, 0 without one
.equ worker_info.pieces, 48
.equ worker_info.handover, 0x800

# GHCB specification, table 3: what a page's buffer is used for is up to the guest.
.equ ghcb.code, 0x390
.equ ghcb.info1, 0x398
.equ ghcb.info2, 0x3a0
.equ ghcb.bitmap, 0x3f0
.equ ghcb.buffer, 0x800
.equ ghcb.version, 0xffa
.equ EXIT_MSR, 0x7c
.equ EXIT_VMMCALL, 0x81
# One bit for each 8 bytes of the page: cpl, rax; rcx, rdx, rbx, code, info1, info2.
.equ VALID_LOW, (1 << (vmsa.cpl / 8)) | (1 << (vmsa.rax / 8))
.equ VALID_HIGH_REGISTERS, (1 << (vmsa.rcx / 8 - 64)) | (1 << (vmsa.rdx / 8 - 64)) | (1 << (vmsa.rbx / 8 - 64))
.equ VALID_HIGH_WORDS, (1 << (ghcb.code / 8 - 64)) | (1 << (ghcb.info1 / 8 - 64)) | (1 << (ghcb.info2 / 8 - 64))

.text
.global worker
worker:
    mov ecx, MSR_SEV_STATUS
    rdmsr
    test eax, SEV_STATUS_ES
    jz .Lregistered
    test eax, SEV_STATUS_SNP
    jz .Lknown
    mov eax, [rdi + worker_info.shared]
    mov edx, [rdi + worker_info.shared + 4]
    or eax, GHCB_REGISTER
    mov ecx, MSR_GHCB
    wrmsr
    .byte 0xf3, 0x0f, 0x01, 0xd9    # VMGEXIT
.Lknown:
    call register_ghcb
.Lregistered:
    mov rbx, [rdi + worker_info.shared]
    call share
    mov rax, MULTIPLIER
    mov [rbx + ghcb.buffer], rax
    mov rbx, [rdi + worker_info.carrier]
    test rbx, rbx
    jz .Lhanded_over
    call share
    mov r8, rdi
    lea rsi, [rdi + worker_info.handover]
    mov rdi, rbx
    mov ecx, sizeof.mh_handover / 8
    rep movsq
    mov rdi, r8
.Lhanded_over:
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
    # The word that was written when the work began, through the shared view.
    mov rbx, [rdi + worker_info.shared]
    movq xmm1, [rbx + ghcb.buffer]
    paddq xmm0, xmm1
    movq rax, xmm0
    mov [rdi + worker_info.sum], rax
    mov [rdi + worker_info.pages], r14
    hlt

# rbx: GPA of a page that the tables map without the C-bit. Loses rax, rcx, rdx.
share:
    mov eax, KVM_HC_MAP_GPA_RANGE
    mov ecx, 1
    xor edx, edx
    vmmcall
    test rax, rax
    jnz .Ldie
    ret

# Loses rax, rcx, rdx. This MSR is no exit.
register_ghcb:
    mov eax, [rdi + worker_info.shared]
    mov edx, [rdi + worker_info.shared + 4]
    mov ecx, MSR_GHCB
    wrmsr
    ret

# #VC of the two instructions above: ask with the GHCB, take RAX, go on behind them.
# On the stack: error code, then the frame.
.global vc
vc:
    push rcx
    push rdx
    push rax
    push r8
    mov ecx, MSR_GHCB
    rdmsr
    shl rdx, 32
    mov eax, eax
    or rax, rdx
    mov r8, rax
    mov rcx, [rsp + 24]
    mov rdx, [rsp + 16]
    mov rax, [rsp + 8]
    mov [r8 + vmsa.rax], rax
    mov [r8 + vmsa.rbx], rbx
    mov [r8 + vmsa.rcx], rcx
    mov [r8 + vmsa.rdx], rdx
    mov byte ptr [r8 + vmsa.cpl], 0
    mov word ptr [r8 + ghcb.version], 1
    xor eax, eax
    mov [r8 + ghcb.info2], rax
    mov rax, [rsp + 32]
    mov [r8 + ghcb.code], rax
    mov ecx, 3                  # bytes of VMMCALL
    xor edx, edx
    cmp eax, EXIT_VMMCALL
    je .Lask
    mov ecx, 2                  # of WRMSR
    mov edx, 1
    cmp eax, EXIT_MSR
    jne .Ldie
.Lask:
    mov [r8 + ghcb.info1], rdx
    add [rsp + 40], rcx
    mov rax, VALID_LOW
    mov [r8 + ghcb.bitmap], rax
    mov rax, VALID_HIGH_REGISTERS | VALID_HIGH_WORDS
    mov [r8 + ghcb.bitmap + 8], rax
    .byte 0xf3, 0x0f, 0x01, 0xd9    # VMGEXIT
    mov eax, [r8 + ghcb.info1]
    test eax, eax
    jnz .Ldie
    mov rax, [r8 + vmsa.rax]
    mov [rsp + 8], rax
    pop r8
    pop rax
    pop rdx
    pop rcx
    add rsp, 8
    iretq

.Ldie:
    ud2

# Where the vCPU of an SEV-ES guest starts on the target of a migration: nobody can set its registers after the launch,
# and VMRUN takes no VMSA that the CPU has not written. So it waits until the VMSA of the source has arrived in a page
# of its own, and loads that. rdi: worker_info, rsi: the page.
.global landing
landing:
    hlt
    mov rax, [rsi + vmsa.rip]
    test rax, rax
    jz landing
    call register_ghcb
    mov rax, [rsi + vmsa.cr3]
    mov cr3, rax
.irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqu xmm\number, [rsi + vmsa.xmm + 16 * \number]
.endr
    ldmxcsr [rsi + vmsa.mxcsr]
    movzx eax, word ptr [rsi + vmsa.ss]
    push rax
    push qword ptr [rsi + vmsa.rsp]
    push qword ptr [rsi + vmsa.rflags]
    movzx eax, word ptr [rsi + vmsa.cs]
    push rax
    push qword ptr [rsi + vmsa.rip]
.irp register, rax, rbx, rcx, rdx, rbp, rdi, r8, r9, r10, r11, r12, r13, r14, r15, rsi
    mov \register, [rsi + vmsa.\register]
.endr
    iretq
