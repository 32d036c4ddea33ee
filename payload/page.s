# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# export, import, finish: what a session is for.

.include "state.inc"

.extern abort
.extern check_address
.extern check_packet
.extern check_turn
.extern fetch_packet
.extern open_packet
.extern seal_packet
.extern wipe_session

.text
.global export_page
export_page:
    cmp dword ptr [rip + state_phase], PHASE_SOURCE
    jne .Lwrong_state
    mov rdi, [rip + state_entry + mh_submission.address]
    call check_address
    test eax, eax
    jnz .Lrefused
    mov rsi, rdx
    mov rdx, [rip + state_entry + mh_submission.address]
    mov eax, MH_KIND_PAGE
    mov ecx, MH_PAGE_BYTES
    call seal_packet
    inc qword ptr [rip + state_pages]
    mov eax, MH_DONE
.Lrefused:
    ret
.Lwrong_state:
    mov eax, MH_WRONG_STATE
    ret

# Nothing of the page changes before the tag is verified.
.global import_page
import_page:
    cmp dword ptr [rip + state_phase], PHASE_TARGET
    jne .Lwrong_state
    push r13
    mov rdi, [rip + state_entry + mh_submission.address]
    call check_address
    test eax, eax
    jnz .Limport_refused
    mov r13, rdx
    call fetch_packet
    mov eax, MH_KIND_PAGE
    mov ecx, MH_PAGE_BYTES
    call check_packet
    test eax, eax
    jnz .Limport_refused
    mov rax, [rip + state_packet + mh_packet.address]
    cmp rax, [rip + state_entry + mh_submission.address]
    jne .Lwrong_address
    call check_turn
    test eax, eax
    jnz .Limport_refused
    mov ecx, MH_PAGE_BYTES
    call open_packet
    test eax, eax
    jnz .Limport_refused
    mov rdi, r13
    lea rsi, [rip + state_bounce]
    mov ecx, MH_PAGE_BYTES / 8
    rep movsq
    inc qword ptr [rip + state_pages]
    mov eax, MH_DONE
.Limport_refused:
    pop r13
    ret
.Lwrong_address:
    mov eax, MH_WRONG_ADDRESS
    pop r13
    ret

# The end packet carries the number of pages; both sides answer with the same authenticated total.
.global finish
finish:
    mov eax, [rip + state_phase]
    cmp eax, PHASE_TARGET
    je .Lfinish_target
    cmp eax, PHASE_SOURCE
    jne .Lwrong_state
    mov eax, MH_KIND_END
    xor ecx, ecx
    mov rdx, [rip + state_pages]
    xor esi, esi
    call seal_packet
    jmp .Lfinished
.Lfinish_target:
    call fetch_packet
    mov eax, MH_KIND_END
    xor ecx, ecx
    call check_packet
    test eax, eax
    jnz .Lrefused
    call check_turn
    test eax, eax
    jnz .Lrefused
    xor ecx, ecx
    call open_packet
    test eax, eax
    jnz .Lrefused
    mov rax, [rip + state_packet + mh_packet.address]
    cmp rax, [rip + state_pages]
    jne .Lbad_totals
.Lfinished:
    call wipe_session
    mov dword ptr [rip + state_phase], PHASE_IDLE
    mov eax, MH_DONE
    ret
.Lbad_totals:
    call abort
    mov eax, MH_BAD_TOTALS
    ret
