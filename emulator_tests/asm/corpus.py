"""Statements that both the assembler and GNU `as` take; each group has its mode in bits."""

from __future__ import annotations

from itertools import product

_INTEGER = """
mov eax, ebx|mov rax, r15|mov r8b, al|mov ah, bl|mov al, dh|mov sil, dil|mov ax, r9w|mov r12d, 5|mov rax, 5
mov rax, -1|mov rax, 0x7fffffff|mov rax, 0x80000000|mov rax, 0xffffffff|mov rax, 0x123456789abcdef0
mov eax, 0xffffffff|mov al, 255|mov al, -128|mov ax, 0xffff|mov ah, 7|mov byte ptr [rax], 255
mov word ptr [rax], 0x1234|mov dword ptr [rax], -1|mov qword ptr [rax], 0x7fffffff|mov qword ptr [rax], -0x80000000
mov [rsp + 8], rdi|mov rdi, [rsp + 8]|mov rax, [rbp]|mov rax, [r13]|mov rax, [r12]|mov rax, [rbx + rcx*4 - 8]
mov rax, [rcx*8 + 0x1000]|mov rax, [rbx + 0x7fffffff]|mov rax, [rbx - 0x80000000]|mov eax, [ebx + 4]
mov rax, [r8 + r9*2 + 127]|mov rax, [r8 + r9*2 + 128]|mov [rax + rbx], cl|mov rax, [rax - 128]|mov rax, [rax - 129]
mov eax, fs:[rbx]|mov rax, qword ptr gs:[rbx + 8]|mov ebx, gs:[0x10]|mov rbx, [0x1000]|mov [0x2000], ecx
mov qword ptr [0x1000], 5|mov r9, [0x7ffffff0]|mov rbx, [-4096]|mov rbx, fs:[0]|lea rax, [rbx + rbx*2]
lea r15, [rsp + r14]|lea eax, [rdi + 1]|lea rax, [rcx*4]|lea rax, [rbx + rsp]|lea rax, [rip + 16]
mov rax, [rip + 0x12345678]|mov dword ptr [rip - 5], 7|movabs rax, 5|movabs r11, 0xfedcba9876543210|add eax, 1
add eax, 127|add eax, 128|add eax, -128|add eax, 0xffffffff|add rax, 0x7fffffff|add rax, -1|add al, 200|add ax, 1000
add ax, 0xffff|add byte ptr [rbx], 1|add word ptr [rbx], 1000|add dword ptr [rbx + rcx*8], 0x12345
add qword ptr [rbx], -5|add [rbx], r8|add r8, [rbx]|or rax, 0xffffffffffffffff|and eax, 0xfffffff0|and rax, -16
sub rsp, 0x28|sub rsp, 0x1000|xor r8d, r8d|xor eax, eax|cmp rax, rbx|cmp byte ptr [rsi], 0x80|cmp al, 0x41
cmp eax, 0x80000000|adc rax, 0|sbb edx, edx|adc rdx, [rsi + 8]|sbb [rdi], r10|neg rax|not ecx|inc r8
dec byte ptr [rax]|inc dword ptr [rax + 4]|mul rbx|imul rbx|imul rax, rbx|imul rax, rbx, 5|imul eax, ebx, 1000
imul ax, bx, -3|imul rax, [rbx], 5|imul rcx, 3|imul eax, 1000|div rcx|idiv dword ptr [rax]|test al, 1
test eax, 0x80000000|test rax, rax|test byte ptr [rbx], 0x80|test r9, 5|test [rax], rbx|test rbx, [rax]|shl eax, 1
shl eax, 5|shl rax, cl|sal rax, 3|shr r9, 63|sar edx, 31|rol ax, 8|ror r10d, 7|rcl rax, 1|rcr byte ptr [rax], 2
shl qword ptr [rax], cl|shr dword ptr [rbx], 4|shld rax, rbx, 5|shld eax, ebx, cl|shrd [rax], rbx, 9|shrd r8, r9, cl
bt rax, 5|bt [rax], rbx|bts qword ptr [rax], 63|btr eax, ecx|btc r8, 1|bsf rax, rbx|bsr eax, [rbx]|popcnt rax, rbx
lzcnt eax, ecx|tzcnt r8, [r9]|bswap eax|bswap r12|xchg rax, rbx|xchg eax, ecx|xchg [rax], rbx|xchg rbx, [rax]
xchg r8, r9|xchg al, bl|xadd [rax], ebx|xadd rcx, rdx|cmpxchg [rax], ebx|cmpxchg r8, r9|cmpxchg8b [rax]
cmpxchg16b [rax]|movzx eax, al|movzx eax, byte ptr [rbx]|movzx r8, ax|movzx eax, word ptr [rbx]|movsx rax, cl
movsx eax, word ptr [rsi]|movsxd rax, ecx|movsxd r8, dword ptr [rax]|movsx rax, bx|cbw|cwde|cdqe|cwd|cdq|cqo
movzx ecx, ah|movsx edx, bh|push rax|push r15|push 5|push -1|push 128|push 0x7fffffff|push -0x80000000
push qword ptr [rax]|push fs|pop gs|pop rax|pop r8|pop qword ptr [rbx]|pushfq|popfq|ret|ret 8|ret 65535|retf|retf 4
retfq|leave|enter 16, 0|enter 65535, 31|jmp rax|jmp r9|jmp qword ptr [rax]|jmp [rax + rbx*8]|call rax
call qword ptr [rip + 8]|call [r12]|jmp fword ptr [rax]|call fword ptr [rax]|nop|nop dword ptr [rax]
nop word ptr [rax + rax]|nop dword ptr [rax + 8]|nop word ptr [r8]|pause|hlt|int3|int 3|int 0x80|int 255|int1|ud2|cld
std|clc|stc|cmc|sahf|lahf|xlatb|movbe eax, [rbx]|movbe [rbx], rax|movsb|movsw|movsd|movsq|stosb|stosw|stosd|stosq
lodsb|lodsw|lodsd|lodsq|scasb|scasq|cmpsb|cmpsq|insb|insd|outsb|outsw|rep movsb|rep movsw|rep movsd|rep movsq
rep stosb|rep stosd|rep stosq|repe cmpsb|repz cmpsq|repne scasb|repnz scasw|rep insb|rep outsd
lock add dword ptr [rax], 1|lock inc qword ptr [rbx]|lock cmpxchg [rax], ebx|lock xadd [rax], rcx
lock bts qword ptr [rax], 5|lock cmpxchg16b [rdi]|lock or byte ptr [rax], 1|lock xchg [rax], rbx|crc32 eax, bl
crc32 eax, ebx|crc32 rax, rbx|crc32 eax, byte ptr [rbx]|crc32 eax, dword ptr [rbx]|crc32 rax, qword ptr [rsi]
adcx rax, rbx|adox eax, ecx|rorx rax, rbx, 5|mulx rax, rbx, rcx|andn eax, ebx, ecx|pdep rax, rbx, rcx
pext eax, ebx, ecx
"""

