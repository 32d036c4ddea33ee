# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The strict finish: where the owner asks for it, FINISH at the source proves that no page has changed since this ring
# exported it last. For every page of RAM there is an authenticator: under which number it was sealed, and the tag that came
# of it. A page that is sealed again in registers, under the same number, must give the same tag; nothing of that
# is written anywhere. A chunk is one page then.
#
# Only images that are built for it have the room (mh_params.authenticators_va).

.include "vcpu.inc"

.extern gcm_matches
.extern scan

.text

# authenticator(rax: number of the page in the bitmaps) -> rdi: its authenticator. Keeps all but rax.
authenticator:
    mov rdi, rax
    shl rdi, AUTHENTICATOR_SHIFT
    add rdi, [rip + linker.params + mh_params.authenticators_va]
    ret

# begin_authenticator(rsi: job): the tag goes into the authenticator of the page at work, of which it is none until it is whole.
# Keeps rsi.
.global begin_authenticator
begin_authenticator:
    mov rax, [r13 + lane.page]
    call authenticator
    mov word ptr [rdi + authenticator.kind], 0
    add rdi, authenticator.tag
    mov [rsi + gcm_job.tag], rdi
    ret

# end_authenticator(): the page at work has been sealed as lane.packet says; its tag goes to the ring.
.global end_authenticator
end_authenticator:
    mov rax, [r13 + lane.page]
    call authenticator
    movdqu xmm0, [rdi + authenticator.tag]
    mov rsi, [r13 + lane.slot_packet]
    movdqu [rsi + mh_packet.tag], xmm0
    mov rax, [r13 + lane.packet + mh_packet.sequence]
    mov [rdi + authenticator.sequence], rax
    mov eax, [r13 + lane.packet + mh_packet.epoch]
    mov [rdi + authenticator.epoch], eax
    mov eax, [r13 + lane.packet + mh_packet.stream]
    mov [rdi + authenticator.stream], ax
    mov ax, [r13 + lane.packet + mh_packet.kind]
    mov [rdi + authenticator.kind], ax
    ret

# forget_authenticators(rdx: word of the bitmaps, rax: its bits): of these pages. Loses rax, r10, r11.
.global forget_authenticators
forget_authenticators:
    mov r11, [rip + linker.params + mh_params.authenticators_va]
    mov r10, rdx
    shl r10, 6 + AUTHENTICATOR_SHIFT    # a word is 64 pages
    add r11, r10
1:  test rax, rax
    jz 2f
    bsf r10, rax
    btr rax, r10
    shl r10, AUTHENTICATOR_SHIFT
    mov word ptr [r11 + r10 + authenticator.kind], 0
    jmp 1b
2:  ret

# unchanged() -> eax: MH_DONE, or MH_CHANGED if any page that this ring exported last is not what it was. lane.packet and
# lane.job of the lane at work serve as scratch.
.global unchanged
unchanged:
    push rbx
    push rbp
    push r14
    push r15
    mov rbp, [rip + linker.params + mh_params.ram_limit]
    add rbp, MH_VMSA_BYTES
    shr rbp, 12                 # pages that have bits
    xor ebx, ebx                # the first page of the word in r14
.Lword:
    mov rax, rbx
    shr rax, 6
    mov rdx, [rip + linker.params + mh_params.bitmap_va]
    mov r14, [rdx + rax * 8]    # moved in this epoch
    mov rdx, [rip + linker.params + mh_params.moved_va]
    or r14, [rdx + rax * 8]     # or in an earlier one: every ring's pages
.Lbit:
    test r14, r14
    jz .Lnext
    bsf rax, r14
    btr r14, rax
    add rax, rbx
    call page_unchanged
    jnz .Lchanged
    jmp .Lbit
.Lnext:
    add rbx, 64
    cmp rbx, rbp
    jb .Lword
    mov eax, MH_DONE
    jmp .Lout
.Lchanged:
    mov eax, MH_CHANGED
.Lout:
    pop r15
    pop r14
    pop rbp
    pop rbx
    ret

# page_unchanged(rax: number of the page in the bitmaps) -> zero flag set if it is, or is another ring's. Loses r15.
page_unchanged:
    mov rdx, rax
    call authenticator
    lea rsi, [r12 + vcpu.bulk]
    movzx ecx, word ptr [rdi + authenticator.stream]
    cmp ecx, [rsi + lane.stream]
    je .Lours
    lea rsi, [r12 + vcpu.urgent]
    cmp ecx, [rsi + lane.stream]
    jne .Lanother
.Lours:
    movzx eax, word ptr [rdi + authenticator.kind]
    test eax, eax
    jz .Lanother
    push rsi
    push rax
    call describe_again
    pop rcx                     # kind
    pop rdi                     # lane whose key it is
    cmp ecx, MH_KIND_ZERO
    jne .Lsealed
    # A page of zeros was sealed without contents, so that its tag does not tell: look at the page.
    push rbx
    mov ebx, 1
    call scan
    pop rbx
    test eax, eax               # survives dropped: scan leaves the same zero flag
    jnz .Lreturn
.Lsealed:
    lea rdi, [rdi + lane.page_key]
    lea rsi, [r13 + lane.job]
    call gcm_matches
    test eax, eax
    ret
.Lanother:
    cmp eax, eax
.Lreturn:
    ret

# describe_again(rdi: authenticator, rdx: number of the page, eax: kind): lane.packet and lane.job as they were when the page
# was sealed, r15: its virtual address.
describe_again:
    lea rsi, [r13 + lane.packet]
    mov dword ptr [rsi + mh_packet.magic], MH_PACKET_MAGIC
    mov [rsi + mh_packet.kind], ax
    mov ecx, [r12 + vcpu.protocol]
    mov [rsi + mh_packet.version], cx
    mov dword ptr [rsi + mh_packet.length], MH_PAGE_BYTES
    movzx ecx, word ptr [rdi + authenticator.stream]
    mov [rsi + mh_packet.stream], ecx
    mov rcx, [rdi + authenticator.sequence]
    mov [rsi + mh_packet.sequence], rcx
    mov ecx, [rdi + authenticator.epoch]
    mov [rsi + mh_packet.epoch], ecx
    mov dword ptr [rsi + mh_packet.reserved], 0
    mov qword ptr [rsi + mh_packet.urgent], 0
    movdqu xmm0, [r12 + vcpu.session]
    movdqu [rsi + mh_packet.session], xmm0
    shl rdx, 12
    mov r15, [rip + linker.params + mh_params.window_va]
    cmp eax, MH_KIND_VMSA
    jne 1f
    sub rdx, [rip + linker.params + mh_params.ram_limit]
    mov r15, [rip + linker.params + mh_params.vmsa_va]
1:  add r15, rdx
    mov [rsi + mh_packet.address], rdx
    lea rcx, [r13 + lane.job]
    mov [rcx + gcm_job.aad], rsi
    add rsi, MH_PACKET_IV_OFFSET
    mov [rcx + gcm_job.iv], rsi
    mov qword ptr [rcx + gcm_job.aad_bytes], MH_PACKET_AAD_BYTES
    mov [rcx + gcm_job.source], r15
    xor edx, edx
    mov esi, MH_PAGE_BYTES
    cmp eax, MH_KIND_ZERO
    cmove esi, edx
    mov [rcx + gcm_job.bytes], rsi
    add rdi, authenticator.tag
    mov [rcx + gcm_job.tag], rdi
    ret
