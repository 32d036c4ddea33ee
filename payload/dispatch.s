# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# From a fetched submission to its handler; an entry that says more than its op understands is refused.

.include "vcpu.inc"

.extern abort
.extern end_epoch
.extern finish
.extern hello
.extern join
.extern move_batch
.extern start

.text

# dispatch() -> eax: status
.global dispatch
dispatch:
    lea rdi, [r13 + lane.entry]
    movzx eax, word ptr [rdi + mh_submission.op]
    cmp eax, MH_OP_EXPORT
    je .Lbatch
    cmp eax, MH_OP_IMPORT
    je .Lbatch
    dec eax
    cmp eax, MH_OP_SHARE - 1
    ja .Lbad_op
    test dword ptr [r13 + lane.stream], MH_STREAM_URGENT
    jnz .Lwrong_ring
    inc eax
    cmp eax, MH_OP_SHARE
    je .Lbatch
    cmp eax, MH_OP_HELLO
    je .Lhello
    cmp eax, MH_OP_START
    je .Lstart
    cmp eax, MH_OP_JOIN
    je .Ljoin
    cmp eax, MH_OP_EPOCH
    je .Lepoch
    cmp eax, MH_OP_FINISH
    je .Lfinish
    call only_op
    jne .Lbad_entry
    jmp abort
.Lhello:
    cmp dword ptr [r12 + vcpu.index], 0
    jne .Lwrong_ring
    call only_op
    jne .Lbad_entry
    jmp hello
.Lstart:
    cmp dword ptr [r12 + vcpu.index], 0
    jne .Lwrong_ring
    call only_start
    jne .Lbad_entry
    jmp start
.Ljoin:
    cmp dword ptr [r12 + vcpu.index], 0
    je .Lwrong_ring
    call only_op
    jne .Lbad_entry
    jmp join
.Lbatch:
    call only_batch
    jne .Lbad_entry
    call batch_shape
    jne .Lbad_entry
    jmp move_batch
.Lepoch:
    call only_slot
    jne .Lbad_entry
    jmp end_epoch
.Lfinish:
    call only_slot
    jne .Lbad_entry
    jmp finish
.Lbad_op:
    mov eax, MH_BAD_OP
    ret
.Lbad_entry:
    mov eax, MH_BAD_ENTRY
    ret
.Lwrong_ring:
    mov eax, MH_WRONG_RING
    ret

# rdi: the submission. Each sets the zero flag if every field that the op does not use is zero.
only_op:
    call batch_fields
    movzx ecx, word ptr [rdi + mh_submission.slot]
    or rax, rcx
    jmp start_fields
only_slot:
    cmp word ptr [rdi + mh_submission.slot], MH_RING_SLOTS
    jae .Lnot_zero
    call batch_fields
    jmp start_fields
only_batch:
    xor eax, eax
start_fields:
    or rax, [rdi + mh_submission.nonce]
    or rax, [rdi + mh_submission.nonce + 8]
    or rax, [rdi + mh_submission.nonce + 16]
    or rax, [rdi + mh_submission.nonce + 24]
    movzx ecx, word ptr [rdi + mh_submission.role]
    or rax, rcx
    jmp reserved
# Role and the number of rings are what START has.
only_start:
    movzx eax, word ptr [rdi + mh_submission.role]
    dec eax
    cmp eax, MH_ROLE_TARGET - MH_ROLE_SOURCE
    ja .Lnot_zero
    movzx eax, word ptr [rdi + mh_submission.count]
    dec rax
    cmp rax, [rip + linker.params + mh_params.vcpus]
    jae .Lnot_zero
    movzx eax, word ptr [rdi + mh_submission.slot]
    call other_batch_fields
reserved:
    mov ecx, [rdi + mh_submission.reserved]
    or rax, rcx
    ret

batch_fields:
    movzx eax, word ptr [rdi + mh_submission.count]
other_batch_fields:
    or rax, [rdi + mh_submission.address]
    movzx ecx, word ptr [rdi + mh_submission.chunk]
    or rax, rcx
    movzx ecx, word ptr [rdi + mh_submission.flags]
    or rax, rcx
    ret

# rdi: the submission. Zero flag set if slot, count, chunk and flags describe a batch that the lane holds.
batch_shape:
    movzx eax, word ptr [rdi + mh_submission.count]
    movzx ecx, word ptr [rdi + mh_submission.chunk]
    movzx edx, word ptr [rdi + mh_submission.slot]
    add edx, eax
    cmp edx, [r13 + lane.slots]
    ja .Lnot_zero
    cmp ecx, eax
    ja .Lnot_zero
    test ecx, ecx               # also a count of 0
    jz .Lnot_zero
    movzx eax, word ptr [rdi + mh_submission.flags]
    mov edx, ~(MH_BATCH_LIST | MH_BATCH_VMSA)
    cmp word ptr [rdi + mh_submission.op], MH_OP_SHARE
    jne 1f
    mov edx, ~(MH_BATCH_LIST | MH_BATCH_PRIVATE)
1:  test eax, edx
    jnz .Lshaped
    test eax, MH_BATCH_LIST
    jz .Lshaped
    # A list has chunks of one page, and no address of its own.
    dec ecx
    or rcx, [rdi + mh_submission.address]
.Lshaped:
    ret
.Lnot_zero:
    or eax, 1
    ret
