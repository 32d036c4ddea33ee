# SPDX-License-Identifier: BSD-2-Clause-Patent

.include "vcpu.inc"

.text

# check_address(rdi: address of a request) -> eax: status, rdx: virtual address of the page if MH_DONE
#
# One unsigned bound refuses a set C-bit, wrap-around and the window's edge; the protected ranges are those
# request addresses that reach the helper. VMSAs lie in a window of their own, with nothing else in it.
.global check_address
check_address:
    test edi, MH_PAGE_BYTES - 1
    jnz .Lnot_aligned
    lea rsi, [rip + linker.params]
    test word ptr [r13 + lane.flags], MH_BATCH_VMSA
    jnz .Lvmsa
    mov rax, [rsi + mh_params.ram_limit]
    sub rax, MH_PAGE_BYTES
    cmp rdi, rax
    ja .Lout_of_range
    lea rdx, [rdi + MH_PAGE_BYTES]
    lea rax, [rsi + mh_params.protect]
    mov ecx, MH_PROTECTED_MAX
.Lrange:
    cmp rdi, [rax + mh_range.end]
    jae .Lclear                 # an unused range ends at 0
    cmp rdx, [rax + mh_range.start]
    ja .Lprotected
.Lclear:
    add rax, sizeof.mh_range
    dec ecx
    jnz .Lrange
    mov rdx, [rsi + mh_params.window_va]
    add rdx, rdi
    mov eax, MH_DONE
    ret
.Lvmsa:
    cmp rdi, MH_VMSA_BYTES - MH_PAGE_BYTES      # survives one more: addresses are aligned
    ja .Lout_of_range
    mov rdx, [rsi + mh_params.vmsa_va]
    add rdx, rdi
    mov eax, MH_DONE
    ret
.Lnot_aligned:
    mov eax, MH_NOT_ALIGNED
    ret
.Lout_of_range:
    mov eax, MH_OUT_OF_RANGE
    ret
.Lprotected:
    mov eax, MH_PROTECTED
    ret

# page_number(rdi: checked address) -> rax: its bit in the bitmaps. VMSAs follow behind RAM.
.global page_number
page_number:
    mov rax, rdi
    test word ptr [r13 + lane.flags], MH_BATCH_VMSA
    jz 1f
    add rax, [rip + linker.params + mh_params.ram_limit]
1:  shr rax, 12
    ret
