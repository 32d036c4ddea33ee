# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# What a helper at VMPL0 of an SNP guest does to the RMP for the guest, which runs at VMPL1: takes pages, lends them, makes
# VMSAs and takes them back; and where the guest is.
#
# A page is validated once, and a bit says so: behind a GPA that is validated again the host may have put another page
# (docs/snp.md, vcpu-validate-remapped). That CF is set where no bit is says that somebody else has validated it.
#
# Only ring 0 runs a vCPU of the guest, and only ring 0's part in FINISH lets the guest go, before its packet is sealed. So
# whatever the other rings do, and wherever a host stops a vCPU: either there is no such packet, or the guest is silent here.

.ifdef MH_START_SNP

.include "vcpu.inc"

.extern ask_host
.extern clear_bits
.extern set_bits
.extern wipe_vmpcks
.extern linker.validated

# Where the guest is. An even number: here, and whole.
.equ GUEST_HERE, 0
.equ GUEST_COMING, 1
.equ GUEST_CAME, 2
.equ GUEST_GONE, 3

# RMPADJUST, EDX: VMPL, its rights, whether the page is a VMSA.
.equ VMPL1, 1
.equ LENT, VMPL1 | 0xf << 8     # read, write, execute at any CPL; no shadow stacks of supervisors, which not all parts have
.equ VMSA, VMPL1 | 1 << 16

# Of the save area (APM volume 2, table B-4).
.equ vmsa.vmpl, 0xca
.equ SNP_ACTIVE, 1 << 0         # of SEV_FEATURES, which KVM wants to be told

.bss
.balign 64
guest: .zero 64                 # GUEST_...
.global guest_vcpus             # a bit for each page of MH_BATCH_VMSA: it is a VMSA now
guest_vcpus: .zero MH_VMSA_BYTES / MH_PAGE_BYTES / 8

.text

# admit() -> eax: status; zero flag set with MH_DONE. The pages of the chunk at work become ours.
.global admit
admit:
    push rbp
    push rbx
    push r15
    mov rbp, [r13 + lane.page]
.Lpage:
    mov rdi, offset linker.validated
    bt [rdi], rbp
    jc .Lours
    call validate
    jnz .Lnot_fresh
    mov rsi, rbp
    mov ecx, 1
    mov rdi, offset linker.validated
    call set_bits
.Lours:
    inc rbp
    add r15, MH_PAGE_BYTES
    dec ebx
    jnz .Lpage
    xor eax, eax                # MH_DONE
.Ladmitted:
    pop r15
    pop rbx
    pop rbp
    ret
.Lnot_fresh:
    mov eax, MH_NOT_FRESH
    jmp .Ladmitted

# lend() -> eax: MH_DONE. VMPL1 may have the pages of the chunk at work, which are whole: since the launch, or the import. One
# whose import has failed stays out of its reach: it would be garbage there, where a page that never came is a fault.
.global lend
lend:
    mov edx, LENT
    jmp .Ladjust

# take_back(): where the chunk at work is one of VMSAs, they are none any more. One that runs on another CPU stays what it is
# (FAIL_INUSE), and keeps its bit.
.global take_back
take_back:
    test word ptr [r13 + lane.flags], MH_BATCH_VMSA
    jz .Lnone
    mov edx, VMPL1
.Ladjust:
    push rbp
    push rbx
    push r15
    mov ebp, edx
.Ltake:
    mov edx, ebp
    call adjust
    cmp ebp, VMPL1
    jne .Ltaken
    mov rsi, r15
    sub rsi, [rip + linker.params + mh_params.vmsa_va]
    shr rsi, 12
    xor ecx, ecx                # no vCPU of the guest is number 0
    test eax, eax
    cmovnz esi, ecx
    inc ecx
    lea rdi, [rip + guest_vcpus]
    call clear_bits
.Ltaken:
    add r15, MH_PAGE_BYTES
    dec ebx
    jnz .Ltake
    xor eax, eax                # MH_DONE
    jmp .Ladmitted
.Lnone:
    ret

# run_guest() -> eax: status. vCPU `count` goes on with page `count` of MH_BATCH_VMSA. The host is asked, not believed: it may
# leave that.
.global run_guest
run_guest:
    mov eax, MH_WRONG_STATE
    test dword ptr [rip + session_generation], 1
    jnz 1f
    test dword ptr [rip + guest], 1
    jnz 1f
    mov eax, MH_BAD_ENTRY
    movzx ecx, word ptr [r13 + lane.count]
    dec ecx
    cmp ecx, MH_VMSA_BYTES / MH_PAGE_BYTES - 1
    jae 1f
    push r15
    push rbx
    lea ebx, [rcx + 1]
    mov r15, rbx
    shl r15, 12
    add r15, [rip + linker.params + mh_params.vmsa_va]
    mov eax, MH_BAD_VMSA
    cmp byte ptr [r15 + vmsa.vmpl], VMPL1
    jne 2f
    mov rsi, rbx
    mov ecx, 1
    lea rdi, [rip + guest_vcpus]
    call set_bits
    mov edx, VMSA
    call adjust
    call create_vcpu
    mov eax, MH_DONE