_SYSTEM = """
mov rax, cr0|mov cr0, rax|mov rax, cr2|mov cr3, rdi|mov rax, cr4|mov cr4, r8|mov rax, cr8|mov cr8, rax|mov dr7, rax
mov rax, dr6|mov ds, eax|mov es, eax|mov ss, ax|mov ds, ax|mov fs, ax|mov gs, ax|mov ax, cs|mov eax, ds
mov word ptr [rax], ds|mov ss, word ptr [rbx]|lgdt [rax]|lidt [rip + 8]|sgdt [rsp]|sidt [rbp - 16]|ltr ax
ltr word ptr [rax]|str ax|lldt ax|sldt eax|lmsw ax|smsw eax|clts|wrmsr|rdmsr|cpuid|rdtsc|rdtscp|rdpmc|xgetbv|xsetbv
swapgs|invlpg [rax]|invlpg [rip + 4]|wbinvd|invd|clflush [rax]|clflushopt [rbx]|clwb [rcx]|mfence|sfence|lfence|iretq
iretd|syscall|sysretq|vmmcall|vmrun rax|vmload rax|vmsave rax|stgi|clgi|monitor|mwait|cli|sti|in al, 0x60|in eax, dx
in ax, dx|out 0x80, al|out dx, eax|out dx, al|rdrand eax|rdrand rax|rdrand r15|rdseed ecx|rdseed r9|rdfsbase rax
wrgsbase r8|rdgsbase ecx|invpcid rax, [rbx]|stac|clac|fninit|fxsave [rax]|fxrstor [rsp]|fxsave64 [rax]|xsave [rax]
xrstor [rax]|ldmxcsr [rax]|stmxcsr [rsp - 4]|prefetcht0 [rax]|prefetchnta [rax + 64]|prefetchw [rdi]|verr ax|verw ax
fwait|emms|movnti [rax], ebx|movnti [rdi], r8
"""

