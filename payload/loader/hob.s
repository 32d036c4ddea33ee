# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The image, in pages of an IGVM file that a HOB announces: in place of find.s, for a loader that the firmware starts
# from there. UEFI PI 1.8 volume 3, chapter 5 (HOBs); UEFI 2.10, section 4.6.1 (their list).

.include "uefi.inc"
.include "state.inc"

.extern check_private

.equ EFI_HOB_TYPE_GUID_EXTENSION, 4
.equ EFI_HOB_TYPE_END_OF_LIST, 0xffff
.equ EFI_HOB.HobType, 0
.equ EFI_HOB.HobLength, 2
.equ EFI_HOB_GUID.Name, 8
.equ EFI_IGVM_DATA_HOB.Address, 24
.equ EFI_IGVM_DATA_HOB.Length, 32
.equ EFI_IGVM_DATA_HOB.DataType, 40
.equ sizeof.EFI_IGVM_DATA_HOB, 48
.equ SHA256_BYTES, 32

.section .rodata
.balign 8
.Lhob_list:
    .guid "7739f24c-93d7-11d4-9a3a-0090273fc14d"
.Ligvm_data:
    .guid MH_IGVM_DATA_GUID

.text

# Copies the image and its digest into the pool, and checks that nobody but this guest can write where they come from.
.global find_image
find_image:
    frame
    call find_data
    test rax, rax
    jnz .Lleave
    mov r12, [rsi + EFI_IGVM_DATA_HOB.Address]
    mov r13, [rsi + EFI_IGVM_DATA_HOB.Length]
    mov rax, EFI_NOT_FOUND
    sub r13, SHA256_BYTES
    jbe .Lleave
    push r12
    push r13
    mov rsi, r12
    lea rdx, [r13 + SHA256_BYTES]
    call check_private
    pop r13
    pop r12
    test rax, rax
    jnz .Lleave
    lea rdi, [rbx + state.image]
    mov rdx, r13
    call copy_to_pool
    test rax, rax
    jnz .Lleave
    lea rdi, [rbx + state.digest]
    add r12, r13
    mov edx, SHA256_BYTES
    call copy_to_pool
.Lleave:
    leave_frame

# rsi: the HOB of the image; or rax a failure.
find_data:
    mov rdx, [rbx + state.system]
    mov rcx, [rdx + EFI_SYSTEM_TABLE.NumberOfTableEntries]
    mov rdx, [rdx + EFI_SYSTEM_TABLE.ConfigurationTable]
.Lentry:
    mov rax, EFI_NOT_FOUND
    test rcx, rcx
    jz .Lfound
    dec rcx
    mov rsi, [rdx + EFI_CONFIGURATION_TABLE.VendorTable]
    mov r8, [rdx + EFI_CONFIGURATION_TABLE.VendorGuid]
    mov r9, [rdx + EFI_CONFIGURATION_TABLE.VendorGuid + 8]
    add rdx, sizeof.EFI_CONFIGURATION_TABLE
    cmp r8, [rip + .Lhob_list]
    jne .Lentry
    cmp r9, [rip + .Lhob_list + 8]
    jne .Lentry
    jmp .Lhob
.Lnext:
    movzx ecx, word ptr [rsi + EFI_HOB.HobLength]
    jecxz .Lfound
    add rsi, rcx
.Lhob:
    movzx ecx, word ptr [rsi + EFI_HOB.HobType]
    cmp ecx, EFI_HOB_TYPE_END_OF_LIST
    je .Lfound
    cmp ecx, EFI_HOB_TYPE_GUID_EXTENSION
    jne .Lnext
    cmp word ptr [rsi + EFI_HOB.HobLength], sizeof.EFI_IGVM_DATA_HOB
    jb .Lnext
    mov r8, [rip + .Ligvm_data]
    cmp [rsi + EFI_HOB_GUID.Name], r8
    jne .Lnext
    mov r8, [rip + .Ligvm_data + 8]
    cmp [rsi + EFI_HOB_GUID.Name + 8], r8
    jne .Lnext
    cmp dword ptr [rsi + EFI_IGVM_DATA_HOB.DataType], MH_IGVM_DATA_IMAGE
    jne .Lnext
    xor eax, eax
.Lfound:
    ret

# rdx bytes from r12, to a buffer that is set at rdi with its length behind it. Keeps r12, r13.
copy_to_pool:
    frame
    mov r14, rdi
    mov r15, rdx
    mov ecx, EfiBootServicesData
    mov r8, rdi
    boot_service AllocatePool
    test rax, rax
    jnz .Lcopied
    mov [r14 + 8], r15
    mov rdi, [r14]
    mov rsi, r12
    mov rcx, r15
    rep movsb
.Lcopied:
    leave_frame
