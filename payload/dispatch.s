# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# From a fetched submission to its handler; an entry that says more than its op understands is refused.

.include "state.inc"

.extern hello
.extern start
.extern move_batch
.extern end_epoch
.extern finish
.extern abort

.text

# dispatch() -> eax: status
.global dispatch
dispatch:
    lea rdi, [rip + state_entry]
    movzx eax, word ptr [rdi + mh_submission.op]
    cmp eax, MH_OP_HELLO
    je .Lhello
    cmp eax, MH_OP_START
    je .Lstart
    cmp eax, MH_OP_EXPORT
    je .Lbatch
    cmp eax, MH_OP_IMPORT
    je .Lbatch
    cmp eax, MH_OP_EPOCH
    je .Lepoch
    cmp eax, MH_OP_FINISH
    je .Lfinish
    cmp eax, MH_OP_ABORT
    je .Labort
    mov eax, MH_BAD_OP
    ret
.Lhello:
    call only_op
    jne .Lbad_entry
    jmp hello
.Lstart:
    call only_start
    jne .Lbad_entry
    jmp start
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
.Labort:
    call only_op
    jne .Lbad_entry
    jmp abort
.Lbad_entry:
    mov eax, MH_BAD_ENTRY
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
only_start:
    call batch_fields
    movzx ecx, word ptr [rdi + mh_submission.slot]
    or rax, rcx
reserved:
    mov ecx, [rdi + mh_submission.reserved]
    or rax, rcx
    ret

batch_fields:
    mov rax, [rdi + mh_submission.address]
    movzx ecx, word ptr [rdi + mh_submission.count]
    or rax, rcx
    movzx ecx, word ptr [rdi + mh_submission.chunk]
    or rax, rcx
    movzx ecx, word ptr [rdi + mh_submission.flags]
    or rax, rcx
    ret

# rdi: the submission. Zero flag set if slot, count, chunk and flags describe a batch that the ring holds.
batch_shape:
    movzx eax, word ptr [rdi + mh_submission.count]
    movzx ecx, word ptr [rdi + mh_submission.chunk]
    movzx edx, word ptr [rdi + mh_submission.slot]
    add edx, eax
    cmp edx, MH_RING_SLOTS
    ja .Lnot_zero
    cmp ecx, eax
    ja .Lnot_zero
    test ecx, ecx               # also a count of 0
    jz .Lnot_zero
    movzx eax, word ptr [rdi + mh_submission.flags]
    test eax, eax
    jz .Lshaped
    # A list has chunks of one page, and no address of its own.
    dec ecx
    xor eax, MH_BATCH_LIST
    or eax, ecx
    or rax, [rdi + mh_submission.address]
.Lshaped:
    ret
.Lnot_zero:
    or eax, 1
    ret