_TWO_OPERAND_SSE = """
aesenc aesenclast aesdec aesdeclast aesimc pshufb paddd paddq paddb psubd psubq pxor por pand pandn pcmpeqb
pcmpeqd pcmpgtd punpcklqdq punpckhqdq punpckldq punpckhdq punpcklbw pmuludq pmulld pminud pmaxud movdqa movdqu
movaps movups movapd xorps andps orps ptest pslld psrld psllq psrlq psraw paddw packuswb packssdw pmovzxbw
pabsd phaddd sqrtpd addps mulpd divps cvtdq2ps unpcklps
"""

_SSE = """
aeskeygenassist xmm1, xmm2, 0x1b|aeskeygenassist xmm9, [rax], 1|pclmulqdq xmm0, xmm1, 0x11|pclmulqdq xmm8, [rsi], 0
palignr xmm0, xmm1, 8|palignr xmm3, [rip + 64], 15|pshufd xmm0, xmm1, 0xff|pshufd xmm9, [rax], 0x4e
pshuflw xmm0, xmm1, 1|shufps xmm0, xmm1, 0x88|shufpd xmm1, xmm2, 1|pslldq xmm0, 8|psrldq xmm15, 4|pslld xmm1, 31
psrlq xmm2, 1|psrad xmm3, 31|pinsrb xmm0, eax, 3|pinsrw xmm0, eax, 7|pinsrd xmm0, eax, 1|pinsrq xmm0, rax, 1
pinsrd xmm1, dword ptr [rax], 2|pinsrq xmm9, qword ptr [rbx], 0|pextrb eax, xmm0, 1|pextrw eax, xmm0, 2
pextrd ecx, xmm0, 3|pextrq rax, xmm0, 1|pextrq qword ptr [rax], xmm1, 1|pextrd [rbx], xmm9, 0|movd xmm0, eax
movd eax, xmm9|movd xmm1, dword ptr [rax]|movq xmm0, rax|movq rax, xmm0|movq xmm1, xmm2|movq xmm0, qword ptr [rax]
movq qword ptr [rax], xmm3|movdqa [rax], xmm0|movdqu [rbx + 16], xmm15|movaps [rsp], xmm1|movups [rdi], xmm2
movntdq [rdi], xmm0|movntdqa xmm0, [rsi]|movhps xmm0, [rax]|movlps [rax], xmm1|movhlps xmm0, xmm1|movmskps eax, xmm1
pmovmskb eax, xmm0|pmovmskb r8d, xmm9|movss xmm0, [rax]|movsd xmm0, xmm1|movsd xmm0, [rax]|movsd [rax], xmm0
cvtsi2sd xmm0, rax|cvttsd2si rax, xmm0|ucomisd xmm0, xmm1|blendps xmm0, xmm1, 5|pblendw xmm0, xmm1, 0xf0
pblendvb xmm0, xmm1|pblendvb xmm3, xmm4, xmm0|roundsd xmm0, xmm1, 3|dpps xmm0, xmm1, 0xff|insertps xmm0, xmm1, 0x10
extractps eax, xmm0, 1|mpsadbw xmm0, xmm1, 2|pcmpestri xmm0, xmm1, 4|lddqu xmm0, [rax]|movq2dq xmm0, mm1
"""

