# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# Ends of epochs and sessions: a packet of the source carries how many pages there were, the target compares.

.include "state.inc"

.extern abort
.extern bitmap_clear
.extern check_packet
.extern check_turn
.extern fetch_packet
.extern locate
.extern open_packet
.extern seal_packet
.extern wipe_session

.text
.global end_epoch
end_epoch:
    mov eax, MH_KIND_EPOCH
    mov rdx, [rip + state_epoch_pages]
    call agree
    test eax, eax
    jnz .Lrefused
    inc dword ptr [rip + state_epoch]
    mov qword ptr [rip + state_epoch_pages], 0
    call bitmap_clear
    mov eax, MH_DONE
    ret

.global finish
finish:
    mov eax, MH_KIND_END
    mov rdx, [rip + state_pages]
    call agree
    test eax, eax
    jnz .Lrefused
    call wipe_session
    mov dword ptr [rip + state_phase], PHASE_IDLE
    mov eax, MH_DONE
.Lrefused:
    ret

# agree(eax: kind, rdx: pages) -> eax: status
agree:
    push rax
    push rdx
    movzx eax, word ptr [rip + state_entry + mh_submission.slot]
    call locate
    mov ecx, [rip + state_phase]
    cmp ecx, PHASE_TARGET
    je .Lcompare
    cmp ecx, PHASE_SOURCE
    jne .Lwrong_state
    pop rdx
    pop rax
    xor ecx, ecx
    xor esi, esi
    xor r8d, r8d
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
    xor ecx, ecx
    call open_packet
    test eax, eax
    jnz .Lout
    mov rdx, [rsp]
    cmp rdx, [rip + state_packet + mh_packet.address]
    je .Lout
    call abort
    mov eax, MH_BAD_TOTALS
    jmp .Lout
.Lwrong_state:
    mov eax, MH_WRONG_STATE
.Lout:
    pop rdx
    pop rdx
    ret
