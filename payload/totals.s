# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Ends of epochs and sessions: on every ring a packet of the source carries how many pages there were on it, and how many
# packets on its urgent lane; the target compares. The last ring of the session to agree ends the epoch or the session:
# how many rings there are is in every key, so none can be left out.

.include "vcpu.inc"

.extern abort
.ifdef MH_START_SNP
.extern arrived
.extern may_go
.endif
.extern attend
.extern bitmap_turn
.extern check_packet
.extern check_turn
.extern count
.extern describe_packet
.extern locate
.extern open_packet
.extern seal_packet
.extern unchanged
.extern wipe_session

.text
.global end_epoch
end_epoch:
    mov eax, MH_KIND_EPOCH
    mov rdx, [r12 + vcpu.epoch_pages]
    xor r8d, r8d
    call agree
    test eax, eax
    jnz .Lrefused
    mov dword ptr [r12 + vcpu.ended], 1
    lea rdi, [rip + session_progress + progress.ended]
    mov esi, 1
    call count
    cmp rax, [r12 + vcpu.streams]
    jne .Lagreed
    # All rings have: they wait for the new number, which comes last.
    call bitmap_turn
    mov qword ptr [rip + session_progress + progress.ended], 0
    inc dword ptr [rip + session_epoch]
    call attend
.Lagreed:
    mov eax, MH_DONE
.Lrefused:                       # finish's too
    ret

.global finish
finish:
    cmp dword ptr [r12 + vcpu.strict], 0
    je .Lproven
    call may_end
    test eax, eax               # survives dropped: may_end leaves the same zero flag
    jnz .Lrefused
    call unchanged
    test eax, eax
    jnz .Lrefused
.Lproven:
.ifdef MH_START_SNP
    call may_end
    test eax, eax               # survives dropped: the same
    jnz .Lrefused
    call may_go
    test eax, eax
    jnz .Lrefused
.endif
    mov eax, MH_KIND_END
    mov rdx, [r12 + vcpu.pages]
    xor r8d, r8d
    call agree
    test eax, eax
    jnz .Lrefused
    call wipe_session
    lea rdi, [rip + session_progress + progress.pages]
    mov rsi, [r12 + vcpu.pages]
    call count
    lea rdi, [rip + session_progress + progress.finished]
    mov esi, 1
    call count
    mov rcx, [rip + session_progress + progress.pages]  # whoever has finished has counted them before
    mov rdx, [r13 + lane.completion]
    mov [rdx + mh_completion.total], rcx
    cmp rax, [r12 + vcpu.streams]
    mov ecx, PHASE_FINISHED
    jne .Lfinished
.ifdef MH_START_SNP
    call arrived
.endif
    mov rax, [r12 + vcpu.generation]
    lea rdx, [rax + 1]
    lock cmpxchg [rip + session_generation], rdx     # survives unlocked: here vCPUs take turns; claims look at the bytes
    xor ecx, ecx                # PHASE_IDLE
.Lfinished:
    mov [r12 + vcpu.phase], ecx
    mov eax, MH_DONE
    ret

# agree(eax: kind, rdx: pages, rsi: private memory, r8d: bytes of it that go with the packet) -> eax: status. Where the packet is not
# the peer's, or counts other pages, the session is over.
.global agree
agree:
    push rax
    call may_end
    test eax, eax               # survives dropped: may_end leaves the same zero flag
    jnz .Lmust_not
    movzx eax, word ptr [r13 + lane.slot]
    call locate
    pop rax
    xor ecx, ecx
    mov r9, [r12 + vcpu.urgent + lane.sequence]
    call describe_packet
    cmp dword ptr [r12 + vcpu.phase], PHASE_TARGET
    je .Lcompare
    call seal_packet
    jmp .Lagreement
.Lcompare:
    push rsi
    push r8
    call same_end
    pop rcx
    pop rdx
    test eax, eax               # survives dropped: same_end leaves the same zero flag
    jnz .Lagreement
    call open_packet
.Lagreement:
    cmp eax, MH_BAD_TAG
    je .Lover
    cmp eax, MH_BAD_TOTALS
    je .Lover
    cmp eax, MH_NO_KEY
    je .Lover
    ret
.Lover:
    push rax
    call abort
    pop rax
    ret
.Lmust_not:
    pop rcx
    ret

# may_end() -> eax: MH_DONE if the ring takes part in a session, and has not ended the epoch. Keeps rdx, rsi, r8.
.global may_end
may_end:
    mov ecx, [r12 + vcpu.phase]
    sub ecx, PHASE_SOURCE
    cmp ecx, PHASE_TARGET - PHASE_SOURCE
    ja .Lwrong_state
    cmp dword ptr [r12 + vcpu.ended], 0
    jne .Lpending
    mov eax, MH_DONE
    ret
.Lwrong_state:
    mov eax, MH_WRONG_STATE
    ret
.Lpending:
    mov eax, MH_EPOCH_PENDING
    ret

# same_end() -> eax: status. The packet in the ring must be the end packet that describe_packet has described.
same_end:
    mov rsi, [r13 + lane.slot_packet]
    mov ax, [rsi + mh_packet.kind]
    cmp ax, [r13 + lane.packet + mh_packet.kind]
    mov eax, MH_BAD_PACKET
    jne 1f
    call check_packet
    test eax, eax               # survives dropped: check_packet leaves the same zero flag
    jnz 1f
    call check_turn
    test eax, eax               # survives dropped: check_turn leaves the same zero flag
    jnz 1f
    mov rax, [rsi + mh_packet.urgent]
    cmp rax, [r13 + lane.packet + mh_packet.urgent]
    mov eax, MH_INCOMPLETE
    jne 1f
    mov rax, [rsi + mh_packet.address]
    cmp rax, [r13 + lane.packet + mh_packet.address]
    mov eax, MH_BAD_TOTALS
    jne 1f
    mov eax, MH_DONE
1:  ret
