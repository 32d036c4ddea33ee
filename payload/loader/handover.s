# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# The hand-over of `regions`: the tuples on a shared page, then the write that tells the host to look.

.include "uefi.inc"
.include "state.inc"

.extern make_shared

.equ LEAF_FEATURES, 1
.equ FEATURE_HYPERVISOR, 1 << 31
.equ LEAF_HYPERVISOR, 0x40000000                # other interfaces of the hypervisor may come before KVM's
.equ LEAF_HYPERVISOR_END, 0x40010000
.equ LEAF_HYPERVISOR_STEP, 0x100
.equ FEATURE_MIGRATION_CONTROL, 1 << 17        # Linux, KVM_FEATURE_MIGRATION_CONTROL

.text

.global hand_over
hand_over:
    frame
    mov rdx, [rbx + state.image]
    cmp dword ptr [rdx + mh_descriptor.region_count], 0
    je .Ldone
    mov esi, [rdx + mh_descriptor.ring_offset]
    add rsi, [rbx + state.base]
    mov [rbx + state.handover], rsi
    cmp qword ptr [rbx + state.c_mask], 0
    je .Lshared
    call make_shared
    test rax, rax
    jnz .Lleave
.Lshared:
    mov rbp, [rbx + state.handover]
    mov rdi, rbp
    mov ecx, MH_PAGE_BYTES / 8
    xor eax, eax
    rep stosq
    mov rax, MH_HANDOVER_MAGIC
    mov [rbp + mh_handover.magic], rax
    mov dword ptr [rbp + mh_handover.version], MH_ABI_VERSION
    mov rdx, [rbx + state.image]
    mov eax, [rdx + mh_descriptor.region_count]
    mov [rbp + mh_handover.count], eax
    imul ecx, eax, sizeof.mh_region / 8
    mov esi, [rdx + mh_descriptor.region_offset]
    add rsi, rdx
    lea rdi, [rbp + mh_handover.regions]
    rep movsq
    call tell_host
.Ldone:
    xor eax, eax
.Lleave:
    leave_frame

# The MSR is written only where KVM says that it has it: elsewhere that is #GP.
tell_host:
    mov rsi, rbx
    mov eax, LEAF_FEATURES
    cpuid
    test ecx, FEATURE_HYPERVISOR
    jz .Luntold
    mov edi, LEAF_HYPERVISOR - LEAF_HYPERVISOR_STEP
.Linterface:
    add edi, LEAF_HYPERVISOR_STEP
    cmp edi, LEAF_HYPERVISOR_END        # survives one less: leaves are a step apart
    jae .Luntold
    mov eax, edi
    cpuid
    cmp ebx, 'K' | 'V' << 8 | 'M' << 16 | 'K' << 24
    jne .Linterface
    cmp ecx, 'V' | 'M' << 8 | 'K' << 16 | 'V' << 24
    jne .Linterface
    cmp edx, 'M'
    jne .Linterface
    lea eax, [rdi + 1]
    cpuid
    test eax, FEATURE_MIGRATION_CONTROL
    jz .Luntold
    mov ecx, MH_MSR_MIGRATION_CONTROL
    mov eax, MH_MIGRATION_READY
    xor edx, edx
    wrmsr
.Luntold:
    mov rbx, rsi
    ret
