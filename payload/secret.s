# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The launch secret: OVMF's table of GUIDed entries (OvmfPkg/AmdSev/SecretDxe). It lies in private memory, but
# without a launch secret, or under a wrong key, the page is noise: every length is checked.

.include "vcpu.inc"

.ifdef MH_START_SNP
.equ KNOWN_FLAGS, MH_OWNER_STRICT | MH_OWNER_CONTEXT
.else
.equ KNOWN_FLAGS, MH_OWNER_STRICT
.endif

.text

# secret_record() -> rax: the owner's record (struct mh_secret), 0 without one that this helper understands
.global secret_record
secret_record:
    mov rsi, [rip + linker.params + mh_params.secret_va]
    lea rdx, [rip + .Ltable_guid]
    call same_guid
    jne .Lnone
    mov r8d, [rsi + 16]         # bytes of the table
    cmp r8d, MH_PAGE_BYTES
    ja .Lnone
    add r8, rsi
    lea rdx, [rip + .Lrecord_guid]
.Lentry:
    add rsi, MH_SECRET_ENTRY_BYTES
    lea rax, [rsi + MH_SECRET_ENTRY_BYTES + sizeof.mh_secret]
    cmp rax, r8
    ja .Lnone                   # too near to the end to be a record
    call same_guid
    mov ecx, [rsi + 16]
    je .Lfound
    sub ecx, MH_SECRET_ENTRY_BYTES
    jb .Lnone                   # survives dropped: 4 GiB further is beyond the table too
    add rsi, rcx
    jmp .Lentry
.Lfound:
    cmp ecx, MH_SECRET_ENTRY_BYTES + sizeof.mh_secret
    jne .Lnone
    lea rax, [rsi + MH_SECRET_ENTRY_BYTES]
    cmp word ptr [rax + mh_secret.version], MH_SECRET_VERSION
    jne .Lnone
    cmp qword ptr [rax + mh_secret.reserved], 0
    jne .Lnone
    movzx ecx, word ptr [rax + mh_secret.protection]
    dec ecx
    cmp ecx, MH_PROTECTION_SEV_SNP - MH_PROTECTION_SEV
    ja .Lnone
    test dword ptr [rax + mh_secret.flags], ~KNOWN_FLAGS
    jnz .Lnone
    ret
.Lnone:
    xor eax, eax
    ret

# Zero flag set if the 16 bytes at rsi and rdx are equal.
same_guid:
    mov rax, [rsi]
    mov rcx, [rsi + 8]
    xor rax, [rdx]
    xor rcx, [rdx + 8]
    or rax, rcx
    ret

.section .rodata
.balign 16
.Ltable_guid:
    .guid MH_SECRET_TABLE_GUID
.Lrecord_guid:
    .guid MH_SECRET_RECORD_GUID
