# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# abort, attend, resume: how a session ends, and what its vCPUs notice of that. session.s says which rules hold.

.include "vcpu.inc"

.extern wipe_session

.text

# others_rest(): zero flag set if no other vCPU is at work in a session, or about to end one. There is no session now, so it
# would be one that has ended: what such a vCPU is about to write belongs there, and must not come after what the next
# session writes.
.global others_rest
others_rest:
    mov rcx, [rip + linker.params + mh_params.vcpus]
    mov rdx, r12
.Lother:
    dec rcx
    jz .Lrest
    add rdx, [rip + linker.params + mh_params.vcpu_stride]
    cmp dword ptr [rdx + vcpu.ending], 0
    jne .Lrest
    cmp dword ptr [rdx + vcpu.busy], 0
    je .Lother
    cmp dword ptr [rdx + vcpu.phase], PHASE_SOURCE     # survives one less: only ring 0 greets, and none is attested
    jb .Lother
    cmp dword ptr [rdx + vcpu.phase], PHASE_FINISHED
    je .Lother
.Lrest:
    ret

# end_session(): for all rings. A vCPU that finds the session alive after it has said that it ends one is sure that no other
# begins before it is done: so it wipes that session's key, whoever has ended it. Keeps rcx, rdi, rsi.
.equ ENDING_MAYBE, 1
.equ ENDING_SURELY, 2
.global end_session
end_session:
    mov eax, ENDING_MAYBE
    lock xchg [r12 + vcpu.ending], eax
    test dword ptr [rip + session_generation], 1
    jz .Lnot_alive
    mov dword ptr [r12 + vcpu.ending], ENDING_SURELY
.Lsurely:                       # resume_ending goes on here, or below
    mov rax, [rip + session_generation]
    test eax, 1
    jz 1f
    lea rdx, [rax + 1]
    lock cmpxchg [rip + session_generation], rdx     # survives unlocked: here vCPUs take turns; claims look at the bytes
1:  call wipe_record
.Lnot_alive:
    mov dword ptr [r12 + vcpu.ending], 0
    ret

# resume_ending(): for a vCPU that is started where another one was lost: what that one was about to do.
.global resume_ending
resume_ending:
    cmp dword ptr [r12 + vcpu.ending], ENDING_SURELY
    je .Lsurely
    jmp .Lnot_alive

# attend(): notices that another ring has ended the session, or the epoch.
.global attend
attend:
    cmp dword ptr [r12 + vcpu.phase], PHASE_SOURCE
    jb .Lattended
    mov rax, [r12 + vcpu.generation]
    cmp rax, [rip + session_generation]
    jne .Lforget
    cmp dword ptr [r12 + vcpu.ended], 0     # survives one less: no epoch ends that this ring has not ended
    je .Lattended               # survives dropped: the same
    mov eax, [rip + session_epoch]
    cmp eax, [r12 + vcpu.epoch]
    je .Lattended
    mov [r12 + vcpu.epoch], eax
    mov dword ptr [r12 + vcpu.ended], 0
    mov qword ptr [r12 + vcpu.epoch_pages], 0
.Lattended:
    ret

# resume() -> eax: status. From now on nothing that was moved in this session is moved again on this ring.
.global resume
resume:
    mov eax, MH_WRONG_STATE
    mov ecx, [r12 + vcpu.phase]
    sub ecx, PHASE_SOURCE
    cmp ecx, PHASE_TARGET - PHASE_SOURCE
    ja 1f
    mov dword ptr [r12 + vcpu.live], 1
    mov eax, MH_DONE
1:  ret

# abort() -> eax: MH_DONE
.global abort
abort:
    call end_session
.Lforget:                       # attend goes on here: another ring has ended the session
    call wipe_session
    xor eax, eax                # MH_DONE
    mov [r12 + vcpu.pages], rax
    mov [r12 + vcpu.epoch], eax
    mov [r12 + vcpu.ended], eax
    mov [r12 + vcpu.live], eax
    mov [r12 + vcpu.strict], eax
    mov [r12 + vcpu.phase], eax # PHASE_IDLE
    ret

# wipe_record(): the session's key. Keeps rcx, rdx.
.global wipe_record
wipe_record:
    xor eax, eax
.irp offset, 0, 8, 16, 24
    mov [rip + session_record + record.key + \offset], rax
.endr
    ret
