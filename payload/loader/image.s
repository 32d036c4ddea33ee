# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The image: its digest, and putting it in place.

.include "uefi.inc"
.include "state.inc"

.extern sha256

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
