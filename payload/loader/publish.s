# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# What the loader leaves behind for the guest's kernel: a configuration table and a variable.

.include "uefi.inc"
.include "state.inc"

.extern check_private
.extern free_pool

.section .rodata
.balign 8
.Lpublished:
    .guid MH_PUBLISHED_GUID
.Lvendor:
    .guid MH_MIGRATION_VARIABLE_GUID
.Lname:
    .asciz MH_MIGRATION_VARIABLE
.Lone:
    .byte 1

.text

.global publish
publish:
    frame
    mov ecx, EfiRuntimeServicesData
    mov edx, sizeof.mh_published
    lea r8, [rbx + state.published]
    boot_service AllocatePool
    test rax, rax
    jnz .Lnothing
    mov rsi, [rbx + state.published]
    mov edx, sizeof.mh_published
    call check_private
    test rax, rax
    jnz .Lleave
    mov rdx, [rbx + state.published]
    mov dword ptr [rdx + mh_published.version], MH_ABI_VERSION
    mov eax, [rbx + state.c_bit]
    mov [rdx + mh_published.c_bit], eax
    mov rax, [rbx + state.base]
    mov [rdx + mh_published.base], rax
    mov rcx, [rbx + state.image]
    mov rax, [rcx + mh_descriptor.memory_bytes]
    mov [rdx + mh_published.memory_bytes], rax
    lea rsi, [rbx + state.sha256]
    lea rdi, [rdx + mh_published.sha256]
    mov ecx, 4
    rep movsq
    lea rcx, [rip + .Lpublished]
    boot_service InstallConfigurationTable
    test rax, rax
    jnz .Lleave
    mov qword ptr [rbx + state.installed], 1
.Lleave:
    leave_frame
.Lnothing:
    mov qword ptr [rbx + state.published], 0
    leave_frame

.global unpublish
unpublish:
    frame
    cmp qword ptr [rbx + state.installed], 0
    je .Lnot_installed
    lea rcx, [rip + .Lpublished]
    xor edx, edx
    boot_service InstallConfigurationTable
.Lnot_installed:
    lea rsi, [rbx + state.published]
    call free_pool
    leave_frame

# Volatile: it is set at every boot by who can keep its promise.
.global set_variable
set_variable:
    frame
    mov r8d, EFI_VARIABLE_BOOTSERVICE_ACCESS | EFI_VARIABLE_RUNTIME_ACCESS
    mov r9d, 1
    lea rax, [rip + .Lone]
    mov [rsp + ARGUMENT_5], rax
    call write_variable
    test rax, rax
    jnz .Lrefused
    mov qword ptr [rbx + state.variable], 1
.Lrefused:
    leave_frame

.global unset_variable
unset_variable:
    frame
    cmp qword ptr [rbx + state.variable], 0
    je .Lnot_set
    xor r8d, r8d
    xor r9d, r9d
    mov qword ptr [rsp + ARGUMENT_5], 0
    call write_variable
.Lnot_set:
    leave_frame

# SetVariable with the arguments from the third on as they are; the fifth is the caller's.
write_variable:
    mov rax, [rsp + 8 + ARGUMENT_5]
    frame
    mov [rsp + ARGUMENT_5], rax
    lea rsi, [rip + .Lname]
    lea rdi, [rbx + state.name]
    xor eax, eax
.Lwiden:
    lodsb
    stosw
    test eax, eax
    jnz .Lwiden
    lea rcx, [rbx + state.name]
    lea rdx, [rip + .Lvendor]
    mov rax, [rbx + state.runtime]
    call qword ptr [rax + EFI_RUNTIME_SERVICES.SetVariable]
    leave_frame
