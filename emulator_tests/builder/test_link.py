"""The linker: what it joins, and what it refuses."""

from __future__ import annotations

import struct

import pytest

from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.asm import ObjectFile, assemble_text
from mh_builder.image.model import Image
from mh_builder.link import link
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import HELPER_VA, Options
from mh_builder.symbols import LinkError

ENTRY = ".text\n.global entry64\nentry64:\n    hlt\n"


def objects(*texts: str) -> list[ObjectFile]:
    return [assemble_text(text, f"{name}.s") for name, text in zip("abcdef", texts, strict=False)]


def linked(*texts: str, scheme: str = "isolated", options: Options | None = None) -> Image:
    return link(objects(*texts), SCHEMES[scheme], options or Options())


def at(image: Image, name: str, size: int = 8) -> bytes:
    offset = image.symbol(name).value - HELPER_VA
    return image.data[offset : offset + size]


def test_references_across_files_and_sections() -> None:
    image = linked(
        ENTRY + ".extern far\n    call far\n    lea rax, [rip + number + 4]\n.extern number\n",
        ".section .rodata\n.global number\nnumber: .long 1, 2\n.text\n.global far\nfar: ret\n",
    )
    entry = image.symbol("entry64").value
    call, lea = struct.unpack("<xxi xxx i", at(image, "entry64", 13))
    assert entry + 6 + call == image.symbol("far").value
    assert entry + 13 + lea == image.symbol("number").value + 4


def test_local_symbols_of_two_files_do_not_meet() -> None:
    image = linked(
        ENTRY + ".data\n.global one\none: .quad own\nown: .byte 1\n",
        ".data\n.global two\ntwo: .quad own\nown: .byte 2\n",
    )
    for name, value in (("one", 1), ("two", 2)):
        (place,) = struct.unpack("<Q", at(image, name))
        assert image.data[place - HELPER_VA] == value


def test_private_quad_moves_and_carries_the_c_bit() -> None:
    image = linked(ENTRY + ".data\n.global root\nroot: .pquad entry64\n")
    entry = image.symbol("entry64").value - HELPER_VA
    offset = image.symbol("root").value - HELPER_VA
    helper = parse_image(image.data)
    for base, c_bit in ((image.space.base, 51), (7 << 40, 47)):
        data = helper.relocated(base, c_bit)
        assert struct.unpack_from("<Q", data, offset)[0] == base + entry | 1 << c_bit


PHYSICAL = (
    ".extern number\n.extern physical.number\n.section .rodata\n.global place\nplace: .long physical.number + 4\n"
)


def test_physical_symbols_are_mirror_addresses() -> None:
    image = linked(ENTRY + PHYSICAL, ".data\n.global number\nnumber: .quad 0\n", scheme="alias-gpa")
    (place,) = struct.unpack("<I", at(image, "place", 4))
    assert place == image.space.base + image.symbol("number").value - HELPER_VA + 4


def test_image_that_moves_has_no_physical_symbols() -> None:
    with pytest.raises(LinkError, match=r"^a\.s:[0-9]+:?[0-9]*: error: undefined symbol 'physical\.number'$"):
        linked(ENTRY + PHYSICAL, ".data\n.global number\nnumber: .quad 0\n")


def test_physical_symbol_of_a_number_or_of_nothing_is_undefined() -> None:
    for other in ("", ".equ number, 5\n.global number\n"):
        with pytest.raises(LinkError, match=r"undefined symbol 'physical\.number'$"):
            linked(ENTRY + PHYSICAL, other, scheme="alias-gpa")


def test_fixed_base_keeps_no_base_relocation() -> None:
    for scheme in ("alias-gpa", "alias-window", "alias-window-high"):
        image = linked(ENTRY, scheme=scheme)
        assert {part.kinds for part in image.relocations} == {abi.MH_RELOCATE_CBIT}


