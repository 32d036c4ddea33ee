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
.equ VAES_ECX, (1 << 9) | (1 << 10)

.equ CR4_OSXSAVE, 1 << 18
.equ XCR0_X87_SSE_AVX, 7
.equ XCR0_SSE_AVX, 6

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
    xor ecx, ecx
    xor edx, edx
    mov eax, XCR0_X87_SSE_AVX
    xsetbv
    call avx_is_on              # a host may intercept XSETBV and skip it
    jne .Ldetected
    or r9d, MH_FEATURE_VAES
.Ldetected:
    mov eax, r9d
    pop rbx
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
