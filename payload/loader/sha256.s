# SPDX-License-Identifier: BSD-2-Clause-Patent
#
# SHA-256 (FIPS 180-4). The image is no secret: this is not made for constant time, and for shortness rather than speed.

.equ ROUNDS, 64
.equ BLOCK_BYTES, 64
.equ LENGTH_BYTES, 8

# On the stack: the hash, the schedule, the last one or two blocks, the length in bits.
.equ frame.hash, 0
.equ frame.schedule, 32
.equ frame.tail, frame.schedule + 4 * ROUNDS
.equ frame.bits, frame.tail + 2 * BLOCK_BYTES
.equ frame.digest, frame.bits + 8
.equ frame.bytes, frame.digest + 8

.section .rodata
.balign 16
.Linitial:
    .long 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
.Lround:
    .long 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5
    .long 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174
    .long 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da
    .long 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967
    .long 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85
    .long 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070
    .long 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3
    .long 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2

.text

# sha256(rsi: data, rdx: bytes, rdi: 32 bytes for the hash). Keeps rbx.
.global sha256
sha256:
    push rbx
    sub rsp, frame.bytes
    mov [rsp + frame.digest], rdi
    lea rax, [8 * rdx]
    bswap rax
    mov [rsp + frame.bits], rax
    mov rbx, rdx
    mov rdx, rsi
    lea rsi, [rip + .Linitial]
    lea rdi, [rsp + frame.hash]
    mov ecx, 4
    rep movsq
    mov rsi, rdx
.Lwhole:
    cmp rbx, BLOCK_BYTES
    jb .Ltail
    call .Lblock
    sub rbx, BLOCK_BYTES
    jmp .Lwhole
.Ltail:
    lea rdi, [rsp + frame.tail]
    mov rcx, rbx
    rep movsb
    mov byte ptr [rdi], 0x80
    inc rdi
    lea rdx, [rsp + frame.tail + BLOCK_BYTES]
    cmp rbx, BLOCK_BYTES - LENGTH_BYTES
    jb .Lpadded
    add rdx, BLOCK_BYTES
.Lpadded:
    mov rcx, rdx
    sub rcx, rdi
    xor eax, eax
    rep stosb
    mov rax, [rsp + frame.bits]
    mov [rdx - LENGTH_BYTES], rax
    lea rsi, [rsp + frame.tail]
    mov rbx, rdx
.Llast:
    call .Lblock
    cmp rsi, rbx
    jb .Llast
    mov rdi, [rsp + frame.digest]
    xor ecx, ecx
.Lswap:
    mov eax, [rsp + 4 * rcx + frame.hash]
    bswap eax
    mov [rdi + 4 * rcx], eax
    inc ecx
    cmp ecx, 8
    jb .Lswap
    add rsp, frame.bytes
    pop rbx
    ret

# One block at rsi, which moves behind it. The frame lies 8 bytes higher here. Keeps rbx.
.equ inner, 8
.Lblock:
    xor ebp, ebp
.Lload:
    mov eax, [rsi]
    bswap eax
    mov [rsp + 4 * rbp + frame.schedule + inner], eax
    add rsi, 4
    inc ebp
    cmp ebp, 16
    jb .Lload
.Lextend:
    mov eax, [rsp + 4 * rbp + frame.schedule + inner - 4 * 15]
    mov ecx, eax
    mov edx, eax
    ror eax, 7
    ror ecx, 18
    xor eax, ecx
    shr edx, 3
    xor eax, edx
    mov edx, [rsp + 4 * rbp + frame.schedule + inner - 4 * 2]
    mov ecx, edx
    mov edi, edx
    ror edx, 17
    ror ecx, 19
    xor edx, ecx
    shr edi, 10
    xor edx, edi
    add eax, edx
    add eax, [rsp + 4 * rbp + frame.schedule + inner - 4 * 16]
    add eax, [rsp + 4 * rbp + frame.schedule + inner - 4 * 7]
    mov [rsp + 4 * rbp + frame.schedule + inner], eax
    inc ebp
    cmp ebp, ROUNDS
    jb .Lextend

    # a to h in r8d to r15d.
    mov r8d, [rsp + frame.hash + inner]
    mov r9d, [rsp + frame.hash + inner + 4]
    mov r10d, [rsp + frame.hash + inner + 8]
    mov r11d, [rsp + frame.hash + inner + 12]
    mov r12d, [rsp + frame.hash + inner + 16]
    mov r13d, [rsp + frame.hash + inner + 20]
    mov r14d, [rsp + frame.hash + inner + 24]
    mov r15d, [rsp + frame.hash + inner + 28]
    lea rdi, [rip + .Lround]
    xor ebp, ebp
.Lone:
    mov eax, r12d
    mov ecx, r12d
    ror eax, 6
    ror ecx, 11
    xor eax, ecx
    ror ecx, 14
    xor eax, ecx
    add r15d, eax
    mov eax, r13d
    xor eax, r14d
    and eax, r12d
    xor eax, r14d
    add r15d, eax
    add r15d, [rdi + 4 * rbp]
    add r15d, [rsp + 4 * rbp + frame.schedule + inner]
    add r11d, r15d
    mov eax, r8d
    mov ecx, r8d
    ror eax, 2
    ror ecx, 13
    xor eax, ecx
    ror ecx, 9
    xor eax, ecx
    mov ecx, r8d
    mov edx, r8d
    or ecx, r9d
    and ecx, r10d
    and edx, r9d
    or ecx, edx
    add eax, ecx
    add eax, r15d
    mov r15d, r14d
    mov r14d, r13d
    mov r13d, r12d
    mov r12d, r11d
    mov r11d, r10d
    mov r10d, r9d
    mov r9d, r8d
    mov r8d, eax
    inc ebp
    cmp ebp, ROUNDS
    jb .Lone
    add [rsp + frame.hash + inner], r8d
    add [rsp + frame.hash + inner + 4], r9d
    add [rsp + frame.hash + inner + 8], r10d
    add [rsp + frame.hash + inner + 12], r11d
    add [rsp + frame.hash + inner + 16], r12d
    add [rsp + frame.hash + inner + 20], r13d
    add [rsp + frame.hash + inner + 24], r14d
    add [rsp + frame.hash + inner + 28], r15d
    ret
