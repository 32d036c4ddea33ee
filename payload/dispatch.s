# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# From a submission to its handler, by a table with a row for every operation. A submission that says more than its
# operation understands is refused. Fields come into private memory only when they are known to be within their bounds.

.include "vcpu.inc"

.extern abort
.ifdef MH_START_SNP
.extern attest
.extern context
.extern record
.extern run_guest
.endif
.extern end_epoch
.extern finish
.extern hello
.extern join
.extern move_batch
.extern resume
.extern start

# What an operation uses of a submission, and who may ask for it.
.equ USES_ROLE, 1 << 0
.equ USES_SLOT, 1 << 1
.equ USES_COUNT, 1 << 2
.equ USES_PAGES, 1 << 3         # address, chunk and flags
.equ FIRST_RING, 1 << 4         # ring 0 only
.equ OTHER_RINGS, 1 << 5        # all but ring 0
.equ EVERY_LANE, 1 << 6         # the urgent lane too

.set operations_end, 1
.macro operation number, handler, uses
    .if (\number) != operations_end
    .error "an operation out of its place"
    .endif
    .set operations_end, operations_end + 1
    .quad \handler
    .quad \uses
.endm

.section .rodata
.balign 16
operations:
    operation MH_OP_HELLO, hello, USES_SLOT | FIRST_RING
    operation MH_OP_START, start, USES_ROLE | USES_SLOT | USES_COUNT | FIRST_RING
    operation MH_OP_EXPORT, move_batch, USES_SLOT | USES_COUNT | USES_PAGES | EVERY_LANE
    operation MH_OP_IMPORT, move_batch, USES_SLOT | USES_COUNT | USES_PAGES | EVERY_LANE
    operation MH_OP_EPOCH, end_epoch, USES_SLOT
    operation MH_OP_FINISH, finish, USES_SLOT
    operation MH_OP_ABORT, abort, 0
    operation MH_OP_JOIN, join, OTHER_RINGS
    operation MH_OP_SHARE, move_batch, USES_SLOT | USES_COUNT | USES_PAGES
    operation MH_OP_RESUME, resume, 0
.ifdef MH_START_SNP
    operation MH_OP_ATTEST, attest, USES_ROLE | USES_SLOT | FIRST_RING
    operation MH_OP_RECORD, record, USES_SLOT | FIRST_RING
    operation MH_OP_RUN, run_guest, USES_SLOT | USES_COUNT | FIRST_RING
    operation MH_OP_CONTEXT, context, USES_SLOT | FIRST_RING
.endif

.text

# dispatch(rax, r8, r9: the submission's first, third and fourth 8 bytes, xmm0: its reserved ones) -> eax: status
.global dispatch
dispatch:
    movzx edi, ax
    dec edi
    cmp edi, operations_end - 1
    jae .Lbad_op
    mov [r13 + lane.op], ax
    shl edi, 4
    lea rcx, [rip + operations]
    add rdi, rcx
    mov esi, [rdi + 8]
    call right_ring
    jne .Lwrong_ring
    mov rdx, rax
    shr rdx, 32
    movzx edx, dx               # slot
    mov rcx, rax
    shr rcx, 48                 # count
    shr eax, 16                 # role
    call right_fields
    jne .Lbad_entry
    mov [r13 + lane.role], ax
    mov [r13 + lane.slot], dx
    mov [r13 + lane.count], cx
    test esi, USES_PAGES
    jz .Lserve
    call right_shape
    jne .Lbad_entry
.Lserve:
    jmp [rdi]
.Lbad_op:
    mov eax, MH_BAD_OP
    ret
.Lwrong_ring:
    mov eax, MH_WRONG_RING
    ret
.Lbad_entry:
    mov eax, MH_BAD_ENTRY
    ret

# right_ring(esi: uses): zero flag set if this lane serves the operation. Keeps all but rcx.
right_ring:
    mov ecx, EVERY_LANE
    test dword ptr [r13 + lane.stream], MH_STREAM_URGENT
    jnz .Lmust
    mov ecx, OTHER_RINGS
    cmp dword ptr [r12 + vcpu.index], 0
    je .Lmust_not
    mov ecx, FIRST_RING
.Lmust_not:
    test esi, ecx
    ret
.Lmust:
    and ecx, esi
    cmp ecx, EVERY_LANE
    ret

# right_fields(esi: uses, ax: role, edx: slot, ecx: count, r8: address, r9: chunk, flags, reserved, xmm0: reserved): zero flag
# set if each is within its bounds, and zero where the operation does not use it. Keeps all but r10, r11.
right_fields:
    ptest xmm0, xmm0
    jnz .Lwrong
    mov r10, r9
    shr r10, 32                 # reserved
    xor r11d, r11d
    test esi, USES_ROLE
    jz .Lno_role
    lea r11d, [rax - MH_ROLE_SOURCE]
    cmp r11w, MH_ROLE_TARGET - MH_ROLE_SOURCE
    ja .Lwrong
    jmp .Lrole
.Lno_role:
    movzx r11d, ax
    or r10, r11
.Lrole:
    test esi, USES_SLOT
    jz .Lno_slot
    cmp edx, [r13 + lane.slots]
    jae .Lwrong
    jmp .Lslot
.Lno_slot:
    or r10, rdx
.Lslot:
    test esi, USES_COUNT
    jnz .Lcount
    or r10, rcx
.Lcount:
    test esi, USES_PAGES
    jnz .Lpages
    or r10, r8
    or r10, r9
.Lpages:
    test r10, r10
    ret
.Lwrong:                         # right_shape's too
    or r10d, 1
    ret

# right_shape(r8: address, r9d: chunk and flags): zero flag set if slot, count, chunk and flags describe a batch that the lane
# holds; then they are in the lane. Keeps rdi, rsi.
right_shape:
    movzx eax, word ptr [r13 + lane.count]
    movzx edx, word ptr [r13 + lane.slot]
    movzx ecx, r9w              # chunk
    shr r9d, 16                 # flags
    add edx, eax
    cmp edx, [r13 + lane.slots]
    ja .Lwrong
    cmp ecx, eax
    ja .Lwrong
    test ecx, ecx               # also a count of 0
    jz .Lwrong
    mov edx, ~(MH_BATCH_LIST | MH_BATCH_VMSA)
    cmp word ptr [r13 + lane.op], MH_OP_SHARE
    jne 1f
    mov edx, ~(MH_BATCH_LIST | MH_BATCH_PRIVATE)
1:  test r9d, edx
    jnz .Lwrong
    mov [r13 + lane.chunk], cx
    mov [r13 + lane.flags], r9w
    test r9d, MH_BATCH_LIST
    jz .Lrun
    # A list has chunks of one page, and no address of its own.
    dec ecx
    or rcx, r8
    ret

# A run that begins at no page, or beyond all RAM, is refused page by page whatever its address is: one of each kind
# stands for all.
.Lrun:
    test r8d, MH_PAGE_BYTES - 1
    jz 2f
    mov r8d, 1
2:  mov rax, [rip + linker.params + mh_params.ram_limit]
    test r9d, MH_BATCH_VMSA     # survives dropped: what is beyond all VMSAs is refused page by page as it is
    jz 3f
    mov eax, MH_VMSA_BYTES
3:  cmp r8, rax
    jb 4f
    mov r8, -MH_PAGE_BYTES
4:  mov [r13 + lane.start], r8
    cmp eax, eax
    ret
