# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The loader: a DXE driver that puts the helper where it was linked for. It trusts what the firmware's own volumes
# and services give it, for they are measured, and nothing that the host says but where docs/security.md allows it.

.include "uefi.inc"
.include "state.inc"

.extern check_descriptor
.extern check_digest
.extern check_snp
.extern detect_sev
.extern find_image
.extern hand_over
.extern place_image
.extern print_failed
.extern print_loaded
.extern publish
.extern release
.extern reserve
.extern set_variable
.extern undo

.macro step number, routine
    mov dword ptr [rbx + state.step], \number
    call \routine
    test rax, rax
    jnz .Lfailed
.endm

.text

# EFI_STATUS loader_entry(rcx: EFI_HANDLE, rdx: EFI_SYSTEM_TABLE)
.global loader_entry
loader_entry:
    push rbx
    push rbp
    push rsi
    push rdi
    push r12
    push r13
    push r14
    push r15
    sub rsp, state.bytes
    mov rbx, rsp
    cld
    mov rdi, rsp
    xor eax, eax
    mov ecx, state.bytes / 8
    rep stosq
    mov [rbx + state.system], rdx
    mov rax, [rdx + EFI_SYSTEM_TABLE.BootServices]
    mov [rbx + state.boot], rax
    mov rax, [rdx + EFI_SYSTEM_TABLE.RuntimeServices]
    mov [rbx + state.runtime], rax

    call detect_sev
    step MH_LOAD_SNP, check_snp
    step MH_LOAD_FIND, find_image
    step MH_LOAD_DIGEST, check_digest
    step MH_LOAD_DESCRIPTOR, check_descriptor
    step MH_LOAD_RESERVE, reserve
    call place_image
    step MH_LOAD_PUBLISH, publish
    step MH_LOAD_VARIABLE, set_variable
    step MH_LOAD_HANDOVER, hand_over
    call print_loaded
    jmp .Lleave
.Lfailed:
    mov [rbx + state.status], rax
    call undo
    call print_failed
.Lleave:
    call release
    mov rax, [rbx + state.status]
    add rsp, state.bytes
    pop r15
    pop r14
    pop r13
    pop r12
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    ret