2:  pop rbx
    pop r15
1:  ret

# create_vcpu(ebx: vCPU, r15: its VMSA): AP_CREATION, with the data page of `slot` for the GHCB.
create_vcpu:
    movzx esi, word ptr [r13 + lane.slot]
    shl rsi, 12
    add rsi, [r13 + lane.data]
    mov qword ptr [rsi + mh_ghcb.rax], SNP_ACTIVE
    mov r8, rbx
    shl r8, 32
    or r8, MH_GHCB_AP_CREATE
    mov r9, r15                 # RAM_VA is request address 0, which is GPA 0
    sub r9, [rip + linker.params + mh_params.window_va]
    mov ecx, MH_GHCB_AP_CREATION
    jmp ask_host

# may_start() -> eax: status. A guest that has gone never comes back, one that has not come whole goes nowhere, and none comes
# over one that has come whole, or that may run.
.global may_start
may_start:
    mov ecx, [rip + guest]
    mov eax, MH_WRONG_STATE
    cmp word ptr [r13 + lane.role], MH_ROLE_SOURCE
    je 1f
    cmp ecx, GUEST_COMING
    ja 2f
    call runs
    jnz 2f
    jmp 3f
1:  test ecx, 1
    jnz 2f
3:  mov eax, MH_DONE
2:  ret

# starts(): the session begins; a target's guest is coming. What an earlier session has brought is lent anew when it comes
# again: a host that leaves it out now would show the guest its old contents.
.global starts
starts:
    cmp word ptr [r13 + lane.role], MH_ROLE_SOURCE
    je .Lleaves
    mov dword ptr [rip + guest], GUEST_COMING
    push r15
    mov rsi, offset linker.validated
    mov rdi, [rip + linker.params + mh_params.ram_limit]
    dec rdi
    shr rdi, 12 + 6             # the last word
    xor r8d, r8d
.Lword:
    mov r9, [rsi + r8 * 8]
    test r9, r9
    jz .Lnext
.Lbit:
    bsf r15, r9
    lea rax, [r9 - 1]
    and r9, rax
    mov rax, r8
    shl rax, 6
    add r15, rax
    shl r15, 12
    add r15, [rip + linker.params + mh_params.window_va]
    mov edx, VMPL1
    call adjust
    test r9, r9
    jnz .Lbit
.Lnext:
    inc r8
    cmp r8, rdi
    jbe .Lword
    pop r15
.Lleaves:
    ret

# may_go() -> eax: status. Before this ring seals the packet that ends its part of the session.
.global may_go
may_go:
    xor eax, eax                # MH_DONE
    cmp dword ptr [r12 + vcpu.index], 0
    jne 1f
    cmp dword ptr [r12 + vcpu.phase], PHASE_SOURCE
    jne 1f
    mov eax, MH_RUNNING
    call runs
    jnz 1f
    mov dword ptr [rip + guest], GUEST_GONE
    mov eax, MH_DONE
1:  ret

# runs(): zero flag set if no page is a VMSA of the guest's. Keeps eax.
runs:
    lea rsi, [rip + guest_vcpus]
    mov ecx, MH_VMSA_BYTES / MH_PAGE_BYTES / 64
    xor edx, edx
1:  or rdx, [rsi + rcx * 8 - 8]
    dec ecx
    jnz 1b
    test rdx, rdx
    ret

# arrived(): all rings agree that all has come; or all has gone, and that stays so. The context moves before that, or not at all.
.global arrived
arrived:
    call wipe_vmpcks
    mov eax, [rip + guest]
    mov ecx, GUEST_CAME
    cmp eax, GUEST_COMING
    cmove eax, ecx
    mov [rip + guest], eax
    ret

# validate(r15: page): zero flag set if it was not validated before, and is now.
validate:
    mov rax, r15
    xor ecx, ecx                # 4 KiB
    mov edx, 1
    .byte 0xf2, 0x0f, 0x01, 0xff # PVALIDATE
    sbb ecx, ecx
    or eax, ecx
    ret

# adjust(r15: page, edx: what VMPL1 may, and whether it is a VMSA) -> eax: what the CPU says
adjust:
    mov rax, r15
    xor ecx, ecx                # 4 KiB
    .byte 0xf3, 0x0f, 0x01, 0xfe # RMPADJUST
    ret

.endif
