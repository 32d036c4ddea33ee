# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Export, import, share: a batch is a loop over chunks, each with its own status; nothing of one depends on the
# host's view of another. Between two chunks of a batch the urgent lane is served. The first wrong tag ends the session:
# a forgery costs one, and what a host can learn from it is that.
#
# README.md has what r14d, r15, ebx and ebp hold.

.include "vcpu.inc"

.extern abort
.ifdef MH_START_SNP
.extern admit
.extern lend
.extern take_back
.endif
.extern attend
.extern check_address
.extern check_packet
.extern check_turn
.extern claim
.extern describe_packet
.extern draw
.extern give_back
.extern locate
.extern mark_private
.extern mark_shared
.extern open_packet
.extern page_number
.extern seal_packet
.extern serve_urgent

.text

# move_batch() -> eax: status. dispatch has checked slot, count, chunk and flags.
.global move_batch
move_batch:
    call needs_phase
    jne .Lwrong_state
    cmp word ptr [r13 + lane.op], MH_OP_SHARE
    je .Lbegin
    cmp dword ptr [r12 + vcpu.ended], 0
    jne .Lpending
    cmp dword ptr [r12 + vcpu.strict], 0
    je .Lbegin
    cmp word ptr [r13 + lane.chunk], 1
    jne .Lnot_strict
.Lbegin:
    push rbx
    push rbp
    push r14
    push r15
    xor r14d, r14d
    mov [r13 + lane.done], r14
    cmp word ptr [r13 + lane.op], MH_OP_IMPORT
    jne .Lchunk
    call draw
    test eax, eax
    jnz .Lrest
.Lchunk:
    call remaining
    movzx ecx, word ptr [r13 + lane.chunk]
    cmp ebx, ecx
    cmova ebx, ecx
    call move_chunk
    call record
    add [r13 + lane.done], rbx
    test r14d, r14d
    cmovz r14d, eax
    # What follows in the stream cannot be taken without this chunk; an export goes on.
    test eax, eax
    jz .Lnext
    cmp word ptr [r13 + lane.op], MH_OP_IMPORT
    mov eax, MH_SKIPPED
    je .Lrest
.Lnext:
    call remaining
    jz .Ldone
    call overtake
    call needs_phase
    je .Lchunk
    mov eax, MH_ENDED
.Lrest:
    mov ecx, eax
    call remaining
    jz .Ldone
    mov eax, ecx
    test r14d, r14d
    cmovz r14d, eax
    call record
.Ldone:
    mov eax, r14d
    pop r15
    pop r14
    pop rbp
    pop rbx
    ret
.Lwrong_state:
    mov eax, MH_WRONG_STATE
    ret
.Lpending:
    mov eax, MH_EPOCH_PENDING
    ret
.Lnot_strict:
    mov eax, MH_NOT_STRICT
    ret

# needs_phase(): zero flag set if this ring is in the phase that the op is for. It may be lost between chunks.
needs_phase:
    movzx eax, word ptr [r13 + lane.op]
    mov ecx, PHASE_TARGET
    cmp eax, MH_OP_IMPORT
    je 1f
    mov ecx, PHASE_SOURCE
    cmp eax, MH_OP_EXPORT
    je 1f
    cmp eax, eax
    ret
1:  cmp [r12 + vcpu.phase], ecx
    ret

# remaining() -> ebx: pages of the batch that are left, ebp: the first one's slot; zero flag set if there are none.
# Keeps eax, ecx.
remaining:
    movzx ebx, word ptr [r13 + lane.count]
    movzx ebp, word ptr [r13 + lane.slot]
    add ebp, [r13 + lane.done]
    sub ebx, [r13 + lane.done]
    ret

# overtake(): between two chunks.
overtake:
    test dword ptr [r13 + lane.stream], MH_STREAM_URGENT
    jnz attend
    call serve_urgent
    jmp attend

