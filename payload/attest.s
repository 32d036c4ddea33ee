# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# attest, record: how the owner's record comes to the helper of an SNP guest. abi.h has both operations, attest.h what they
# read and write.
#
# The report is asked for once: a bit says so, which no start takes back. So a vCPU that is lost, and started anew, does not take a key
# that is half wiped. The keys of the other VMPLs go from the secrets page at once: whoever has any of them may put another context
# in the guest's place (docs/snp.md, absorb-noma-by-vmpl3). VMPCK0 goes with RECORD, unless the owner lets the context move.
#
# From the answer until the record comes, only the scalar is secret: vcpu.scalar. vcpu.hello has what the report proves, in
# struct mh_report_request, and behind it a mask for the record. Ring 0 has no session as long as it has no record.

.ifdef MH_START_SNP

.include "vcpu.inc"
.include "message.inc"

.extern aes256_expand
.extern consult
.extern describe_iv
.extern describe_message_job
.extern forget_start
.extern gcm_open
.extern hkdf256
.extern linker.owner
.extern linker.snp_secrets
.extern locate
.extern message_key_init
.extern random_derived
.extern secret_record
.extern take_vmpck
.extern wipe_keys
.extern wipe_vmpcks
.extern x25519
.extern x25519_base

# In vcpu.hello.
.equ asked.mask, sizeof.mh_report_request
.if asked.mask + 16 != MH_HELLO_MAC_BYTES
.error "vcpu.hello has no place for what is asked"
.endif

# In vcpu.derived, beside drawn.mask.
.equ drawn.scalar, 0
.equ drawn.record_mask, drawn.mask + 16

.equ REQUEST, MESSAGE_HEADER | MH_MESSAGE_REPORT_REQ << MESSAGE_TYPE_SHIFT | sizeof.mh_report_request << MESSAGE_BYTES_SHIFT
.equ RESPONSE, MESSAGE_HEADER | (MH_MESSAGE_REPORT_REQ + 1) << MESSAGE_TYPE_SHIFT | sizeof.mh_report_response << MESSAGE_BYTES_SHIFT

.text

# attest() -> eax: status
.global attest
attest:
    mov eax, MH_BAD_ENTRY
    cmp word ptr [r13 + lane.slot], MH_RING_SLOTS - MH_MESSAGE_PAGES
    ja .Lrefused
    mov eax, MH_WRONG_STATE
    cmp dword ptr [r12 + vcpu.phase], PHASE_IDLE
    jne .Lrefused
    call take_keys
    jnz .Lforget
    call random_derived
    test eax, eax
    jnz .Lforget
    call bind
    call report
    jnz .Lforget
    call show
    mov dword ptr [r12 + vcpu.phase], PHASE_ATTESTED
    lea rdi, [r12 + vcpu.work]
    mov ecx, vcpu.secrets_end - vcpu.work
    jmp .Lwipe

# record() -> eax: status. There is no second try.
.global record
record:
    mov eax, MH_WRONG_STATE
    cmp dword ptr [r12 + vcpu.phase], PHASE_ATTESTED
    jne .Lrefused
    mov dword ptr [r12 + vcpu.phase], PHASE_IDLE
    call unseal
    test eax, eax               # survives dropped: unseal leaves the same zero flag
    jnz .Lforget
    call secret_record
    test rax, rax
    jz .Lforget
    test dword ptr [rax + mh_secret.flags], MH_OWNER_CONTEXT
    mov eax, MH_DONE
    jnz .Lmay_leave
.Lforget:
    call wipe_vmpcks
.Lmay_leave:
    call forget_start
    mov edx, eax
    xor ecx, ecx
.Lwipe:                          # ecx bytes at rdi, and what the lane has; edx: status
    xor eax, eax
    rep stosb
    lea rdi, [r13 + lane.packet]
    mov ecx, sizeof.lane - lane.packet
    rep stosb
    mov eax, edx
.Lrefused:
    ret

# take_keys() -> eax: status; zero flag set with MH_DONE. vcpu.message_key is that of VMPCK0, vcpu.schedule that of VMPCK1, under which
# nothing but random bytes is made.
take_keys:
    movdqu xmm0, [rip + linker.owner]
    movdqu xmm1, [rip + linker.owner + 16]
    por xmm0, xmm1
    ptest xmm0, xmm0
    jz .Lno_key
    bts dword ptr [rip + attest_asked], 0       # ring 0 alone comes here
    jc .Lno_key
    call take_vmpck
    jz .Lno_key
    lea rdi, [r12 + vcpu.schedule]
    lea rsi, [rip + linker.snp_secrets + mh_secrets_page.vmpck1]
    call aes256_expand
    lea rdi, [rip + linker.snp_secrets + mh_secrets_page.vmpck1]
    mov ecx, MH_VMPCKS_BYTES - MH_KEY_BYTES
    xor eax, eax                # MH_DONE
    call wipe_keys
    test eax, eax
    ret
