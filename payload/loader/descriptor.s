# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The descriptor. What comes out of measured flash and has passed its digest is checked for mistakes: a wrong field
# would have the loader write outside of what it reserves, or a helper run where it is no helper.
# Its routines return with the carry flag set where something is wrong; r12 is the image, r13 its bytes, r14 the end
# of guest-physical space, and all keep these.

.include "uefi.inc"
.include "state.inc"

.extern check_regions

.equ PAGE_MASK, MH_PAGE_BYTES - 1
.equ WORD_MASK, 7
.equ STACK_MASK, 15
.equ CANONICAL_SHIFT, 47
.equ CANONICAL_HIGH, 0x1ffff
.equ ALL_KINDS, MH_RELOCATE_BASE | MH_RELOCATE_CBIT

# A field of whole pages, or of another unit.
.macro whole field, mask=PAGE_MASK
    test dword ptr [r12 + mh_descriptor.\field], \mask
    jnz .Lbad
.endm

.text

# Every field, the region tuples, the relocations. Sets base, secret_end and delta.
.global check_descriptor
check_descriptor:
    frame
    mov r12, [rbx + state.image]
    mov r13, [rbx + state.image_bytes]
    mov ecx, MH_HIGHEST_CBIT
    cmp qword ptr [rbx + state.c_mask], 0
    cmovne ecx, [rbx + state.c_bit]
    mov r14d, 1
    shl r14, cl
    mov rax, EFI_LOAD_ERROR
    cmp r13, sizeof.mh_descriptor   # survives dropped, one more, one less: no root table fits into less than a page
    jb .Lleave                      # survives dropped: the same
    .irp check, check_file, check_c_bit, check_memory, check_space, check_regions, check_place, check_relocations
    call \check
    mov rax, EFI_LOAD_ERROR
    jc .Lleave
    .endr
    xor eax, eax
.Lleave:
    leave_frame

# What the file is, and which bytes of it mean what.
check_file:
    mov rax, MH_DESCRIPTOR_MAGIC
    cmp [r12 + mh_descriptor.magic], rax
    jne .Lbad
    cmp word ptr [r12 + mh_descriptor.version], MH_ABI_VERSION
    jne .Lbad
    cmp dword ptr [r12 + mh_descriptor.descriptor_bytes], sizeof.mh_descriptor
    jne .Lbad
    test qword ptr [r12 + mh_descriptor.flags], ~MH_FLAGS
    jnz .Lbad
    cmp [r12 + mh_descriptor.image_bytes], r13
    jne .Lbad
    whole region_offset, WORD_MASK
    mov eax, [r12 + mh_descriptor.region_offset]
    mov edx, [r12 + mh_descriptor.region_count]
    imul rdx, rdx, sizeof.mh_region
    mov rcx, r13
    call below
    jc .Lbad
    whole relocation_offset, WORD_MASK
    mov eax, [r12 + mh_descriptor.relocation_offset]
    mov edx, [r12 + mh_descriptor.relocation_count]
    imul rdx, rdx, sizeof.mh_relocation
    mov rcx, r13
    jmp below

# An image that is fixed to a C-bit, or to none, fits the part, whose C-bit check_private has found sound: 0 is none.
check_c_bit:
    mov rax, [r12 + mh_descriptor.c_bit]
    test dword ptr [r12 + mh_descriptor.flags], MH_FLAG_FIXED_CBIT
    jz .Lany_c_bit
    test rax, rax
    jz .Lbad
    cmp rax, [rbx + state.c_bit]
    jne .Lbad
    clc
    ret
.Lany_c_bit:
    test rax, rax
    jnz .Lbad
    ret

# The memory that the helper takes, and the parts of it: image below secret below rings.
check_memory:
    whole home                  # survives dropped: link_base or the first tuple is the same, and whole
    whole memory_bytes
    whole ring_offset
    whole vcpu_stride
    whole secret_offset
    whole secret_bytes
    mov rax, [r12 + mh_descriptor.home]
    mov [rbx + state.base], rax
    mov rdx, [r12 + mh_descriptor.memory_bytes]
    mov rcx, 1 << 32
    call below
    jc .Lbad
    cmp dword ptr [r12 + mh_descriptor.ring_stride], MH_RING_BYTES
    jne .Lbad
    mov eax, [r12 + mh_descriptor.ring_offset]
    mov edx, [r12 + mh_descriptor.ring_count]
    test edx, edx
    jz .Lbad
    imul rdx, rdx, MH_RING_BYTES
    mov rcx, [r12 + mh_descriptor.memory_bytes]
    call below
    jc .Lbad
    mov eax, [r12 + mh_descriptor.secret_offset]
    mov edx, [r12 + mh_descriptor.secret_bytes]
    test edx, edx
    jz .Lbad
    cmp rax, r13
    jb .Lbad
    mov ecx, [r12 + mh_descriptor.ring_offset]
    call below
    jc .Lbad
    add rax, rdx
    mov [rbx + state.secret_end], rax
    ret

