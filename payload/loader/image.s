# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The image: its digest, its descriptor, and putting it in place.

.include "uefi.inc"
.include "state.inc"

.extern sha256

.equ PAGE_SHIFT, 12
.equ PAGE_MASK, MH_PAGE_BYTES - 1
.equ FOUR_GIB, 1 << 32

.text

.global check_digest
check_digest:
    frame
    mov rsi, [rbx + state.image]
    mov rdx, [rbx + state.image_bytes]
    lea rdi, [rbx + state.sha256]
    call sha256
    lea rsi, [rbx + state.sha256]
    mov rdi, [rbx + state.digest]
    mov ecx, 4
    repe cmpsq
    mov rax, EFI_COMPROMISED_DATA
    mov edx, 0
    cmove rax, rdx
    leave_frame

# What the loader uses of the descriptor has to make sense, or it would write outside of what it reserves.
.global check_descriptor
check_descriptor:
    frame
    mov rdx, [rbx + state.image]
    mov rcx, [rbx + state.image_bytes]
    cmp rcx, sizeof.mh_descriptor
    jb .Lbad
    mov rax, MH_DESCRIPTOR_MAGIC
    cmp [rdx + mh_descriptor.magic], rax
    jne .Lbad
    cmp word ptr [rdx + mh_descriptor.version], MH_ABI_VERSION
    jne .Lbad
    cmp dword ptr [rdx + mh_descriptor.descriptor_bytes], sizeof.mh_descriptor
    jne .Lbad
    cmp [rdx + mh_descriptor.image_bytes], rcx
    jne .Lbad

    # Image below ring below end, the end below 4 GiB, all of them pages.
    mov r8, [rdx + mh_descriptor.home]
    mov r9, [rdx + mh_descriptor.memory_bytes]
    mov r10d, [rdx + mh_descriptor.ring_offset]
    cmp r10, rcx
    jb .Lbad
    cmp r10, r9
    jae .Lbad
    mov rax, FOUR_GIB
    cmp r8, rax
    jae .Lbad
    sub rax, r8
    cmp r9, rax
    ja .Lbad
    mov rax, r8
    or rax, r9
    or rax, r10
    test eax, PAGE_MASK
    jnz .Lbad
    mov [rbx + state.base], r8

    # The secret between image and ring.
    mov eax, [rdx + mh_descriptor.secret_offset]
    mov edi, [rdx + mh_descriptor.secret_bytes]
    cmp rax, rcx
    jb .Lbad
    add rdi, rax
    cmp rdi, r10
    ja .Lbad
    mov [rbx + state.secret_end], rdi

    mov esi, [rdx + mh_descriptor.region_offset]
    mov eax, [rdx + mh_descriptor.region_count]
    cmp eax, MH_HANDOVER_REGIONS
    ja .Lbad
    imul rdi, rax, sizeof.mh_region
    add rdi, rsi
    cmp rdi, rcx
    ja .Lbad
    # The mirror sees the image at its home, or where the first tuple says.
    test eax, eax
    jz .Lseen
    mov r8, [rdx + rsi + mh_region.mirror_gpa]
.Lseen:
    sub r8, [rdx + mh_descriptor.link_base]
    mov [rbx + state.delta], r8
    mov rax, [rdx + mh_descriptor.flags]
    test al, MH_FLAG_FIXED_BASE
    jz .Lmovable
    test r8, r8
    jnz .Lbad
.Lmovable:
    test al, MH_FLAG_FIXED_CBIT
    jz .Lrelocations
    mov rax, [rbx + state.c_bit]
    cmp [rdx + mh_descriptor.c_bit], rax
    jne .Lbad

.Lrelocations:
    mov esi, [rdx + mh_descriptor.relocation_offset]
    mov eax, [rdx + mh_descriptor.relocation_count]
    lea rdi, [rsi + sizeof.mh_relocation * rax]
    cmp rdi, rcx
    ja .Lbad
    add rsi, rdx
    add rdi, rdx
.Lrelocation:
    cmp rsi, rdi
    je .Lgood
    movzx eax, word ptr [rsi + mh_relocation.kinds]
    test eax, ~(MH_RELOCATE_BASE | MH_RELOCATE_CBIT) & 0xffff
    jnz .Lbad
    movzx eax, word ptr [rsi + mh_relocation.count]
    mov r8d, [rsi + mh_relocation.offset]
    lea rax, [r8 + 8 * rax]
    cmp rax, rcx
    ja .Lbad
    add rsi, sizeof.mh_relocation
    jmp .Lrelocation
.Lgood:
    xor eax, eax
    leave_frame
.Lbad:
    mov rax, EFI_LOAD_ERROR
    leave_frame

# Copies the image to its reserved pages, clears what follows it there, and relocates it. The secret's pages stay as
# they are: the secure processor has filled them before the firmware began, and the helper takes all else for noise.
.global place_image
place_image:
    frame
    mov rdx, [rbx + state.image]
    mov rdi, [rbx + state.base]
    mov rsi, rdx
    mov rcx, [rbx + state.image_bytes]
    rep movsb
    mov ecx, [rdx + mh_descriptor.secret_offset]
    sub rcx, [rbx + state.image_bytes]
    xor eax, eax
    rep stosb
    mov rdi, [rbx + state.base]
    mov rcx, [rdx + mh_descriptor.memory_bytes]
    mov rsi, [rbx + state.secret_end]
    add rdi, rsi
    sub rcx, rsi
    rep stosb

    # The table is read where it was checked: a relocation may change the copy.
    mov esi, [rdx + mh_descriptor.relocation_offset]
    mov eax, [rdx + mh_descriptor.relocation_count]
    add rsi, rdx
    lea r8, [rsi + sizeof.mh_relocation * rax]
.Lrecord:
    cmp rsi, r8
    je .Lplaced
    mov edi, [rsi + mh_relocation.offset]
    add rdi, [rbx + state.base]
    movzx ecx, word ptr [rsi + mh_relocation.count]
    movzx eax, word ptr [rsi + mh_relocation.kinds]
    xor r9d, r9d
    xor r10d, r10d
    test al, MH_RELOCATE_BASE
    cmovnz r9, [rbx + state.delta]
    test al, MH_RELOCATE_CBIT
    cmovnz r10, [rbx + state.c_mask]
    jecxz .Lrecord_done
.Lword:
    mov rax, [rdi]
    add rax, r9
    or rax, r10
    mov [rdi], rax
    add rdi, 8
    dec ecx
    jnz .Lword
.Lrecord_done:
    add rsi, sizeof.mh_relocation
    jmp .Lrecord
.Lplaced:
    leave_frame
