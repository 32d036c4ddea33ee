"""Expressions, strings and numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mh_builder.asm import AssemblyError, assemble_text


def value(expression: str, **symbols: int | str) -> int:
    unit = assemble_text(f".data\n.quad {expression}", "t.s", symbols=symbols)
    return int.from_bytes(unit.sections[-1].data, "little", signed=True)


def message(source: str) -> str:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(source, "t.s")
    return str(caught.value)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("7 / -2", -3),
        ("1 << 2 + 3", 32),
        ("1 | 2 ^ 3 & 1", 3),
        ("1 < 2 == 1", 1),
        ("3 & 1 == 1", 1),
        ("2 > 1 && 0 || 1", 1),
        ("0 && 1 / 0", 0),
        ("1 || 1 / 0", 1),
        ("!0 + !5", 1),
        ("~0", -1),
        ("- - +5", 5),
        ("-1 >> 1", -1),
        ("(1 << 100) >> 98", 4),
        ("0xFf + 0b11 + 0o17", 273),
        ("'A' + '\\n' + '\\x10' + '\\''", 65 + 10 + 16 + 39),
        ("'#'", 35),
        ("mh_packet.tag + sizeof.mh_packet", 72),
        (". - .", 0),
        ("2 >= 2", 1),
        ("2 <= 1", 0),
        ("2 != 1", 1),
    ],
)
def test_values(expression: str, expected: int) -> None:
    assert value(expression, **{"mh_packet.tag": 8, "sizeof.mh_packet": 64}) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 / 0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("1 << -1", "shift by -1 bits"),
        ("1 << (1 << 60)", "shift by 1152921504606846976 bits"),
        ("1 << (1 << 70)", "shift by too many bits"),
        ("(1 << 4096) * 2", "number has more than 4096 bits"),
        ("010", "a leading zero is ambiguous; write 0o10 or 10"),
        ("0x", "malformed number '0x'"),
        ("12ab", "malformed number '12ab'"),
        ("'ab'", "a character constant is one character"),
        ("1 +", "expected an expression, found end of line"),
        ("(1", "expected ')', found end of line"),
        ("1, ", "expected an expression, found end of line"),
        ("rax", "register 'rax' cannot be part of an expression"),
        ("TEXT", "'TEXT' is a string"),
        ("nowhere", "undefined symbol 'nowhere'"),
        ("1b", "no '1:' before this"),
        ("1f", "no '1:' after this"),
        ("x + x", "'+' cannot apply to an address"),
        ("-x", "'-' cannot apply to an address"),
        ("5 - x", "'-' cannot apply to an address"),
        ("x < x", "'<' cannot apply to an address"),
        ("x - y", "'x' and 'y' are not labels of one section"),
        ("+".join(["1"] * 300), "expression has more than 250 tokens"),
        ("(" * 300, "expression has more than 250 tokens"),
        ("\\a", "not a parameter of this macro"),
    ],
)
def test_errors(expression: str, expected: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(f"y:\n.data\nx: .quad {expression}", "t.s", symbols={"TEXT": "text"})
    (diagnostic,) = caught.value.diagnostics
    assert expected in diagnostic.message
    assert diagnostic.line.number == 3


def test_column_and_caret() -> None:
    assert message("nop\n  .quad 1 + nowhere  # why") == (
        "t.s:2:13: error: undefined symbol 'nowhere'\n      .quad 1 + nowhere\n                ^"
    )


def test_definitions() -> None:
    unit = assemble_text(
        ".equ A, 5\n.set B, A\n.set B, B * 2\n.equ SIZE, end - start\n.data\n"
        "start: .byte A, B, LATER, SIZE\n.set B, 99\nend: .equ LATER, 7\n.equ TWICE, SIZE * 2\n.byte TWICE",
        "t.s",
    )
    assert list(unit.sections[-1].data) == [5, 10, 7, 4, 8]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (".equ A, 1\n.equ A, 2", "'A' is already defined"),
        (".equ A, 1\n.set A, 2", "'A' is already defined"),
        (".set A, 1\nA:", "'A' is already defined"),
        ("A:\nA:", "'A' is already defined"),
        ("rax:", "'rax' is a register"),
        (".equ eax, 5", "'eax' is a register"),
        (".byte A\n.set A, 1", "'A' is used before its '.set'"),
        (".equ A, B\n.equ B, A\n.byte A", "depends on itself"),
        (".set A, x\nx:", "'x' is not a number that is known here"),
        (".global nowhere", "undefined symbol 'nowhere'"),
        (".equ A", "expected ',', found end of line"),
    ],
)
def test_definition_errors(source: str, expected: str) -> None:
    assert expected in message(source)


def test_failed_definition_is_reported_once() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(".equ A, 1 / 0\n.byte A\nmov eax, A", "t.s")
    assert len(caught.value.diagnostics) == 1


def test_strings() -> None:
    unit = assemble_text(
        '.data\n.ascii "a#b//c/*d*/", NAME\n.asciz "\\x41\\\\\\"", ""\n.guid "00112233-4455-6677-8899-AABBCCDDEEFF"\n'
        ".guid ID",
        "t.s",
        symbols={"NAME": "text", "ID": "00112233-4455-6677-8899-aabbccddeeff"},
    )
    guid = bytes.fromhex("33221100554477668899aabbccddeeff")
    assert unit.sections[-1].data == b'a#b//c/*d*/textA\\"\0\0' + guid * 2


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('.ascii "\\q"', "unknown escape '\\q'"),
        (".ascii 5", "expected a string, found '5'"),
        (".ascii A", "expected a string, found 'A'"),
        ('.guid "0011"', "a GUID is"),
        ('.guid "{00112233-4455-6677-8899-AABBCCDDEEFF}"', "a GUID is"),
        (".fill 1, 9, 0", "'.fill' takes a size from 1 to 8 bytes"),
        (".fill 1, 1, 256", "number does not fit in 1 bytes"),
        (".balign 3", "'.balign' takes a power of two"),
        (".balign 8, 256", "the fill of '.balign' is one byte"),
        (".zero -1", "negative length -1"),
        (".zero 1 << 40", "more than 67108864 bytes"),
        (".zero 4 - (. - x)\nx:", "this length depends on itself"),
        (".bss\n.byte 1", "section .bss holds no data"),
        (".bss\nnop", "instruction in section .bss"),
        (".data\nnop", "instruction in section .data"),
        (".pquad 5", "an address is needed here, not a number"),
        ("x: .byte x", "the address of 'x' cannot stand here"),
    ],
)
def test_data_errors(source: str, expected: str) -> None:
    assert expected in message(source)


_OPERATORS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "&": int.__and__, "|": int.__or__, "^": int.__xor__}
_TREES = st.recursive(
    st.integers(0, 1 << 20).map(lambda number: (str(number), number)),
    lambda inner: st.tuples(st.sampled_from(sorted(_OPERATORS)), inner, inner).map(
        lambda item: (f"({item[1][0]} {item[0]} {item[2][0]})", _OPERATORS[item[0]](item[1][1], item[2][1]))
    ),
    max_leaves=12,
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(_TREES)
def test_random_expressions(tree: tuple[str, int]) -> None:
    text, expected = tree
    assert value(f"({text}) & 0x7fffffffffffffff") == expected & 0x7FFFFFFFFFFFFFFF