# record(eax: status): the results of ebx pages from slot ebp. Keeps eax.
record:
    mov ecx, eax
    cmp word ptr [r13 + lane.op], MH_OP_SHARE
    je 1f
    test eax, eax
    jnz 1f
    movzx ecx, word ptr [r13 + lane.packet + mh_packet.kind]
    shl ecx, 16
1:  mov rdi, [r13 + lane.results]
    lea rdi, [rdi + rbp * 8]
    mov edx, ebx
2:  mov [rdi], rcx
    add rdi, sizeof.mh_result
    dec edx
    jnz 2b
    ret

# move_chunk() -> eax: status
move_chunk:
    call chunk_address
    jc .Lwrapped
    mov rdi, rax
    call check_run
    test eax, eax               # survives dropped: check_run leaves the same zero flag
    jnz .Lrefused
    mov r15, rdx
    mov [r13 + lane.address], rdi
    call page_number
    mov [r13 + lane.page], rax
    mov rsi, rax
    mov ecx, ebx
    cmp word ptr [r13 + lane.op], MH_OP_SHARE
    je share_chunk
    call claim
    test eax, eax
    jnz .Lrefused
    mov eax, ebp
    call locate
    cmp word ptr [r13 + lane.op], MH_OP_EXPORT
    je .Lexport
    call import_chunk
    test eax, eax
    jz .Lrefused
.Lundo:
    push rax
    mov rsi, [r13 + lane.page]
    mov ecx, ebx
    call give_back
    # The bits first: when the session has ended, they may be those of the next one.
    cmp dword ptr [rsp], MH_BAD_TAG
    je .Lover
    cmp dword ptr [rsp], MH_NO_KEY
    jne .Lundone
.Lover:
    call abort
.Lundone:
    pop rax
    ret
.Lexport:
    call export_chunk
    test eax, eax
    jnz .Lundo
    ret
.Lwrapped:
    mov eax, MH_OUT_OF_RANGE
.Lrefused:
    ret

share_chunk:
    test word ptr [r13 + lane.flags], MH_BATCH_PRIVATE
    jnz 1f
    call mark_shared
    mov eax, MH_DONE
    ret
1:  call mark_private
.ifdef MH_START_SNP
    jmp lend
.else
    mov eax, MH_DONE
    ret
.endif

# chunk_address() -> rax: request address of the chunk; carry set if it wraps. A list entry is read once.
chunk_address:
    test word ptr [r13 + lane.flags], MH_BATCH_LIST
    jnz .Llisted
    mov rax, [r13 + lane.done]
    shl rax, 12
    add rax, [r13 + lane.start]
    ret
.Llisted:
    mov rax, [r13 + lane.list]
    mov rax, [rax + rbp * 8]
    clc
    ret

# check_run(rdi: address) -> eax: status of the first of ebx pages that must not be moved, rdx: virtual
# address of the first. The first page is below the limit, so no later address wraps. Keeps rdi if all may be.
check_run:
    call check_address
    test eax, eax
    jnz 2f                      # an address of the host's own choice: not even on the stack
    push rbx
    push rdi
    push rdx
.Lpage:
    dec ebx
    jz 1f
    add rdi, MH_PAGE_BYTES
    call check_address
    test eax, eax
    jz .Lpage
1:  pop rdx
    pop rdi
    pop rbx
2:  ret

# export_chunk() -> eax: status
export_chunk:
.ifdef MH_START_SNP
    call take_back
.endif
    mov eax, MH_KIND_VMSA
    test word ptr [r13 + lane.flags], MH_BATCH_VMSA
    jnz .Lseal
    call scan
    mov edx, MH_KIND_PAGE
    test eax, eax
    mov eax, MH_KIND_ZERO
    cmovnz eax, edx
.Lseal:
    call describe_chunk
    mov rsi, r15
    mov r8d, ecx
    call seal_packet
    test eax, eax
    jz moved
    ret