.Lno_key:
    mov eax, MH_NO_KEY
    test eax, eax
    ret

# bind(): scalar and masks from vcpu.derived, and all that the report is to prove: a share of this scalar, the challenge, which is
# read once, the side.
bind:
    movzx eax, word ptr [r13 + lane.slot]
    call locate
.irp offset, 0, 16
    movdqu xmm0, [r12 + vcpu.derived + drawn.scalar + \offset]
    movdqu [r12 + vcpu.scalar + \offset], xmm0
.endr
    movdqu xmm0, [r12 + vcpu.derived + drawn.record_mask]
    movdqu [r12 + vcpu.hello + asked.mask], xmm0
    pxor xmm0, xmm0             # VMPL 0, the default key
.irp offset, 64, 80
    movdqu [r12 + vcpu.hello + \offset], xmm0
.endr
    mov rax, [r13 + lane.slot_packet]
    movdqu xmm0, [rax]
    movdqu [r12 + vcpu.hello + mh_report_data.challenge], xmm0
    movzx eax, word ptr [r13 + lane.role]
    mov [r12 + vcpu.hello + mh_report_data.role], eax
    mov rax, [rip + .Llabel]
    mov [r12 + vcpu.hello + mh_report_data.label], rax
    mov eax, [rip + .Llabel + 8]
    mov [r12 + vcpu.hello + mh_report_data.label + 8], eax
    lea rdi, [r12 + vcpu.hello + mh_report_data.share]
    lea rsi, [r12 + vcpu.scalar]
    jmp x25519_base

# report() -> eax: status; zero flag set with MH_DONE, and the report is in vcpu.message.
report:
    mov rdx, REQUEST
    mov rcx, RESPONSE
    lea rsi, [r12 + vcpu.hello]
    call consult
    test eax, eax               # survives dropped: where nothing is opened there are zeros, and so no size
    jnz .Lno_report             # survives dropped: the same
    cmp dword ptr [r12 + vcpu.message + mh_report_response.status], 0
    jne .Lno_report
    cmp dword ptr [r12 + vcpu.message + mh_report_response.report_bytes], MH_REPORT_BYTES
    jne .Lno_report
    ret
.Lno_report:
    mov eax, MH_NO_REPORT
    test eax, eax
    ret

# show(): share and report, to the slot's data page -> edx: MH_DONE
show:
    mov rdi, [r13 + lane.slot_data]
    lea rsi, [r12 + vcpu.hello + mh_report_data.share]
    mov ecx, MH_SHARE_BYTES
    rep movsb
    lea rsi, [r12 + vcpu.message + mh_report_response.report]
    mov ecx, MH_REPORT_BYTES
    rep movsb
    mov edx, MH_DONE
    ret

# unseal() -> eax: status; with MH_DONE the table is in the secret page.
unseal:
    lea rdi, [r12 + vcpu.derived]
    lea rsi, [r12 + vcpu.scalar]
    lea rdx, [rip + linker.owner]
    call x25519
    test eax, eax
    jnz .Lbad_record
    lea rdi, [r12 + vcpu.derived + MH_KEY_BYTES]
    lea rsi, [r12 + vcpu.derived]
    lea rdx, [r12 + vcpu.hello + mh_report_data.challenge]
    lea rcx, [r12 + vcpu.hello]
    call hkdf256
    lea rsi, [r12 + vcpu.derived + MH_KEY_BYTES]
    call message_key_init
    movzx eax, word ptr [r13 + lane.slot]
    call locate
    xor eax, eax                # the IV
    call describe_iv
    mov rsi, [r13 + lane.slot_packet]
    lea rax, [rsi + mh_sealed.tag]
    mov rdx, [rip + linker.params + mh_params.secret_va]
    mov ecx, sizeof.mh_sealed - MH_TAG_BYTES
    call describe_message_job
    lea rax, [r12 + vcpu.hello]
    mov [rsi + gcm_job.aad], rax
    mov qword ptr [rsi + gcm_job.aad_bytes], sizeof.mh_report_data
    movdqu xmm0, [r12 + vcpu.hello + asked.mask]
    call gcm_open
    test eax, eax
    jnz .Lbad_record
    ret                         # MH_DONE
.Lbad_record:
    mov eax, MH_BAD_RECORD
    ret

.section .rodata
.balign 16
.Llabel:
    .ascii MH_SHARE_LABEL

.bss
.balign 64
attest_asked: .zero 64          # bit 0

.endif
