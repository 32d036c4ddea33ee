# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# What an SNP guest's helper asks of the secure processor: a message under VMPCK0, and the answer to it. attest.h has the formats.
#
# The number of a message, and that of its answer, are spent before it is sealed: so no two have the same, whatever becomes of a
# vCPU. The host carries both; of what it says itself nothing is read.

.ifdef MH_START_SNP

.include "vcpu.inc"
.include "message.inc"

.extern ask_processor
.extern gcm_key_init
.extern gcm_open
.extern gcm_seal
.extern linker.snp_secrets

# In lane.packet: the additional data of a message, then its IV.
.equ sealed.aad, 0
.equ AAD_BYTES, sizeof.mh_message - mh_message.algorithm
.equ sealed.iv, AAD_BYTES

.text

# take_vmpck(): vcpu.message_key is that of VMPCK0; the zero flag is set if there is none any more.
.global take_vmpck
take_vmpck:
    movdqu xmm0, [rip + linker.snp_secrets + mh_secrets_page.vmpck0]
    movdqu xmm1, [rip + linker.snp_secrets + mh_secrets_page.vmpck0 + 16]
    por xmm0, xmm1
    ptest xmm0, xmm0
    jz 1f
    lea rsi, [rip + linker.snp_secrets + mh_secrets_page.vmpck0]
# message_key_init(rsi: a key of 32 bytes): vcpu.message_key is that of this key. The zero flag is clear.
.global message_key_init
message_key_init:
    lea rdi, [r12 + vcpu.message_key]
    call gcm_key_init
    mov eax, [r12 + vcpu.features]
    mov [r12 + vcpu.message_key + gcm_key.features], eax
    or eax, 1
1:  ret

# wipe_vmpcks(): all four. Keeps eax.
.global wipe_vmpcks
wipe_vmpcks:
    lea rdi, [rip + linker.snp_secrets + mh_secrets_page.vmpck0]
    mov ecx, MH_VMPCKS_BYTES
# wipe_keys(rdi, ecx: bytes). Keeps eax.
.global wipe_keys
wipe_keys:
    mov edx, eax
    xor eax, eax
    rep stosb
    mov eax, edx
    ret

# consult(rdx: the first 8 bytes of the request's additional data, rcx: of the response's, rsi: what is asked) -> eax: GCM_DONE if the
# answer is in vcpu.message, which is as it was otherwise. The messages go through the three data pages behind that of the slot.
.global consult
consult:
    push rcx
    mov eax, [rip + linker.snp_secrets + mh_secrets_page.messages0]
    add dword ptr [rip + linker.snp_secrets + mh_secrets_page.messages0], 2
    inc eax
    mov rcx, rdx
    call describe_message
    mov rdi, [r13 + lane.slot_data]
    add rdi, 2 * MH_PAGE_BYTES
    pxor xmm0, xmm0
    movdqu [rdi + mh_message.tag + 16], xmm0
    movdqu [rdi + mh_message.sequence], xmm0
    mov [rdi + mh_message.sequence], rax
.irp offset, 0, 16, 32
    movdqu xmm0, [r13 + lane.packet + sealed.aad + \offset]
    movdqu [rdi + mh_message.algorithm + \offset], xmm0
.endr
    lea rdx, [rdi + sizeof.mh_message]
    shr rcx, MESSAGE_BYTES_SHIFT
    mov rax, rdi
    call describe_message_job
    call gcm_seal
    mov rsi, [r13 + lane.slot_data]
    add rsi, MH_PAGE_BYTES
    call ask_processor
    pop rdx
    mov rcx, rdx
    mov rax, [r13 + lane.packet + sealed.iv]
    inc rax
    call describe_message
    mov rax, [r13 + lane.slot_data]
    add rax, 3 * MH_PAGE_BYTES
    lea rsi, [rax + sizeof.mh_message]
    lea rdx, [r12 + vcpu.message]
    shr rcx, MESSAGE_BYTES_SHIFT
    call describe_message_job
    movdqu xmm0, [r12 + vcpu.derived + drawn.mask]
    jmp gcm_open

# describe_message(rax: number, rdx: the first 8 bytes of the additional data): both to lane.packet. Keeps rax, rcx.
describe_message:
    mov [r13 + lane.packet + sealed.aad], rdx
    xor edx, edx
.irp offset, 8, 16, 24, 32, 40
    mov [r13 + lane.packet + sealed.aad + \offset], rdx
.endr
# describe_iv(rax: its first 8 bytes). Keeps rax, rcx.
.global describe_iv
describe_iv:
    mov [r13 + lane.packet + sealed.iv], rax
    mov qword ptr [r13 + lane.packet + sealed.iv + 8], 0
    ret

# describe_message_job(rsi: source, rdx: destination, rcx: bytes, rax: tag) -> rdi: vcpu.message_key, rsi: job, for what lane.packet
# describes.
.global describe_message_job
describe_message_job:
    lea rdi, [r13 + lane.job]
    mov [rdi + gcm_job.source], rsi
    mov [rdi + gcm_job.destination], rdx
    mov [rdi + gcm_job.bytes], rcx
    mov [rdi + gcm_job.tag], rax
    lea rax, [r13 + lane.packet + sealed.iv]
    mov [rdi + gcm_job.iv], rax
    lea rax, [r13 + lane.packet + sealed.aad]
    mov [rdi + gcm_job.aad], rax
    mov qword ptr [rdi + gcm_job.aad_bytes], AAD_BYTES
    lea rax, [r12 + vcpu.scratch]
    mov [rdi + gcm_job.scratch], rax
    mov rsi, rdi
    lea rdi, [r12 + vcpu.message_key]
    ret

.endif
