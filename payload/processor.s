# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The way to the secure processor: the host carries a message there, and an answer back. It is asked by a GHCB, and nothing
# that it says there is read: what counts is whether the answer opens.

.ifdef MH_START_SNP

.include "vcpu.inc"

.extern linker.tables

.text

# ask_processor(rsi: three shared pages: GHCB, request, response). Keeps rsi, rbx.
.global ask_processor
ask_processor:
    call .Lgpa
    mov dword ptr [rsi + mh_ghcb.usage], 0
    mov word ptr [rsi + mh_ghcb.protocol], MH_GHCB_PROTOCOL
    mov ecx, MH_GHCB_GUEST_REQUEST
    mov [rsi + mh_ghcb.exit_code], rcx
    lea rcx, [rax + MH_PAGE_BYTES]
    mov [rsi + mh_ghcb.exit_info1], rcx
    add rcx, MH_PAGE_BYTES
    mov [rsi + mh_ghcb.exit_info2], rcx
    mov rcx, 7 << (mh_ghcb.exit_code / 8 - 64)
    mov qword ptr [rsi + mh_ghcb.valid], 0
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