def test_fixed_c_bit_keeps_no_c_bit_relocation() -> None:
    image = linked(ENTRY, options=Options(c_bit=51))
    assert {part.kinds for part in image.relocations} == {abi.MH_RELOCATE_BASE}
    assert linked(ENTRY, scheme="alias-gpa", options=Options(c_bit=51)).relocations == ()


def test_gate_is_split_as_the_cpu_wants_it() -> None:
    image = linked(ENTRY + ".section .rodata\n.global gate\ngate: .gate entry64, 8, 1\n")
    low, selector, ist, kind, middle, high, zero = struct.unpack("<HHBBHII", at(image, "gate", 16))
    assert low | middle << 16 | high << 32 == image.symbol("entry64").value
    assert (selector, ist, kind, zero) == (8, 1, 0x8E, 0)


@pytest.mark.parametrize(("size", "home"), [(16, ".header"), (3000, ".header"), (4000, ".rodata"), (9000, ".rodata")])
def test_constants_share_the_page_of_the_header_where_they_fit(size: int, home: str) -> None:
    """Both are read only. The other one has no bytes, and the image a page less or none."""
    first_text = f".global first\nfirst: .quad last\n.fill {size - 16}, 1, 7\n"
    image = linked(
        f"{ENTRY}.extern last\n.section .rodata\n.balign 64\n{first_text}",
        ".section .rodata\n.global last\nlast: .quad 9\n",
    )
    header, text, constants = map(image.section, (".header", ".text", ".rodata"))
    descriptor = parse_image(image.data).descriptor
    end = descriptor.relocation_offset + descriptor.relocation_count * len(abi.mh_relocation)
    first, last = (image.symbol(name) for name in ("first", "last"))
    assert {first.section, last.section} == {home}
    assert first.value % 64 == 0
    assert struct.unpack("<Q", at(image, "first", 8)) == (last.value,)
    assert at(image, "last", 8) == (9).to_bytes(8, "little")
    assert last.value - HELPER_VA == image.section(home).offset + image.section(home).size - 8
    assert (text.offset, header.pages) == (PAGE_BYTES, 1)
    if home == ".header":
        assert end <= first.value - HELPER_VA < end + 64
        assert [piece.name for piece in header.pieces] == ["linker", "a.s", "b.s"]
        assert constants.size == 0
    else:
        assert header.size == end
        assert (constants.offset, constants.size) == (2 * PAGE_BYTES, size)
    assert len(image.data) - image.table_bytes == (2 + constants.pages) * PAGE_BYTES


def test_no_entry() -> None:
    with pytest.raises(LinkError, match=r"^linker: error: no object defines the global symbol 'entry64'$"):
        linked(".text\n    ret\n")


def test_all_reasons_at_once() -> None:
    with pytest.raises(LinkError) as caught:
        linked(ENTRY + ".extern one\n    call one\n.extern two\n    jmp two\n")
    assert caught.value.reasons == (
        "a.s:6: error: undefined symbol 'one'",
        "a.s:8: error: undefined symbol 'two'",
    )


def test_doubled_global() -> None:
    with pytest.raises(LinkError, match=r"^b.s: error: symbol 'entry64' is defined in a.s already$"):
        linked(ENTRY, ENTRY)


def test_linker_symbols_cannot_be_taken() -> None:
    with pytest.raises(LinkError, match=r"^a.s: error: symbol 'linker.params' is defined in linker already$"):
        linked(ENTRY + ".global linker.params\nlinker.params: ret\n")


def test_out_of_reach() -> None:
    with pytest.raises(
        LinkError, match=r"^a.s:5: error: symbol 'entry64' at 0xffff8[0-9a-f]+ is out of reach of ABS32"
    ):
        linked(ENTRY + ".long entry64\n")


def test_gap_between_objects_traps() -> None:
    image = linked(ENTRY, ".text\n.balign 16\n.global second\nsecond: ret\n")
    start = image.symbol("entry64").value - HELPER_VA
    end = image.symbol("second").value - HELPER_VA
    assert set(image.data[start + 1 : end]) == {0xCC}
