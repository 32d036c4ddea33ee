# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# What the CPU has, from CPUID: AMD64 APM volume 3, appendix E.3. With MH_START_ES from the linker, because CPUID
# raises #VC: a CPU that lacks it takes #UD, and the host finds the fault record.

.extern linker.params

# CPUID 1 ECX: PCLMULQDQ, SSSE3, SSE4.1, AES, RDRAND.
.equ NEEDED_ECX, (1 << 1) | (1 << 9) | (1 << 19) | (1 << 25) | (1 << 30)
# CPUID 1 ECX: XSAVE, AVX; CPUID 7 EBX: AVX2; CPUID 7 ECX: VAES, VPCLMULQDQ.
.equ AVX_ECX, (1 << 26) | (1 << 28)
.equ AVX2_EBX, 1 << 5
# CPUID 7 EBX: AVX-512F, BW and VL; CPUID 13 EAX: which bits XCR0 has.
.equ AVX512_EBX, (1 << 16) | (1 << 30) | (1 << 31)
.equ VAES_ECX, (1 << 9) | (1 << 10)

.equ LEAF_XSAVE, 13
.equ CR4_OSXSAVE, 1 << 18
.equ XCR0_X87_SSE_AVX, 7
.equ XCR0_SSE_AVX, 6
.equ XCR0_AVX512, 0xe0          # mask registers, upper halves, registers above number 15

.text

# detect_features() -> eax: MH_FEATURE_..., and turns AVX on where it will be used. Keeps rbx.
.global detect_features
detect_features:
.ifdef MH_START_ES
    mov eax, [rip + linker.params + mh_params.features]
    ret
.else
    push rbx
    xor r9d, r9d
    xor eax, eax
    cpuid
    mov r8d, eax                # the highest leaf
    mov eax, 1
    cpuid
    mov eax, ecx
    and eax, NEEDED_ECX
    cmp eax, NEEDED_ECX
    jne .Ldetected
    mov r9d, MH_FEATURE_AESNI
    and ecx, AVX_ECX
    cmp ecx, AVX_ECX
    jne .Ldetected
    cmp r8d, 7
    jb .Ldetected
    mov eax, 7
    xor ecx, ecx
    cpuid
    and ecx, VAES_ECX
    cmp ecx, VAES_ECX
    jne .Ldetected
    test ebx, AVX2_EBX
    jz .Ldetected
    mov rax, cr4
    or rax, CR4_OSXSAVE
    mov cr4, rax
.ifdef MH_VECTORS_512
    call xcr0_wanted
.else
    mov eax, XCR0_X87_SSE_AVX
.endif
    xor ecx, ecx
    xor edx, edx
    xsetbv
    call avx_is_on              # a host may intercept XSETBV and skip it
    jne .Ldetected
    or r9d, MH_FEATURE_VAES
.ifdef MH_VECTORS_512
    call avx512_is_on
    jne .Ldetected
    or r9d, MH_FEATURE_ZMM
.endif
.Ldetected:
    mov eax, r9d
    pop rbx
    ret
.endif

.ifdef MH_VECTORS_512
# xcr0_wanted(ebx: EBX of CPUID 7, r8d: the highest leaf) -> eax. Loses rbx, rcx, rdx.
xcr0_wanted:
    and ebx, AVX512_EBX
    cmp ebx, AVX512_EBX
    jne 1f
    cmp r8d, LEAF_XSAVE
    jb 1f
    mov eax, LEAF_XSAVE
    xor ecx, ecx
    cpuid
    and eax, XCR0_AVX512
    cmp eax, XCR0_AVX512
    jne 1f
    mov eax, XCR0_X87_SSE_AVX | XCR0_AVX512
    ret
1:  mov eax, XCR0_X87_SSE_AVX
    ret

# avx512_is_on(): zero flag set if EVEX instructions on zmm registers work now; asked where VEX does. Loses rax, rcx, rdx.
.global avx512_is_on
avx512_is_on:
    xor ecx, ecx
    xgetbv
    and eax, XCR0_SSE_AVX | XCR0_AVX512
    cmp eax, XCR0_SSE_AVX | XCR0_AVX512
    ret
.endif

# avx_is_on(): zero flag set if VEX instructions on ymm registers work now. Loses rax, rcx, rdx.
.global avx_is_on
avx_is_on:
    mov rax, cr4
    not eax
    test eax, CR4_OSXSAVE
    jnz 1f
    xor ecx, ecx
    xgetbv
    and eax, XCR0_SSE_AVX
    cmp eax, XCR0_SSE_AVX
1:  ret
