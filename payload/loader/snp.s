# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# SNP: says no. There the RMP has the state of each page, and no other view of a page than the RMP's works: a ring of
# any scheme would have to be made shared by PVALIDATE and the hypervisor, and KVM has no mirror of an SNP guest that
# could run the helper (Linux, arch/x86/kvm/svm/sev.c, sev_vm_copy_enc_context_from). So nothing is begun.

.include "uefi.inc"
.include "state.inc"

.equ SEV_STATUS_SNP, 1 << 2
# edk2, OvmfPkg/Include/Guid/ConfidentialComputingSevSnpBlob.h and MdePkg/Include/Register/Amd/Svsm.h.
.equ snp_table.secrets, 8
.equ secrets.svsm_bytes, 0x148          # 0: no SVSM

.section .rodata
.balign 8
.Lsnp_table:
    .guid "067b1f5f-cf26-44c5-8554-93d777912d42"

.text

# Whether SNP is active; the step is MH_LOAD_SVSM where the RMP is another's to change. The table that tells is the firmware's
# own, the page the secure processor's.
.global check_snp
check_snp:
    xor eax, eax
    test dword ptr [rbx + state.sev_status], SEV_STATUS_SNP
    jz .Lleave
    mov rdx, [rbx + state.system]
    mov rcx, [rdx + EFI_SYSTEM_TABLE.NumberOfTableEntries]
    mov rdx, [rdx + EFI_SYSTEM_TABLE.ConfigurationTable]
.Lentry:
    test rcx, rcx
    jz .Lunsupported
    dec rcx
    mov rsi, rdx
    add rdx, sizeof.EFI_CONFIGURATION_TABLE
    mov r8, [rip + .Lsnp_table]
    cmp [rsi + EFI_CONFIGURATION_TABLE.VendorGuid], r8
    jne .Lentry
    mov r8, [rip + .Lsnp_table + 8]
    cmp [rsi + EFI_CONFIGURATION_TABLE.VendorGuid + 8], r8
    jne .Lentry
    mov rsi, [rsi + EFI_CONFIGURATION_TABLE.VendorTable]
    mov rsi, [rsi + snp_table.secrets]
    cmp qword ptr [rsi + secrets.svsm_bytes], 0
    je .Lunsupported
    mov dword ptr [rbx + state.step], MH_LOAD_SVSM
.Lunsupported:
    mov rax, EFI_UNSUPPORTED
.Lleave:
    ret
