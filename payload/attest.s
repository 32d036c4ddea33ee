# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# attest, record: how the owner's record comes to the helper of an SNP guest. abi.h has both operations, attest.h what they
# read and write.
#
# The report is asked for once: a bit says so, which no start takes back. So a vCPU that is lost, and started anew, neither seals a
# second message with one sequence number nor does it take a key that is half wiped. The keys go from the secrets page at once,
# and so do those of the other VMPLs: whoever has any of them may put another context in the guest's place (docs/snp.md,
# absorb-noma-by-vmpl3).
#
# From the answer until the record comes, only the scalar is secret: vcpu.scalar. vcpu.hello has what the report proves, in
# struct mh_report_request, and behind it a mask for the record. Ring 0 has no session as long as it has no record.

.ifdef MH_START_SNP

.include "vcpu.inc"

.extern aes256_expand
.extern ask_processor
.extern forget_start
.extern gcm_key_init
.extern gcm_open
.extern gcm_seal
.extern hkdf256
.extern linker.owner
.extern linker.snp_secrets
.extern locate
.extern random_derived
.extern x25519
.extern x25519_base

# In vcpu.hello.
.equ asked.mask, sizeof.mh_report_request
.if asked.mask + 16 != MH_HELLO_MAC_BYTES
.error "vcpu.hello has no place for what is asked"
.endif

# In vcpu.derived.
.equ drawn.scalar, 0
.equ drawn.answer_mask, MH_KEY_BYTES
.equ drawn.record_mask, MH_KEY_BYTES + 16

# In lane.packet: the additional data of a message, then its IV.
.equ sealed.aad, 0
.equ AAD_BYTES, sizeof.mh_message - mh_message.algorithm
.equ sealed.iv, AAD_BYTES

# The first 8 bytes of the additional data. VMPCK0 is number 0, and the rest is reserved.
.equ HEADER, MH_MESSAGE_ALGORITHM | MH_MESSAGE_VERSION << 8 | sizeof.mh_message << 16 | MH_MESSAGE_VERSION << 40
.equ HEADER_TYPE_SHIFT, 32
.equ HEADER_BYTES_SHIFT, 48
.equ REQUEST, HEADER | MH_MESSAGE_REPORT_REQ << HEADER_TYPE_SHIFT | sizeof.mh_report_request << HEADER_BYTES_SHIFT
.equ RESPONSE, HEADER | (MH_MESSAGE_REPORT_REQ + 1) << HEADER_TYPE_SHIFT | sizeof.mh_report_response << HEADER_BYTES_SHIFT

# The private page of an opened answer: behind the scratch of gcm_open.
.equ ANSWER, vcpu.scratch + MH_PAGE_BYTES

.text

# attest() -> eax: status
.global attest
attest:
    mov eax, MH_BAD_ENTRY
    cmp word ptr [r13 + lane.slot], MH_RING_SLOTS - MH_ATTEST_PAGES
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
    call send_request
    mov rsi, [r13 + lane.slot_data]
    call ask_processor
    call take_answer
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
.Lforget:
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

# take_keys() -> eax: status; zero flag set with MH_DONE. lane.page_key is that of VMPCK0, vcpu.schedule that of VMPCK1, under which
# nothing but random bytes is made.
take_keys:
    movdqu xmm0, [rip + linker.owner]
    movdqu xmm1, [rip + linker.owner + 16]
    por xmm0, xmm1
    ptest xmm0, xmm0
    jz .Lno_key
    bts dword ptr [rip + attest_asked], 0       # ring 0 alone comes here
    jc .Lasked
    lea rdi, [r13 + lane.page_key]
    lea rsi, [rip + linker.snp_secrets + mh_secrets_page.vmpck0]
    call gcm_key_init
    mov eax, [r12 + vcpu.features]
    mov [r13 + lane.page_key + gcm_key.features], eax
    lea rdi, [r12 + vcpu.schedule]
    lea rsi, [rip + linker.snp_secrets + mh_secrets_page.vmpck1]
    call aes256_expand
# wipe_vmpcks() -> eax: MH_DONE; the zero flag is set.
wipe_vmpcks:
    lea rdi, [rip + linker.snp_secrets + mh_secrets_page.vmpck0]
    mov ecx, MH_VMPCKS_BYTES
    xor eax, eax
    rep stosb
    ret
.Lasked:                         # and perhaps lost before all of them were wiped
    call wipe_vmpcks
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