_BITS_32 = """
mov eax, ebx|mov eax, [ebx + 4]|mov eax, [0x1234]|mov ebx, [0xfee00000]|mov [0x1000], al|mov ds, ax|mov es, ax
mov ax, ds|mov ss, eax|mov eax, cr0|mov cr0, eax|mov cr3, edi|mov cr4, eax|lgdt [0x1234]|lgdt [eax]|lidt [esp]
sgdt [ebp - 8]|lgdt cs:[0x10]|ltr ax|push eax|push 5|push 500|push 65535|push 0xffffffff|push -1|push dword ptr [eax]
push ds|pop es|push fs|pop gs|pop eax|pushfd|popfd|pushf|popf|pushad|popad|pusha|popa|iret|iretd|ret|ret 8|retf
call eax|jmp eax|jmp dword ptr [eax]|jmp [ebx*4 + 8]|jmp fword ptr [eax]|inc eax|dec edi|add eax, 0xffffffff
xor ecx, ecx|mov eax, 0xffffffff|mov esi, -1|wrmsr|rdmsr|cpuid|hlt|cli|int 0x80|int3|nop|jmpf 8, 0x1234
jmpf 0x10, 0xfffffff0|rep movsd|rep stosb|lodsb|out 0x80, al|in al, dx|shl eax, 4|bts eax, 8|or eax, 0x80000000
movzx eax, byte ptr [esi]|movdqa xmm0, [eax]|aesenc xmm1, xmm2|rdrand eax|lock inc dword ptr [eax]|bswap edx
imul eax, ebx, 10|lea eax, [esi + edi*4 + 100]|mov dword ptr [edi], 7|mov dword ptr [edi + 4], 0
mov byte ptr fs:[0], 1|test al, 1|setz al|cmovne eax, ebx|lea eax, [esp]|xchg eax, ebx|nop dword ptr [eax]|into|leave
cmpxchg8b [edi]
"""

_BITS_16 = """
mov ax, bx|mov ax, 5|mov eax, 5|mov eax, [0x1234]|mov ax, [bx + si + 5]|mov ax, [bp]|mov al, [di]|mov [bx], cl
mov bx, [bp + di + 0x1234]|mov eax, [ebx + 4]|mov ds, ax|mov es, bx|mov ss, ax|mov ax, cs|mov sp, 0x7c00|mov eax, cr0
mov cr0, eax|mov cr4, eax|mov cr3, eax|lgdt [0x1234]|lidt [bx]|data32 lgdt [0x1234]|data32 lidt cs:[0x10]|lgdt cs:[bx]
ret|ret 4|retf|iret|iretd|pushf|popf|pushfd|popfd|pusha|popa|pushad|popad|push ax|push eax|push 5|push 500|push -1
push 0xffff|push ds|pop es|push word ptr [bx]|call ax|jmp ax|jmp word ptr [bx]|call eax|out 0x92, al|in al, 0x92
or al, 2|or eax, 1|and eax, 0xfffffffe|xor eax, eax|xor ax, ax|cli|sti|hlt|cld|wrmsr|cpuid|int 0x10|int3|nop
jmpf 8, 0x1234|rep movsb|rep stosw|rep movsd|lodsb|stosd|smsw ax|lmsw ax|inc ax|dec ecx|shl ax, 4|movzx eax, ax
mov byte ptr [0x10], 1|mov dword ptr es:[di], 5|lea ax, [bx + 2]|cmp al, 0x41|test ax, ax|add ax, 0xffff
add eax, 0x12345678
"""

_CONDITIONS = "o no b c nae ae nb nc e z ne nz be na a nbe s ns p pe np po l nge ge nl le ng g nle"


def _split(text: str) -> tuple[str, ...]:
    return tuple(piece.strip() for line in text.strip().splitlines() for piece in line.split("|"))


def _sse() -> tuple[str, ...]:
    forms = ("xmm0, xmm1", "xmm9, xmm2", "xmm3, xmm12", "xmm5, [rax]", "xmm8, [r9 + rcx*2 + 64]", "xmm1, [rip + 32]")
    return tuple(f"{mnemonic} {form}" for mnemonic, form in product(_TWO_OPERAND_SSE.split(), forms))


def _conditional() -> tuple[str, ...]:
    moves = (f"cmov{condition} rax, [rbx]" for condition in _CONDITIONS.split())
    sets = (f"set{condition} r9b" for condition in _CONDITIONS.split())
    return (*moves, *sets)


GROUPS: dict[str, tuple[int, tuple[str, ...]]] = {
    "integer": (64, _split(_INTEGER)),
    "conditional": (64, _conditional()),
    "system": (64, _split(_SYSTEM)),
    "sse": (64, _split(_SSE)),
    "sse-two-operands": (64, _sse()),
    "bits-32": (32, _split(_BITS_32)),
    "bits-16": (16, _split(_BITS_16)),
}
