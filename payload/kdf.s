# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# CMAC-AES256 (SP 800-38B) and key derivation in counter mode with it (SP 800-108r1, 4.1).

.include "gcm.inc"
.include "kdf.inc"

.extern aes256_block

.text

# cmac_subkey(rdi: schedule) -> xmm2: K1, which is CIPH(0) doubled, SP 800-38B 6.1. No branch: the carry is a secret
# bit. For other assembly: loses xmm0, xmm1, rax, r8, r9; the caller wipes.
.balign 16, 0xcc
.global cmac_subkey
cmac_subkey:
    pxor xmm0, xmm0
    call aes256_block
    movq rax, xmm0
    pextrq r8, xmm0, 1
    bswap rax
    bswap r8
    add r8, r8
    adc rax, rax
    sbb r9d, r9d
    and r9d, 0x87
    xor r8, r9
    bswap rax
    bswap r8
    movq xmm2, rax
    pinsrq xmm2, r8, 1
    ret

# cmac256(rdi: schedule, rsi: message, rdx: bytes, a positive multiple of 16, rcx: 16 bytes for the MAC)
#
# The last block must be complete, hence K1 only; other lengths give a wrong MAC or never end.
.balign 16, 0xcc
.global cmac256
cmac256:
    call cmac_subkey
    pxor xmm0, xmm0
.Lcmac_block:
    movdqu xmm1, [rsi]
    pxor xmm0, xmm1
    add rsi, 16
    sub rdx, 16
    jnz .Lcmac_cipher
    pxor xmm0, xmm2
.Lcmac_cipher:
    call aes256_block
    test rdx, rdx               # survives dropped: aes256_block keeps the zero flag
    jnz .Lcmac_block

    movdqu [rcx], xmm0
    wipe_xmm
    xor eax, eax
    xor r8d, r8d
    xor r9d, r9d
    ret

# kdf256(rdi: schedule of the key-derivation key, rsi: kdf_input, rdx: result, ecx: its bytes, a multiple of 16, r8d:
# bytes of the context, 8 more than a multiple of 16)
#
# K(i) = CMAC([i] || Label || 0x00 || Context || [L]), 32-bit counter and length, big-endian.
.balign 16, 0xcc
.global kdf256
kdf256:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov r12, rdi
    mov r13, rsi
    mov r14, rdx
    mov r15d, ecx
    lea ebp, [r8 + KDF_FRAME_BYTES]
    xor ebx, ebx
    lea eax, [rcx * 8]
    bswap eax
    mov dword ptr [r13 + rbp - 4], eax
.Lkdf_block:
    inc ebx
    mov eax, ebx
    bswap eax
    mov dword ptr [r13 + kdf_input.counter], eax
    mov rdi, r12
    mov rsi, r13
    mov edx, ebp
    mov rcx, r14
    call cmac256
    add r14, 16
    sub r15d, 16
    ja .Lkdf_block
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
