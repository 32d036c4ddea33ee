# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# What the helper asks of the host by a GHCB: to carry a message to the secure processor and an answer back, to start a vCPU.
# Nothing that the host says there is read: what counts is whether the answer opens.

.ifdef MH_START_SNP

.include "vcpu.inc"

.extern linker.tables

.text

# ask_processor(rsi: three shared pages: GHCB, request, response). Keeps rsi, rbx.
.global ask_processor
ask_processor:
    call .Lgpa
    mov ecx, MH_GHCB_GUEST_REQUEST
    lea r8, [rax + MH_PAGE_BYTES]
    lea r9, [rax + 2 * MH_PAGE_BYTES]

# ask_host(rsi: shared page for the GHCB, rcx: exit code, r8, r9: its two words). Keeps rsi, rbx.
.global ask_host
ask_host:
    push rcx
    call .Lgpa
    pop rcx
    mov dword ptr [rsi + mh_ghcb.usage], 0
    mov word ptr [rsi + mh_ghcb.protocol], MH_GHCB_PROTOCOL
    mov [rsi + mh_ghcb.exit_code], rcx
    mov [rsi + mh_ghcb.exit_info1], r8
    mov [rsi + mh_ghcb.exit_info2], r9
    mov rcx, 1 << (mh_ghcb.rax / 8)
    mov [rsi + mh_ghcb.valid], rcx
    mov rcx, 7 << (mh_ghcb.exit_code / 8 - 64)
    mov [rsi + mh_ghcb.valid + 8], rcx
    or rax, MH_GHCB_REGISTER
    call .Lexit
    and rax, -MH_PAGE_BYTES

# VMGEXIT with the MSR set to rax. Keeps rax.
.Lexit:
    mov ecx, MH_MSR_GHCB
    mov rdx, rax
    shr rdx, 32
    wrmsr
    rep vmmcall
    ret

# rax = the GPA of the shared page at rsi. Loses rcx, rdx.
#
# The descriptor says where the tables lie, C-bit included, and how far the rings are behind the header.
.Lgpa:
    lea rdx, [rip + linker.params]
    sub rdx, sizeof.mh_descriptor
    mov rax, (1 << MH_LOWEST_CBIT) - 1
    and rax, [rdx + mh_descriptor.cr3]
    lea rcx, [rip + linker.tables]
    sub rcx, rdx
    sub rax, rcx
    mov ecx, [rdx + mh_descriptor.ring_offset]
    add rax, rcx
    add rax, rsi
    sub rax, [rdx + sizeof.mh_descriptor + mh_params.ring_va]
    ret

.endif
