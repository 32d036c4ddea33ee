# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# entry64: long mode, paging on through our tables; EDI says which ring. Nothing else of the start state is trusted,
# and nothing of an earlier run survives: a host that starts the helper anew finds no session.
#
# Two vCPUs in one block would share stack, keys and sequence numbers. So a vCPU takes the block before it touches
# anything, gives it back when it halts, and takes it again when it wakes. A host that has lost a vCPU in the middle of
# its work says so with MH_START_ANEW.

.include "vcpu.inc"

.extern detect_features
.extern end_session
.extern idt_pointer
.extern no_idt_pointer
.extern resume_ending
.extern serve
.extern stop
.extern wipe_record
.extern wipe_session
.extern linker.fault_stack_top
.extern linker.stack_top
.extern linker.vcpu

.equ CR0_MP, 1 << 1
.equ CR0_EM, 1 << 2
.equ CR0_TS, 1 << 3
.equ CR0_NE, 1 << 5
.equ CR0_WP, 1 << 16
.equ CR4_OSFXSR, 1 << 9
.equ CR4_OSXMMEXCPT, 1 << 10
.equ TSS_PRESENT_AVAILABLE, 0x89
.equ TSS_IST1, 36
.equ TSS_IO_MAP, 102

.text
.global entry64
entry64:
    lidt [rip + no_idt_pointer] # until there is a stack for a handler
    cli
    cld
    mov ebx, edi
    and ebx, MH_START_ANEW - 1
    cmp rbx, [rip + linker.params + mh_params.vcpus]
    jae stop
    mov rbp, [rip + linker.params + mh_params.vcpu_stride]
    imul rbp, rbx
    mov r12, offset linker.vcpu
    add r12, rbp
    mov edx, 1
    lock xchg [r12 + vcpu.busy], edx
    test edx, edx
    jz .Lclaimed
    test edi, MH_START_ANEW
    jz claimed_by_another
.Lclaimed:
    mov rsp, offset linker.stack_top
    add rsp, rbp
    mov [r12 + vcpu.index], ebx
    mov dword ptr [r12 + vcpu.features], 0      # of an earlier start: AVX may be off by now
    call open_lanes
    call load_segments
    call load_interrupts

    mov rax, cr0
    and rax, ~(CR0_EM | CR0_TS)
    or rax, CR0_WP | CR0_NE | CR0_MP
    mov cr0, rax
    mov rax, cr4
    or rax, CR4_OSFXSR | CR4_OSXMMEXCPT
    mov cr4, rax

    call detect_features
    mov [r12 + vcpu.features], eax
    call resume_ending
    # Ring 0 may have been lost while it began a session: before its own part in it, or with the key written.
    test ebx, ebx
    jz .Lend
    cmp dword ptr [r12 + vcpu.phase], PHASE_SOURCE     # survives one less: only ring 0 greets
    jb .Lended
.Lend:
    call end_session
    test ebx, ebx
    jnz .Lended
    call wipe_record
.Lended:
    call wipe_session
    mov dword ptr [r12 + vcpu.phase], PHASE_IDLE
    call open_ring
    jmp serve

# claimed_by_another(ebx: index): not a word about it but in the ring, and nothing of the block is touched, now or later.
.global claimed_by_another
claimed_by_another:
    imul rbx, rbx, MH_RING_BYTES
    add rbx, [rip + linker.params + mh_params.ring_va]
    mov dword ptr [rbx + mh_ring.state], MH_RING_CLAIMED
    jmp stop

# A GDT of its own for every vCPU: LTR marks the TSS busy.
load_segments:
    lea rdi, [r12 + vcpu.gdt]
    xor eax, eax
    mov [rdi], rax
    mov rax, 0x00af9b000000ffff         # 64-bit code, accessed
    mov [rdi + SELECTOR_CODE], rax
    mov rax, 0x00cf93000000ffff         # data, accessed
    mov [rdi + SELECTOR_DATA], rax
    # APM volume 2, figure 4-22. Written whole: after an earlier start it would be busy.
    lea rdx, [r12 + vcpu.tss]
    mov rax, rdx
    mov rcx, rdx
    and eax, 0x00ffffff
    shl rax, 16
    or rax, TSS_BYTES - 1
    shr rcx, 24
    and ecx, 0xff
    shl rcx, 56
    or rax, rcx
    mov ecx, TSS_PRESENT_AVAILABLE
    shl rcx, 40
    or rax, rcx
    shr rdx, 32
    mov [rdi + SELECTOR_TSS], rax
    mov [rdi + SELECTOR_TSS + 8], rdx

    sub rsp, 16
    mov word ptr [rsp], GDT_BYTES - 1
    mov [rsp + 2], rdi
    lgdt [rsp]
    add rsp, 16
    push SELECTOR_CODE
    lea rax, [rip + .Lreloaded]
    push rax
    retfq
.Lreloaded:
    mov eax, SELECTOR_DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    ret

# Every vector uses the fault stack: the stack in use may be what failed. APM volume 2, 12.2.5 (64-bit TSS). rbp: offset of
# the block from that of ring 0.
load_interrupts:
    lea rdi, [r12 + vcpu.tss]
    mov ecx, TSS_BYTES
    xor eax, eax
    rep stosb
    mov rax, offset linker.fault_stack_top
    add rax, rbp
    lea rdi, [r12 + vcpu.tss]
    mov [rdi + TSS_IST1], rax
    mov word ptr [rdi + TSS_IO_MAP], TSS_BYTES  # none
    mov eax, SELECTOR_TSS
    ltr ax
    lidt [rip + idt_pointer]
    ret

.macro place field, offset
    lea rax, [rcx + \offset]
    mov [r13 + \field], rax
.endm

.macro open_lane lane, stream, name, head, tail
    lea r13, [r12 + \lane]
    lea eax, [rbx + \stream]
    mov [r13 + lane.stream], eax
    mov dword ptr [r13 + lane.entries], MH_\name\()_ENTRIES
    mov dword ptr [r13 + lane.slots], MH_\name\()_SLOTS
    mov dword ptr [r13 + lane.head], 0
    place lane.head_va, \head
    place lane.tail_va, \tail
    place lane.submissions, MH_\name\()_SUBMISSIONS
    place lane.completions, MH_\name\()_COMPLETIONS
    place lane.list, MH_\name\()_LIST
    place lane.results, MH_\name\()_RESULTS
    place lane.packets, MH_\name\()_PACKETS
    place lane.data, MH_\name\()_DATA
.endm

# ebx: index
open_lanes:
    mov ecx, ebx
    imul rcx, rcx, MH_RING_BYTES
    add rcx, [rip + linker.params + mh_params.ring_va]
    mov [r12 + vcpu.ring], rcx
    open_lane vcpu.bulk, 0, RING, mh_ring.head, mh_ring.tail
    open_lane vcpu.urgent, MH_STREAM_URGENT, URGENT, mh_ring.urgent_head, mh_ring.urgent_tail
    ret

open_ring:
    mov rcx, [r12 + vcpu.ring]
    mov rax, MH_RING_MAGIC
    mov [rcx + mh_ring.magic], rax
    mov word ptr [rcx + mh_ring.version], MH_ABI_VERSION
    mov word ptr [rcx + mh_ring.entries], MH_RING_ENTRIES
    mov eax, [r12 + vcpu.features]
    mov [rcx + mh_ring.features], eax
    xor eax, eax
    mov [rcx + mh_ring.head], eax
    mov [rcx + mh_ring.urgent_head], eax
    mov dword ptr [rcx + mh_ring.state], MH_RING_READY
    ret
