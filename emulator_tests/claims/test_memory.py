"""What the linked code does with memory, whatever it is asked: places it names, locks, addresses it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from capstone import x86

from emulator_tests.claims.code import decoded, function_at, written
from emulator_tests.coverage.blobs import HELPERS, LOADERS, RECORDED, Instruction, blob, helper_image
from mh_builder.image.model import Image, PlacedSection
from mh_builder.schemes.space import HELPER_VA

BITMAPS = "payload/bitmap.s:"
"""Where vCPUs write the same words through a register."""
ONE_WRITER = {
    "bitmap_reset": "ring 0 as it starts a session",
    "bitmap_turn": "the ring that ends an epoch as the last one; the others wait",
    "end_epoch": "the same",
    "start": "ring 0 while no ring has a session",
    "wipe_record": "whoever ends a session; all write zeros",
}
"""Functions that write what vCPUs share without a lock, and who runs them, and when."""
SNP = "helper, SEV-SNP"
ITS_WRITERS = {
    "arrived": "the ring that ends a session as the last one",
    "consult": "ring 0, which alone asks the secure processor",
    "may_go": "ring 0 of a source, before it ends its part of the session, or asks for the context",
    "record": "ring 0, whose share waits for the record",
    "starts": "ring 0 as it starts a session",
}
LOCKED = {"claim", "clear_bits", "count", "set_bits"}


def own_writes(name: str) -> Iterator[tuple[Instruction, Any, PlacedSection | None]]:
    """The writes of a helper to places that an instruction names, each with the section that it hits."""
    image = helper_image(name)
    text = image.section(".text").va
    for offset, (instruction, insn) in decoded(name).items():
        for operand in written(insn):
            if operand.mem.base == x86.X86_REG_RIP:
                yield instruction, insn, section_at(image, text + offset + insn.size + operand.mem.disp)


def section_at(image: Image, address: int) -> PlacedSection | None:
    address %= 1 << 64
    return next((one for one in image.sections if one.va % (1 << 64) <= address < one.va % (1 << 64) + one.size), None)


@pytest.mark.parametrize("name", HELPERS)
def test_only_variables_are_written_by_name(name: str) -> None:
    hit = {section.name if section else "nothing" for _, _, section in own_writes(name)}
    assert hit == ({".bss", ".snp_secrets"} if name == SNP else {".bss"})


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_writes_nothing_of_its_own(name: str) -> None:
    """It has no section for variables."""
    own = [
        instruction.line
        for instruction, insn in decoded(name).values()
        if any(operand.mem.base == x86.X86_REG_RIP for operand in written(insn))
    ]
    assert own == []
    assert any(any(written(insn)) for _, insn in decoded(name).values())


@pytest.mark.parametrize("name", HELPERS)
def test_what_vcpus_share_is_written_under_lock_or_by_one(name: str) -> None:
    """Variables by name, and the bitmaps: whoever changes them without a lock is alone."""
    writers = {*ONE_WRITER, *ITS_WRITERS} if name == SNP else set(ONE_WRITER)
    found = [(one.offset, insn) for one, insn, _ in own_writes(name)]
    found += [
        (one.offset, insn) for one, insn in decoded(name).values() if one.line.startswith(BITMAPS) and of_all(insn)
    ]
    assert {function_at(name, offset) for offset, insn in found if not is_locked(insn)} == writers
    assert {function_at(name, offset) for offset, insn in found if is_locked(insn)} == LOCKED


def is_locked(insn: Any) -> bool:
    return bool(insn.prefix[0] == x86.X86_PREFIX_LOCK)


def of_all(insn: Any) -> bool:
    """Whether it writes a word that it read, or may write it, elsewhere than in its vCPU's block or on its stack."""
    own = {x86.X86_REG_R9, x86.X86_REG_R12, x86.X86_REG_R13, x86.X86_REG_RSP}
    places = [one for one in insn.operands[:1] if one.type == x86.X86_OP_MEM and one.mem.base not in own]
    return bool(places) and insn.mnemonic not in {"cmp", "test"}


@pytest.mark.parametrize("name", HELPERS)
def test_every_exchange_is_locked(name: str) -> None:
    """XCHG locks whether it says so or not, CMPXCHG does not: AMD64 APM volume 3."""
    found = [
        insn
        for _, insn in decoded(name).values()
        if insn.mnemonic.endswith("xchg") and insn.operands[0].type == x86.X86_OP_MEM
    ]
    assert len(found) >= 8
    assert all(map(is_locked, found))


@pytest.mark.parametrize("name", RECORDED)
def test_an_address_is_only_where_a_link_writes_it(name: str) -> None:
    """No immediate and no displacement is an address of the image that a relocation did not make."""
    linked_fields = {offset + byte for offset, size in blob(name).fields for byte in range(size)}
    size = helper_image(name).memory_bytes if name in HELPERS else len(blob(name).text)
    addresses = range(HELPER_VA % (1 << 64), HELPER_VA % (1 << 64) + size)
    found = [
        instruction.line
        for offset, (instruction, insn) in decoded(name).items()
        for value, at in numbers(insn)
        if value % (1 << 64) in addresses and offset + at not in linked_fields
    ]
    assert found == []


def numbers(insn: Any) -> Iterator[tuple[int, int]]:
    """(value, offset in the instruction) of its immediate and its displacement, but for what is relative to RIP."""
    for operand in insn.operands:
        if operand.type == x86.X86_OP_IMM and insn.imm_size == 8:
            yield operand.imm, insn.imm_offset
        if operand.type == x86.X86_OP_MEM and operand.mem.base != x86.X86_REG_RIP and insn.disp_size:
            yield operand.mem.disp, insn.disp_offset


@pytest.mark.parametrize("name", HELPERS)
def test_the_helper_holds_addresses_and_a_link_writes_them(name: str) -> None:
    """What the test above looks for is there."""
    image = helper_image(name)
    held = [
        value
        for _, insn in decoded(name).values()
        for value, _ in numbers(insn)
        if section_at(image, value) is not None
    ]
    assert len(held) >= 2
