# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Memory encryption: is it on, and is memory private? AMD64 APM volume 2, section 15.34.

.include "uefi.inc"
.include "state.inc"

.extern walk

.equ LEAF_EXTENDED, 0x80000000
.equ LEAF_ENCRYPTION, 0x8000001f
.equ CPUID_SEV, 1 << 1
.equ C_BIT_FIELD, 0x3f
.equ MSR_SEV_STATUS, 0xc0010131
.equ SEV_STATUS_SEV, 1 << 0

.text

# The MSR is read only where CPUID says that there is one: elsewhere it is #GP.
.global detect_sev
detect_sev:
    mov rsi, rbx
    mov eax, LEAF_EXTENDED
    cpuid
    cmp eax, LEAF_ENCRYPTION
    jb .Lnone
    mov eax, LEAF_ENCRYPTION
    xor ecx, ecx
    cpuid
    test eax, CPUID_SEV
    jz .Lnone
    mov edi, ebx
    and edi, C_BIT_FIELD
    mov ecx, MSR_SEV_STATUS
    rdmsr
    test eax, SEV_STATUS_SEV
    jz .Lnone
    mov [rsi + state.sev_status], eax
    mov [rsi + state.c_bit], rdi
    mov ecx, edi
    mov eax, 1
    shl rax, cl
    mov [rsi + state.c_mask], rax
.Lnone:
    mov rbx, rsi
    ret

# check_private(rsi: address, rdx: bytes). With SEV, every page of it must be mapped with the C-bit that CPUID told: a
# host that lies about its place is found out here, because the firmware runs on these tables.
.global check_private
check_private:
    mov r12, [rbx + state.c_mask]
    test r12, r12
    jz .Lprivate
    mov eax, [rbx + state.c_bit]
    cmp eax, MH_CBIT_FLOOR
    jb .Lshared
    cmp eax, MH_HIGHEST_CBIT
    ja .Lshared
    mov r13, rsi
    add r13, rdx
    jc .Lshared
    and rsi, -MH_PAGE_BYTES
.Lpage:
    cmp rsi, r13
    jae .Lprivate
    call walk                   # 0, where nothing is mapped, has no C-bit either
    test rax, r12
    jz .Lshared
    add rsi, MH_PAGE_BYTES
    jmp .Lpage
.Lprivate:
    xor eax, eax
    ret
.Lshared:
    mov rax, EFI_SECURITY_VIOLATION
    ret
