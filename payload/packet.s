# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Packets: made, fetched once, checked, sealed and opened. state_packet is the private copy.

.include "state.inc"
.include "gcm.inc"

.extern copy64
.extern gcm_seal
.extern gcm_open

.text

# locate(eax: slot): the packet and the data at work lie there
.global locate
locate:
    mov rdx, [rip + linker.params + mh_params.ring_va]
    mov ecx, eax
    imul ecx, ecx, MH_PACKET_SLOT_BYTES
    lea rcx, [rdx + rcx + MH_RING_PACKETS]
    mov [rip + state_slot_packet], rcx
    imul eax, eax, MH_PAGE_BYTES
    lea rax, [rdx + rax + MH_RING_DATA]
    mov [rip + state_slot_data], rax
    ret

# seal_packet(eax: kind, ecx: length, rdx: the packet's address field, rsi: data, r8d: bytes of data)
#
# The sequence number is spent before anything is sealed with it.
.global seal_packet
seal_packet:
    lea rdi, [rip + state_packet]
    mov dword ptr [rdi + mh_packet.magic], MH_PACKET_MAGIC
    mov word ptr [rdi + mh_packet.version], MH_ABI_VERSION
    mov [rdi + mh_packet.kind], ax
    mov [rdi + mh_packet.length], ecx
    mov dword ptr [rdi + mh_packet.stream], 0
    mov rax, [rip + state_sequence]
    mov [rdi + mh_packet.sequence], rax
    inc rax
    mov [rip + state_sequence], rax
    mov [rdi + mh_packet.address], rdx
    mov eax, [rip + state_epoch]
    mov [rdi + mh_packet.epoch], eax
    mov dword ptr [rdi + mh_packet.reserved0], 0
    mov qword ptr [rdi + mh_packet.reserved1], 0
    movdqu xmm0, [rip + state_session]
    movdqu [rdi + mh_packet.session], xmm0
    mov ecx, r8d
    mov rdx, [rip + state_slot_data]
    call describe
    call gcm_seal

    mov rdi, [rip + state_slot_packet]
    lea rsi, [rip + state_packet]
    jmp copy_packet

# fetch_packet(): the only read of the packet in the ring
.global fetch_packet
fetch_packet:
    lea rdi, [rip + state_packet]
    mov rsi, [rip + state_slot_packet]
copy_packet:
    call copy64
    movdqu xmm0, [rsi + MH_PACKET_AAD_BYTES]
    movdqu [rdi + MH_PACKET_AAD_BYTES], xmm0
    ret

# check_packet(eax: kind, ecx: length) -> eax: status
.global check_packet
check_packet:
    lea rdi, [rip + state_packet]
    cmp dword ptr [rdi + mh_packet.magic], MH_PACKET_MAGIC
    jne .Lbad_packet
    cmp word ptr [rdi + mh_packet.version], MH_ABI_VERSION
    jne .Lbad_packet
    cmp [rdi + mh_packet.kind], ax
    jne .Lbad_packet
    cmp [rdi + mh_packet.length], ecx
    jne .Lbad_packet
    mov eax, [rdi + mh_packet.stream]
    or eax, [rdi + mh_packet.reserved0]
    jnz .Lbad_packet
    cmp qword ptr [rdi + mh_packet.reserved1], 0
    jne .Lbad_packet
    movdqu xmm0, [rdi + mh_packet.session]
    movdqu xmm1, [rip + state_session]
    pxor xmm0, xmm1
    ptest xmm0, xmm0
    jnz .Lwrong_session
    mov eax, MH_DONE
    ret
.Lbad_packet:
    mov eax, MH_BAD_PACKET
    ret
.Lwrong_session:
    mov eax, MH_WRONG_SESSION
    ret

# check_turn() -> eax: status. Packets come in the order in which they were made.
.global check_turn
check_turn:
    mov eax, [rip + state_epoch]
    cmp [rip + state_packet + mh_packet.epoch], eax
    jne .Lwrong_epoch
    mov rax, [rip + state_packet + mh_packet.sequence]
    cmp rax, [rip + state_sequence]
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

# open_packet(ecx: bytes of data) -> eax: status; the data is in state_bounce
.global open_packet
open_packet:
    cmp rcx, [rip + state_bounce_used]
    jbe 1f
    mov [rip + state_bounce_used], rcx
1:  lea rdx, [rip + state_bounce]
    mov rsi, [rip + state_slot_data]
    call describe
    call gcm_open
    test eax, eax
    jnz .Lbad_tag
    inc qword ptr [rip + state_sequence]
    mov eax, MH_DONE
    ret
.Lbad_tag:
    mov eax, MH_BAD_TAG
    ret

# The job for state_packet: rsi source, rdx destination, ecx bytes -> rdi key, rsi job
describe:
    lea r8, [rip + state_packet]
    lea rdi, [rip + state_job]
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
    lea rdi, [rip + state_page_key]
    ret
