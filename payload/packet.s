# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Packets: made, fetched once, checked, sealed and opened. lane.packet is the private copy.

.include "vcpu.inc"

.extern copy64
.extern gcm_seal
.extern gcm_open

.text

# locate(eax: slot): the packet and the data at work lie there
.global locate
locate:
    imul ecx, eax, MH_PACKET_SLOT_BYTES
    add rcx, [r13 + lane.packets]
    mov [r13 + lane.slot_packet], rcx
    imul eax, eax, MH_PAGE_BYTES
    add rax, [r13 + lane.data]
    mov [r13 + lane.slot_data], rax
    ret

# seal_packet(eax: kind, ecx: length, rdx: the packet's address field, r9: its field for urgent packets, rsi: data,
# r8d: bytes of data)
#
# The sequence number is spent before anything is sealed with it.
.global seal_packet
seal_packet:
    lea rdi, [r13 + lane.packet]
    mov dword ptr [rdi + mh_packet.magic], MH_PACKET_MAGIC
    mov word ptr [rdi + mh_packet.version], MH_ABI_VERSION
    mov [rdi + mh_packet.kind], ax
    mov [rdi + mh_packet.length], ecx
    mov eax, [r13 + lane.stream]
    mov [rdi + mh_packet.stream], eax
    mov rax, [r13 + lane.sequence]
    mov [rdi + mh_packet.sequence], rax
    inc rax
    mov [r13 + lane.sequence], rax
    mov [rdi + mh_packet.address], rdx
    mov eax, [r12 + vcpu.epoch]
    mov [rdi + mh_packet.epoch], eax
    mov dword ptr [rdi + mh_packet.reserved], 0
    mov [rdi + mh_packet.urgent], r9
    movdqu xmm0, [r12 + vcpu.session]
    movdqu [rdi + mh_packet.session], xmm0
    mov ecx, r8d
    mov rdx, [r13 + lane.slot_data]
    call describe
    call gcm_seal

    mov rdi, [r13 + lane.slot_packet]
    lea rsi, [r13 + lane.packet]
    jmp copy_packet

# fetch_packet(): the only read of the packet in the ring
.global fetch_packet
fetch_packet:
    lea rdi, [r13 + lane.packet]
    mov rsi, [r13 + lane.slot_packet]
copy_packet:
    call copy64
    movdqu xmm0, [rsi + MH_PACKET_AAD_BYTES]
    movdqu [rdi + MH_PACKET_AAD_BYTES], xmm0
    ret

# check_packet(eax: kind, ecx: length) -> eax: status
.global check_packet
check_packet:
    lea rdi, [r13 + lane.packet]
    cmp dword ptr [rdi + mh_packet.magic], MH_PACKET_MAGIC
    jne .Lbad_packet
    cmp word ptr [rdi + mh_packet.version], MH_ABI_VERSION
    jne .Lbad_packet
    cmp [rdi + mh_packet.kind], ax
    jne .Lbad_packet
    cmp [rdi + mh_packet.length], ecx
    jne .Lbad_packet
    cmp dword ptr [rdi + mh_packet.reserved], 0
    jne .Lbad_packet
    # Only packets without memory say something about the urgent lane.
    test ecx, ecx
    jz 1f
    cmp qword ptr [rdi + mh_packet.urgent], 0
    jne .Lbad_packet
1:  movdqu xmm0, [rdi + mh_packet.session]
    movdqu xmm1, [r12 + vcpu.session]
    pxor xmm0, xmm1
    ptest xmm0, xmm0
    jnz .Lwrong_session
    mov eax, [rdi + mh_packet.stream]
    cmp eax, [r13 + lane.stream]
    jne .Lwrong_stream
    mov eax, MH_DONE
    ret
.Lbad_packet:
    mov eax, MH_BAD_PACKET
    ret
.Lwrong_session:
    mov eax, MH_WRONG_SESSION
    ret
.Lwrong_stream:
    mov eax, MH_WRONG_STREAM
    ret

# check_turn() -> eax: status. Packets come in the order in which they were made.
.global check_turn
check_turn:
    mov eax, [r12 + vcpu.epoch]
    cmp [r13 + lane.packet + mh_packet.epoch], eax
    jne .Lwrong_epoch
    mov rax, [r13 + lane.packet + mh_packet.sequence]
    cmp rax, [r13 + lane.sequence]
    jb .Lreplayed
    ja .Lout_of_order
    mov eax, MH_DONE
    ret
.Lwrong_epoch:
    mov eax, MH_WRONG_EPOCH
    ret
.Lreplayed:
    mov eax, MH_REPLAYED
    ret
.Lout_of_order:
    mov eax, MH_OUT_OF_ORDER
    ret

# open_packet(ecx: bytes of data) -> eax: status; the data is in vcpu.bounce
.global open_packet
open_packet:
    cmp rcx, [r12 + vcpu.bounce_used]
    jbe 1f
    mov [r12 + vcpu.bounce_used], rcx
1:  lea rdx, [r12 + vcpu.bounce]
    mov rsi, [r13 + lane.slot_data]
    call describe
    mov rax, [rsi + gcm_job.destination]
    mov [rsi + gcm_job.scratch], rax
    rdrand rcx
    rdrand rdx
    movq xmm0, rcx
    pinsrq xmm0, rdx, 1
    call gcm_open
    test eax, eax
    jnz .Lbad_tag
    inc qword ptr [r13 + lane.sequence]
    mov eax, MH_DONE
    ret
.Lbad_tag:
    mov eax, MH_BAD_TAG
    ret

# The job for lane.packet: rsi source, rdx destination, ecx bytes -> rdi key, rsi job
describe:
    lea r8, [r13 + lane.packet]
    lea rdi, [r13 + lane.job]
    lea rax, [r8 + MH_PACKET_IV_OFFSET]
    mov [rdi + gcm_job.iv], rax
    mov [rdi + gcm_job.aad], r8
    mov qword ptr [rdi + gcm_job.aad_bytes], MH_PACKET_AAD_BYTES
    mov [rdi + gcm_job.source], rsi
    mov [rdi + gcm_job.destination], rdx
    mov [rdi + gcm_job.bytes], rcx
    lea rax, [r8 + mh_packet.tag]
    mov [rdi + gcm_job.tag], rax
    mov rsi, rdi
    lea rdi, [r13 + lane.page_key]
    ret
