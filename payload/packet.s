# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Packets: described, sealed, checked and opened. lane.packet is a header of our own making: a packet that comes in is
# compared with it, so nothing that the host has written there comes into private memory.

.include "vcpu.inc"

.extern begin_authenticator
.extern copy64
.extern end_authenticator
.extern fresh_mask
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

# describe_packet(eax: kind, ecx: length, rdx: the packet's address field, r9: its field for urgent packets): the header of
# the stream's next packet, as we would make it. Keeps rcx, rsi, r8.
.global describe_packet
describe_packet:
    lea rdi, [r13 + lane.packet]
    mov dword ptr [rdi + mh_packet.magic], MH_PACKET_MAGIC
    mov [rdi + mh_packet.kind], ax
    mov eax, [r12 + vcpu.protocol]
    mov [rdi + mh_packet.version], ax
    mov [rdi + mh_packet.length], ecx
    mov eax, [r13 + lane.stream]
    mov [rdi + mh_packet.stream], eax
    mov rax, [r13 + lane.sequence]
    mov [rdi + mh_packet.sequence], rax
    mov [rdi + mh_packet.address], rdx
    mov eax, [r12 + vcpu.epoch]
    mov [rdi + mh_packet.epoch], eax
    mov dword ptr [rdi + mh_packet.reserved], 0
    mov [rdi + mh_packet.urgent], r9
    movdqu xmm0, [r12 + vcpu.session]
    movdqu [rdi + mh_packet.session], xmm0
    ret

# seal_packet(rsi: data, r8d: bytes of data) -> eax: status. Seals what describe_packet has described.
#
# The sequence number is spent before anything is sealed with it.
.global seal_packet
seal_packet:
    inc qword ptr [r13 + lane.sequence]
    mov ecx, r8d
    mov rdx, [r13 + lane.slot_data]
    lea rdi, [r13 + lane.job]
    call describe_job
    call authenticated
    jz 1f
    call begin_authenticator
1:  lea rdi, [r13 + lane.page_key]
    call gcm_seal
    test eax, eax
    jnz .Lno_key
    call authenticated
    jz 2f
    call end_authenticator
2:  mov rdi, [r13 + lane.slot_packet]
    lea rsi, [r13 + lane.packet]
    call copy64
    mov eax, MH_DONE
    ret
.Lno_key:                        # open_packet's too
    mov eax, MH_NO_KEY
    ret

# authenticated(): zero flag clear if the packet's memory has an authenticator. Keeps all but rax.
authenticated:
    xor eax, eax
    cmp eax, [r13 + lane.packet + mh_packet.length]
    je 1f
    cmp eax, [r12 + vcpu.strict]
1:  ret

# check_packet() -> eax: status. The packet in the ring must have the header that describe_packet has described, but for its
# kind, address and field for urgent packets, at which the caller looks. Each field is read once, and none is kept.
.global check_packet
check_packet:
    lea rdi, [r13 + lane.packet]
    mov rsi, [r13 + lane.slot_packet]
    mov eax, [rsi + mh_packet.magic]
    cmp eax, [rdi + mh_packet.magic]
    jne .Lbad_packet
    movzx eax, word ptr [rsi + mh_packet.version]
    cmp ax, [rdi + mh_packet.version]
    jne .Lbad_packet
    mov eax, [rsi + mh_packet.length]
    cmp eax, [rdi + mh_packet.length]
    jne .Lbad_packet
    mov eax, [rsi + mh_packet.reserved]
    test eax, eax
    jnz .Lbad_packet
    movdqu xmm0, [rsi + mh_packet.session]
    movdqu xmm1, [rdi + mh_packet.session]
    pxor xmm0, xmm1
    ptest xmm0, xmm0
    jnz .Lwrong_session
    mov eax, [rsi + mh_packet.stream]
    cmp eax, [rdi + mh_packet.stream]
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

# check_turn() -> eax: status. Packets come in the order in which they were made. As check_packet for epoch and sequence.
.global check_turn
check_turn:
    lea rdi, [r13 + lane.packet]
    mov rsi, [r13 + lane.slot_packet]
    mov eax, [rsi + mh_packet.epoch]
    cmp eax, [rdi + mh_packet.epoch]
    jne .Lwrong_epoch
    mov rax, [rsi + mh_packet.sequence]
    cmp rax, [rdi + mh_packet.sequence]
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

# open_packet(rdx: destination, ecx: bytes of data) -> eax: status. Opens what describe_packet has described; the destination is
# written only when the tag is right.
.global open_packet
open_packet:
    mov rsi, [r13 + lane.slot_data]
    lea rdi, [r13 + lane.opening]
    call describe_job
    push rsi
    call fresh_mask
    pop rsi
    lea rdi, [r13 + lane.page_key]
    call gcm_open
    cmp eax, 1
    je .Lbad_tag
    ja .Lno_key
    inc qword ptr [r13 + lane.sequence]
    mov eax, MH_DONE
    ret
.Lbad_tag:
    mov eax, MH_BAD_TAG
    ret

# The job at rdi for lane.packet: rsi source, rdx destination, ecx bytes -> rdi key, rsi job. The tag has its place in the ring.
describe_job:
    lea r8, [r13 + lane.packet]
    lea rax, [r8 + MH_PACKET_IV_OFFSET]
    mov [rdi + gcm_job.iv], rax
    mov [rdi + gcm_job.aad], r8
    mov qword ptr [rdi + gcm_job.aad_bytes], MH_PACKET_AAD_BYTES
    mov [rdi + gcm_job.source], rsi
    mov [rdi + gcm_job.destination], rdx
    mov [rdi + gcm_job.bytes], rcx
    mov rax, [r13 + lane.slot_packet]
    add rax, mh_packet.tag
    mov [rdi + gcm_job.tag], rax
    lea rax, [r12 + vcpu.scratch]
    mov [rdi + gcm_job.scratch], rax
    mov rsi, rdi
    lea rdi, [r13 + lane.page_key]
    ret