# send_request(): the message, to the second page. Its number, and that of the answer, are spent before it is sealed.
send_request:
    mov eax, [rip + linker.snp_secrets + mh_secrets_page.messages0]
    add dword ptr [rip + linker.snp_secrets + mh_secrets_page.messages0], 2
    inc eax
    mov rdx, REQUEST
    call describe_message
    mov rdi, [r13 + lane.slot_data]
    add rdi, MH_PAGE_BYTES
    pxor xmm0, xmm0
    movdqu [rdi + mh_message.tag + 16], xmm0
    movdqu [rdi + mh_message.sequence], xmm0
    mov [rdi + mh_message.sequence], rax
.irp offset, 0, 16, 32
    movdqu xmm0, [r13 + lane.packet + sealed.aad + \offset]
    movdqu [rdi + mh_message.algorithm + \offset], xmm0
.endr
    lea rsi, [r12 + vcpu.hello]
    lea rdx, [rdi + sizeof.mh_message]
    mov ecx, sizeof.mh_report_request
    mov rax, rdi
    call describe_job
    jmp gcm_seal

# take_answer() -> eax: status; zero flag set with MH_DONE, and the answer is at ANSWER. It must have the header that we expect: of
# the host's nothing is read.
take_answer:
    mov rax, [r13 + lane.packet + sealed.iv]
    inc rax
    mov rdx, RESPONSE
    call describe_message
    mov rax, [r13 + lane.slot_data]
    add rax, 2 * MH_PAGE_BYTES
    lea rsi, [rax + sizeof.mh_message]
    lea rdx, [r12 + ANSWER]
    mov ecx, sizeof.mh_report_response
    call describe_job
    movdqu xmm0, [r12 + vcpu.derived + drawn.answer_mask]
    call gcm_open
    test eax, eax               # survives dropped: where nothing is opened there are zeros, and so no size
    jnz .Lno_report             # survives dropped: the same
    cmp dword ptr [r12 + ANSWER + mh_report_response.status], 0
    jne .Lno_report
    cmp dword ptr [r12 + ANSWER + mh_report_response.report_bytes], MH_REPORT_BYTES
    jne .Lno_report
    ret
.Lno_report:
    mov eax, MH_NO_REPORT
    test eax, eax
    ret

# show(): share and report, to the fourth page -> edx: MH_DONE
show:
    mov rdi, [r13 + lane.slot_data]
    add rdi, 3 * MH_PAGE_BYTES
    lea rsi, [r12 + vcpu.hello + mh_report_data.share]
    mov ecx, MH_SHARE_BYTES
    rep movsb
    lea rsi, [r12 + ANSWER + mh_report_response.report]
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
    lea rdi, [r13 + lane.page_key]
    lea rsi, [r12 + vcpu.derived + MH_KEY_BYTES]
    call gcm_key_init
    mov eax, [r12 + vcpu.features]
    mov [r13 + lane.page_key + gcm_key.features], eax
    movzx eax, word ptr [r13 + lane.slot]
    call locate
    xor eax, eax                # the IV
    call describe_iv
    mov rsi, [r13 + lane.slot_packet]
    lea rax, [rsi + mh_sealed.tag]
    mov rdx, [rip + linker.params + mh_params.secret_va]
    mov ecx, sizeof.mh_sealed - MH_TAG_BYTES
    call describe_job
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

# describe_message(rax: number, rdx: the first 8 bytes of the additional data): both to lane.packet. Keeps rax.
describe_message:
    mov [r13 + lane.packet + sealed.aad], rdx
    xor edx, edx
.irp offset, 8, 16, 24, 32, 40
    mov [r13 + lane.packet + sealed.aad + \offset], rdx
.endr
describe_iv:                     # rax: its first 8 bytes
    mov [r13 + lane.packet + sealed.iv], rax
    mov qword ptr [r13 + lane.packet + sealed.iv + 8], 0
    ret

# describe_job(rsi: source, rdx: destination, ecx: bytes, rax: tag) -> rdi key, rsi job, for what lane.packet describes
describe_job:
    lea rdi, [r13 + lane.job]
    mov [rdi + gcm_job.source], rsi
    mov [rdi + gcm_job.destination], rdx
    mov [rdi + gcm_job.bytes], rcx
    mov [rdi + gcm_job.tag], rax
    lea rax, [r13 + lane.packet + sealed.iv]
    mov [rdi + gcm_job.iv], rax
    lea rax, [r13 + lane.packet + sealed.aad]
    mov [rdi + gcm_job.aad], rax
    mov qword ptr [rdi + gcm_job.aad_bytes], AAD_BYTES
    lea rax, [r12 + vcpu.scratch]
    mov [rdi + gcm_job.scratch], rax
    mov rsi, rdi
    lea rdi, [r13 + lane.page_key]
    ret

.section .rodata
.balign 16
.Llabel:
    .ascii MH_SHARE_LABEL

.bss
.balign 64
attest_asked: .zero 64          # bit 0

.endif
