# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Export and import: a batch is a loop over chunks, each with its own status; nothing of one depends on the
# host's view of another.
#
# r13d pages of the batch that are done with, r14d the first status that is not MH_DONE, r15 virtual address
# of the chunk, ebx its pages, ebp its first slot.

.include "state.inc"

.extern bitmap_set
.extern bitmap_test
.extern check_address
.extern check_packet
.extern check_turn
.extern fetch_packet
.extern locate
.extern open_packet
.extern seal_packet

.text

# move_batch() -> eax: status. dispatch has checked slot, count, chunk and flags.
.global move_batch
move_batch:
    movzx eax, word ptr [rip + state_entry + mh_submission.op]
    mov ecx, PHASE_SOURCE
    mov edx, PHASE_TARGET
    cmp eax, MH_OP_EXPORT
    cmovne ecx, edx
    cmp [rip + state_phase], ecx
    jne .Lwrong_state
    push rbx
    push rbp
    push r13
    push r14
    push r15
    xor r13d, r13d
    xor r14d, r14d
.Lchunk:
    movzx eax, word ptr [rip + state_entry + mh_submission.count]
    sub eax, r13d
    jz .Ldone
    movzx ebx, word ptr [rip + state_entry + mh_submission.chunk]
    cmp ebx, eax
    cmova ebx, eax
    movzx ebp, word ptr [rip + state_entry + mh_submission.slot]
    add ebp, r13d
    call move_chunk
    call record
    add r13d, ebx
    test r14d, r14d
    cmovz r14d, eax
    test eax, eax
    jz .Lchunk
    # What follows in the stream cannot be taken without this chunk; an export goes on.
    cmp word ptr [rip + state_entry + mh_submission.op], MH_OP_EXPORT
    je .Lchunk
    movzx ebx, word ptr [rip + state_entry + mh_submission.count]
    sub ebx, r13d
    jz .Ldone
    movzx ebp, word ptr [rip + state_entry + mh_submission.slot]
    add ebp, r13d
    mov eax, MH_SKIPPED
    call record
.Ldone:
    mov eax, r14d
    pop r15
    pop r14
    pop r13
    pop rbp
    pop rbx
    ret
.Lwrong_state:
    mov eax, MH_WRONG_STATE
    ret

# record(eax: status): the results of ebx pages from slot ebp. Keeps eax.
record:
    mov ecx, eax
    test eax, eax
    jnz 1f
    movzx ecx, word ptr [rip + state_packet + mh_packet.kind]
    shl ecx, 16
1:  lea rdi, [r12 + rbp * 8 + MH_RING_RESULTS]
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
    test eax, eax
    jnz .Lrefused
    mov r15, rdx
    push rdi
    mov eax, ebp
    call locate
    pop rdi
    cmp word ptr [rip + state_entry + mh_submission.op], MH_OP_EXPORT
    jne import_chunk
    jmp export_chunk
.Lwrapped:
    mov eax, MH_OUT_OF_RANGE
.Lrefused:
    ret

# chunk_address() -> rax: request address of the chunk; carry set if it wraps. A list entry is read once.
chunk_address:
    test word ptr [rip + state_entry + mh_submission.flags], MH_BATCH_LIST
    jnz .Llisted
    mov eax, r13d
    shl rax, 12
    add rax, [rip + state_entry + mh_submission.address]
    ret
.Llisted:
    mov rax, [r12 + rbp * 8 + MH_RING_LIST]
    clc
    ret

# check_run(rdi: address) -> eax: status of the first of ebx pages that must not be moved, rdx: virtual
# address of the first. Keeps rdi. The first page is below ram_limit, so no later address wraps.
check_run:
    push rdi
    push rbx
    call check_address
    push rdx
.Lpage:
    test eax, eax
    jnz .Lrun_done
    dec ebx
    jz .Lrun_clear
    add rdi, MH_PAGE_BYTES
    call check_address
    jmp .Lpage
.Lrun_clear:
    mov rdi, [rsp + 16]
    mov rcx, [rsp + 8]
    call bitmap_test
.Lrun_done:
    pop rdx
    pop rbx
    pop rdi
    ret

# rdi: address; r15, ebx as above
export_chunk:
    push rdi
    call scan
    mov ecx, ebx
    shl ecx, 12
    mov r8d, ecx
    mov edx, MH_KIND_PAGE
    test eax, eax
    mov eax, MH_KIND_ZERO
    cmovnz eax, edx
    jnz 1f
    xor r8d, r8d
1:  mov rdx, [rsp]
    mov rsi, r15
    call seal_packet
    jmp moved

# scan() -> eax: not zero if any byte of the chunk is not. It looks at every byte, whatever it finds: when it
# ends tells nothing.
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

# Nothing of the memory changes before the tag is verified.
import_chunk:
    push rdi
    call fetch_packet
    mov ecx, ebx
    shl ecx, 12
    mov edx, MH_KIND_ZERO
    mov eax, MH_KIND_PAGE
    cmp word ptr [rip + state_packet + mh_packet.kind], dx
    cmove eax, edx
    call check_packet
    test eax, eax
    jnz .Limport_refused
    mov rax, [rip + state_packet + mh_packet.address]
    cmp rax, [rsp]
    jne .Lwrong_address
    call check_turn
    test eax, eax
    jnz .Limport_refused
    mov ecx, ebx
    shl ecx, 12
    xor eax, eax
    cmp word ptr [rip + state_packet + mh_packet.kind], MH_KIND_ZERO
    cmove ecx, eax
    call open_packet
    test eax, eax
    jnz .Limport_refused
    mov rdi, r15
    mov ecx, ebx
    shl ecx, 9
    cmp word ptr [rip + state_packet + mh_packet.kind], MH_KIND_ZERO
    je .Lzero
    lea rsi, [rip + state_bounce]
    rep movsq
    jmp moved
.Lzero:
    xor eax, eax
    rep stosq
moved:
    pop rdi
    mov ecx, ebx
    call bitmap_set
    mov eax, ebx
    add [rip + state_pages], rax
    add [rip + state_epoch_pages], rax
    mov eax, MH_DONE
    ret
.Lwrong_address:
    mov eax, MH_WRONG_ADDRESS
.Limport_refused:
    pop rdi
    ret