# describe_chunk(eax: kind) -> ecx: bytes of data. The packet of the chunk at work.
describe_chunk:
    mov ecx, ebx
    shl ecx, 12
    mov rdx, [r13 + lane.address]
    xor r9d, r9d
    push rax
    call describe_packet
    pop rax
    xor edx, edx
    cmp eax, MH_KIND_ZERO
    cmove ecx, edx
    ret

# scan(r15: virtual address, ebx: pages) -> eax: not zero if any byte is not. It looks at every byte, whatever it finds: when
# it ends tells nothing. Keeps rdi.
.global scan
scan:
    mov rsi, r15
    mov ecx, ebx
    shl ecx, 6
    pxor xmm0, xmm0
    pxor xmm1, xmm1
1:  movdqu xmm2, [rsi]
    movdqu xmm3, [rsi + 16]
    movdqu xmm4, [rsi + 32]
    movdqu xmm5, [rsi + 48]
    por xmm0, xmm2
    por xmm1, xmm3
    por xmm0, xmm4
    por xmm1, xmm5
    add rsi, 64
    dec ecx
    jnz 1b
    por xmm0, xmm1
    xor eax, eax
    ptest xmm0, xmm0
    setnz al
    pxor xmm0, xmm0
    pxor xmm1, xmm1
    pxor xmm2, xmm2
    pxor xmm3, xmm3
    pxor xmm4, xmm4
    pxor xmm5, xmm5
    ret

# import_chunk() -> eax: status. Nothing of the memory changes before the tag is verified.
import_chunk:
    call expected_kind
    test eax, eax
    jz .Lbad_packet
    call describe_chunk
    push rcx
    call check_chunk
    pop rcx
    test eax, eax               # survives dropped: check_chunk leaves the same zero flag
    jnz .Limport_refused
.ifdef MH_START_SNP
    push rcx
    call admit
    pop rcx
    jnz .Limport_refused
.endif
    mov rdx, r15
    call open_packet
    test eax, eax
    jnz .Limport_refused
    cmp word ptr [r13 + lane.packet + mh_packet.kind], MH_KIND_ZERO
    jne .Lwhole
    mov rdi, r15
    mov ecx, ebx
    shl ecx, 9
    rep stosq
.Lwhole:
.ifdef MH_START_SNP
    test word ptr [r13 + lane.flags], MH_BATCH_VMSA
    jnz moved
    call lend
.endif
moved:
    mov eax, ebx
    add [r12 + vcpu.pages], rax
    add [r12 + vcpu.epoch_pages], rax
    mov eax, MH_DONE
    ret
.Lbad_packet:
    mov eax, MH_BAD_PACKET
.Limport_refused:
    ret

# expected_kind() -> eax: the packet's kind: that of a VMSA where VMSAs are asked for, one of RAM elsewhere; 0 for any other.
expected_kind:
    mov rsi, [r13 + lane.slot_packet]
    movzx ecx, word ptr [rsi + mh_packet.kind]
    xor eax, eax
    test word ptr [r13 + lane.flags], MH_BATCH_VMSA
    jnz 1f
    cmp ecx, MH_KIND_PAGE
    cmove eax, ecx
    cmp ecx, MH_KIND_ZERO
    cmove eax, ecx
    ret
1:  cmp ecx, MH_KIND_VMSA
    cmove eax, ecx
    ret

# check_chunk() -> eax: status. The packet in the ring must be the one that describe_chunk has described.
check_chunk:
    mov rsi, [r13 + lane.slot_packet]
    mov rax, [rsi + mh_packet.urgent]
    test rax, rax
    jnz .Lbad_packet
    call check_packet
    test eax, eax               # survives dropped: check_packet leaves the same zero flag
    jnz 1f
    mov rax, [rsi + mh_packet.address]
    cmp rax, [r13 + lane.address]
    je check_turn
    mov eax, MH_WRONG_ADDRESS
1:  ret