# The mirror's address space, and where the helper starts in it.
check_space:
    whole link_base
    whole window
    whole ram_limit
    whole vmsa_offset
    whole stack64, STACK_MASK
    mov r8, [r12 + mh_descriptor.link_base]
    mov rax, r8
    mov rdx, [r12 + mh_descriptor.memory_bytes]
    mov rcx, r14
    call below
    jc .Lbad
    mov rax, [r12 + mh_descriptor.window]
    mov rdx, [r12 + mh_descriptor.ram_limit]
    test rdx, rdx
    jz .Lbad
    mov rcx, r14
    call below
    jc .Lbad
    mov rax, [r12 + mh_descriptor.vmsa_offset]
    add rax, r8
    mov edx, MH_VMSA_BYTES
    mov rcx, r14
    call below
    jc .Lbad
    # The root table lies in the image; its address has the C-bit already in an image that is fixed to one. What lies
    # below the image wraps to far behind it, here and with entry32.
    mov rax, [r12 + mh_descriptor.cr3]
    test dword ptr [r12 + mh_descriptor.flags], MH_FLAG_FIXED_CBIT
    jz .Lroot
    mov rcx, [r12 + mh_descriptor.c_bit]
    btr rax, rcx
.Lroot:
    test eax, PAGE_MASK
    jnz .Lbad
    sub rax, r8
    mov edx, MH_PAGE_BYTES
    mov rcx, r13
    call below
    jc .Lbad
    mov rax, [r12 + mh_descriptor.entry64]
    test rax, rax
    jz .Lbad
    call canonical
    jc .Lbad
    mov rax, [r12 + mh_descriptor.stack64]
    call canonical
    jc .Lbad
    mov rax, [r12 + mh_descriptor.entry32]
    test rax, rax
    jz .Lgood
    mov rcx, rax
    shr rcx, 32
    jnz .Lbad
    sub rax, r8
    mov edx, 1
    mov rcx, r13
    jmp below

# Where the mirror sees byte 0: not in its own RAM window, unless the image has a hole for itself there.
check_place:
    mov rax, [r12 + mh_descriptor.home]
    cmp dword ptr [r12 + mh_descriptor.region_count], 0
    je .Lseen
    mov ecx, [r12 + mh_descriptor.region_offset]
    mov rax, [r12 + rcx + mh_region.mirror_gpa]
.Lseen:
    mov rcx, rax
    sub rcx, [r12 + mh_descriptor.link_base]
    mov [rbx + state.delta], rcx
    test dword ptr [r12 + mh_descriptor.flags], MH_FLAG_FIXED_BASE
    jz .Lmovable
    test rcx, rcx
    jnz .Lbad
    ret
.Lmovable:
    mov rcx, [r12 + mh_descriptor.window]
    mov rdx, rcx
    add rdx, [r12 + mh_descriptor.ram_limit]
    cmp rax, rdx
    jae .Lgood
    add rax, [r12 + mh_descriptor.memory_bytes]
    cmp rcx, rax
    ret

# Words of the image; of the header only CR3, so what is relocated never moves what says where.
check_relocations:
    mov r8d, [r12 + mh_descriptor.relocation_offset]
    mov eax, [r12 + mh_descriptor.relocation_count]
    lea r9, [r8 + sizeof.mh_relocation * rax]
.Lrelocation:
    cmp r8, r9
    je .Lgood
    test word ptr [r12 + r8 + mh_relocation.kinds], ~ALL_KINDS & 0xffff
    jnz .Lbad
    mov eax, [r12 + r8 + mh_relocation.offset]
    movzx edx, word ptr [r12 + r8 + mh_relocation.count]
    test eax, WORD_MASK
    jnz .Lbad
    cmp rax, r9
    jae .Lbehind
    cmp eax, mh_descriptor.cr3
    jne .Lbad
    cmp edx, 1
    jne .Lbad
.Lbehind:
    shl edx, 3
    mov rcx, r13
    call below
    jc .Lbad
    add r8, sizeof.mh_relocation
    jmp .Lrelocation

.Lgood:
    clc
    ret
.Lbad:
    stc
    ret

# Whether rdx bytes from rax lie below rcx: the carry flag is set where they do not. Keeps all but rcx.
.global below
below:
    sub rcx, rax
    jb .Lnot_below
    cmp rcx, rdx
.Lnot_below:
    ret

# The same for rax as a virtual address of four levels.
canonical:
    shr rax, CANONICAL_SHIFT
    jz .Lcanonical
    cmp rax, CANONICAL_HIGH
    jne .Lbad
.Lcanonical:
    clc
    ret
