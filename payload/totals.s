# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Ends of epochs and sessions: on every ring a packet of the source carries how many pages there were on it, and how many
# packets on its urgent lane; the target compares. The last ring of the session to agree ends the epoch or the session:
# how many rings there are is in every key, so none can be left out.

.include "vcpu.inc"

.extern abort
.extern attend
.extern bitmap_clear
.extern check_packet
.extern check_turn
.extern count
.extern fetch_packet
.extern locate
.extern open_packet
.extern seal_packet
.extern wipe_session

.text
.global end_epoch
end_epoch:
    mov eax, MH_KIND_EPOCH
    mov rdx, [r12 + vcpu.epoch_pages]
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
    call bitmap_clear
    mov qword ptr [rip + session_progress + progress.ended], 0
    inc dword ptr [rip + session_epoch]
    call attend
.Lagreed:
    mov eax, MH_DONE
.Lrefused:
    ret

.global finish
finish:
    mov eax, MH_KIND_END
    mov rdx, [r12 + vcpu.pages]
    call agree
    test eax, eax
    jnz .Lrefused
    call wipe_session
    lea rdi, [rip + session_progress + progress.pages]
    mov rsi, [r12 + vcpu.pages]
    call count
    mov [r13 + lane.completion + mh_completion.total], rax
    lea rdi, [rip + session_progress + progress.finished]
    mov esi, 1
    call count
    cmp rax, [r12 + vcpu.streams]
    mov ecx, PHASE_FINISHED
    jne .Lfinished
    mov rax, [r12 + vcpu.generation]
    lea rdx, [rax + 1]
    lock cmpxchg [rip + session_generation], rdx
    xor ecx, ecx                # PHASE_IDLE
.Lfinished:
    mov [r12 + vcpu.phase], ecx
    mov eax, MH_DONE
    ret

# agree(eax: kind, rdx: pages) -> eax: status
agree:
    push rax
    push rdx
    mov ecx, [r12 + vcpu.phase]
    cmp ecx, PHASE_SOURCE
    je 1f
    cmp ecx, PHASE_TARGET
    jne .Lwrong_state
1:  cmp dword ptr [r12 + vcpu.ended], 0
    jne .Lpending
    movzx eax, word ptr [r13 + lane.entry + mh_submission.slot]
    call locate
    cmp dword ptr [r12 + vcpu.phase], PHASE_TARGET
    je .Lcompare
    pop rdx
    pop rax
    xor ecx, ecx
    xor esi, esi
    xor r8d, r8d
    mov r9, [r12 + vcpu.urgent + lane.sequence]
    call seal_packet
    mov eax, MH_DONE
    ret
.Lcompare:
    call fetch_packet
    mov rax, [rsp + 8]
    xor ecx, ecx
    call check_packet
    test eax, eax
    jnz .Lout
    call check_turn
    test eax, eax
    jnz .Lout
    mov rax, [r13 + lane.packet + mh_packet.urgent]
    cmp rax, [r12 + vcpu.urgent + lane.sequence]
    jne .Lincomplete
    xor ecx, ecx
    call open_packet
    test eax, eax
    jnz .Lout
    mov rdx, [rsp]
    cmp rdx, [r13 + lane.packet + mh_packet.address]
    je .Lout
    call abort
    mov eax, MH_BAD_TOTALS
    jmp .Lout
.Lwrong_state:
    mov eax, MH_WRONG_STATE
    jmp .Lout
.Lpending:
    mov eax, MH_EPOCH_PENDING
    jmp .Lout
.Lincomplete:
    mov eax, MH_INCOMPLETE
.Lout:
    pop rdx
    pop rdx
    ret
