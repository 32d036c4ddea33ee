# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# context: what the secure processor knows of the guest (digests, policy, the root of its keys) leaves with the guest, in a packet of
# ring 0's stream, and takes the place of what it knows of the target. attest.h has the messages.
#
# The guest is gone before it is asked for, as before FINISH: so whatever a host does with the packet, nothing runs here any more.
# What comes of ABSORB_NOMA is not known where its answer is lost; the target's guest runs then as well, as it would without.
#
# From the answer until the end the context, with all keys of the guest, is in vcpu.message, which every end of a session wipes.

.ifdef MH_START_SNP

.include "vcpu.inc"
.include "message.inc"

.extern agree
.extern consult
.extern draw
.extern forget_start
.extern fresh_mask
.extern locate
.extern may_end
.extern may_go
.extern take_vmpck
.extern wipe_vmpcks

.equ EXPORT, MESSAGE_HEADER | MH_MESSAGE_EXPORT_REQ << MESSAGE_TYPE_SHIFT | sizeof.mh_export_request << MESSAGE_BYTES_SHIFT
.equ EXPORTED, MESSAGE_HEADER | (MH_MESSAGE_EXPORT_REQ + 1) << MESSAGE_TYPE_SHIFT | sizeof.mh_export_response << MESSAGE_BYTES_SHIFT
.equ ABSORB, MESSAGE_HEADER | MH_MESSAGE_ABSORB_NOMA_REQ << MESSAGE_TYPE_SHIFT | sizeof.mh_absorb_request << MESSAGE_BYTES_SHIFT
.equ ABSORBED, MESSAGE_HEADER | (MH_MESSAGE_ABSORB_NOMA_REQ + 1) << MESSAGE_TYPE_SHIFT | sizeof.mh_absorb_response << MESSAGE_BYTES_SHIFT

.text

# context() -> eax: status
.global context
context:
    mov eax, MH_BAD_ENTRY
    cmp word ptr [r13 + lane.slot], MH_RING_SLOTS - MH_MESSAGE_PAGES
    ja .Lrefused
    call may_end
    test eax, eax               # survives dropped: may_end leaves the same zero flag
    jnz .Lrefused
    call draw
    test eax, eax
    jnz .Lrefused
    cmp dword ptr [r12 + vcpu.phase], PHASE_TARGET
    je .Larrives
    call take_vmpck
    mov eax, MH_NO_KEY
    jz .Lrefused
    call may_go
    test eax, eax               # survives dropped: may_go leaves the same zero flag, on ring 0 of a source
    jnz .Lforget
    call wipe_vmpcks
    movzx eax, word ptr [r13 + lane.slot]
    call locate
    mov rax, [r13 + lane.slot_packet]
    mov rax, [rax]              # of the host's; another guest's is refused, for we are not its agent
    mov [r12 + vcpu.message + mh_export_request.context], rax
    mov qword ptr [r12 + vcpu.message + mh_export_request.flags], MH_EXPORT_IMI
    mov rdx, EXPORT
    mov rcx, EXPORTED
    call ask
    jnz .Lno_context
    cmp dword ptr [r12 + vcpu.message + mh_export_response.context_bytes], MH_CONTEXT_BYTES
    jne .Lno_context
    cmp dword ptr [r12 + vcpu.message + mh_export_response.context_version], MH_CONTEXT_VERSION
    jne .Lno_context
    call agree_on_context
.Lforget:
    call forget_start
.Lrefused:
    ret
.Lno_context:
    mov eax, MH_NO_CONTEXT
    jmp .Lforget

.Larrives:
    call agree_on_context
    test eax, eax
    jnz .Lforget
    call take_vmpck
    jz .Lno_context             # survives dropped: with no key nothing is sealed or opened
    call wipe_vmpcks
    # What is not set here is zeros, as every operation leaves it.
    mov dword ptr [r12 + vcpu.message + mh_absorb_request.context_bytes], MH_CONTEXT_BYTES
    mov dword ptr [r12 + vcpu.message + mh_absorb_request.context_version], MH_CONTEXT_VERSION
    mov rdx, ABSORB
    mov rcx, ABSORBED
    call ask
    jnz .Lno_context
    jmp .Lforget

# agree_on_context() -> eax: status. The packet, whose data is or comes into vcpu.message.
agree_on_context:
    mov eax, MH_KIND_CONTEXT
    mov rdx, [r12 + vcpu.pages]
    lea rsi, [r12 + vcpu.message + mh_export_response.context]
    mov r8d, MH_CONTEXT_BYTES
    jmp agree

# ask(rdx, rcx: as of consult): what vcpu.message says; the zero flag is set, and eax 0, if the secure processor has done it.
ask:
    push rdx
    push rcx
    call fresh_mask
    movdqu [r12 + vcpu.derived + drawn.mask], xmm0
    pop rcx
    pop rdx
    lea rsi, [r12 + vcpu.message]
    call consult
    test eax, eax
    jnz 1f
    mov eax, [r12 + vcpu.message + mh_export_response.status]
    test eax, eax
1:  ret

.endif
