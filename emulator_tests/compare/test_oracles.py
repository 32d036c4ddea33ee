"""What ciphertext tells: the attacks that look for it find it in a helper that decrypts into private memory."""

from __future__ import annotations

import pytest

from emulator_tests.compare.weakened import weakened
from mh_abi import abi
from mh_builder.image.model import Image
from mh_compare.attacks import ATTACKS
from mh_compare.outcome import Verdict

Status = abi.mh_status
BLOCKS = abi.MH_PAGE_BYTES // 16


def decrypting_first(image: Image, pages: int, status: abi.mh_status) -> dict[str, str]:
    """Routines that open the packet in slot 0 as a careless helper would: plaintext first, and then `status`."""
    at = {name: image.symbol(name).value for name in ("aes256_block", "vcpu_page_key", "vcpu_scratch", "vcpu_sequence")}
    ring = image.section(".ring").va
    loop = f"""
        push rbx
        push rbp
        mov rbp, {at["vcpu_scratch"]:#x}
        mov rsi, {ring + abi.MH_RING_DATA:#x}
        mov rdx, {ring + abi.MH_RING_PACKETS + abi.MH_PACKET_IV_OFFSET:#x}
        mov rdi, {at["vcpu_page_key"]:#x}
        mov rcx, {at["aes256_block"]:#x}
        mov ebx, 2
    again:
        movdqu xmm0, [rdx]
        mov eax, ebx
        bswap eax
        pinsrd xmm0, eax, 3
        call rcx
        movdqu xmm1, [rsi]
        pxor xmm0, xmm1
        movdqu [rbp], xmm0
        add rsi, 16
        add rbp, 16
        inc ebx
        cmp ebx, {2 + pages * BLOCKS}
        jne again
        mov rax, {at["vcpu_sequence"]:#x}
        inc qword ptr [rax]
        mov eax, {int(status)}
        pop rbp
        pop rbx"""
    unused = "gcm_aesni_open"
    return {"open_packet": f"mov rax, {image.symbol(unused).value:#x}\n jmp rax", unused: loop}


@pytest.mark.parametrize(
    ("attack", "pages", "status", "seen"),
    [
        ("host-guesses-page", 1, Status.MH_BAD_TAG, "256 private blocks say that the guess is right"),
        ("host-sees-equal-blocks", 1, Status.MH_DONE, "128 private blocks of the target's helper look alike"),
        ("host-chooses-plaintext", 2, Status.MH_BAD_TAG, "the mirror's vCPU runs the host's code"),
    ],
)
def test_a_careless_helper_tells(plain: Image, attack: str, pages: int, status: abi.mh_status, seen: str) -> None:
    outcome = ATTACKS[attack].outcome(weakened(plain, decrypting_first(plain, pages, status)))
    assert (outcome.verdict, outcome.seen[: len(seen)]) == (Verdict.SUCCEEDS, seen), outcome


def test_a_mask_is_needed(plain: Image) -> None:
    """Ciphertext that is kept as it came is a page of the host's choice, for a while; under a step alone it is not."""
    block = f"mov rax, {plain.symbol('aes256_block').value:#x}\n call rax\n pxor xmm1, xmm1"
    none = {"fresh_mask": "pxor xmm0, xmm0"}
    attack = ATTACKS["host-chooses-plaintext"]
    assert attack.outcome(weakened(plain, none)).verdict is Verdict.HARMLESS
    outcome = attack.outcome(weakened(plain, none | {"aes256_pair": block}))
    assert (outcome.verdict, outcome.seen[3:]) == (Verdict.SUCCEEDS, "private blocks hold what the host chose"), outcome


@pytest.mark.parametrize("attack", ["host-wipes-key", "host-halves-key"])
def test_a_key_is_checked(plain: Image, attack: str) -> None:
    """A helper whose check always finds what it looks for seals with whatever lies there."""
    outcome = ATTACKS[attack].outcome(
        weakened(plain, {"gcm_seal": f"mov rax, {plain.symbol('gcm_aesni_seal').value:#x}\n jmp rax"})
    )
    assert outcome.verdict is Verdict.SUCCEEDS
