"""Which kernel is taken: by what the CPU shows, and under emulation never the one with VEX instructions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import unicorn
from unicorn import unicorn_const, x86_const

from emulator_tests.coverage.recorder import notice
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.asm import assemble_text
from mh_builder.helper import build_helper
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options
from mh_emulator.host.migration import Scenario, run

from .kernels import Traced, helper

CODE, STACK, END = 0x40_0000, 0x8000, 0x1800
BOTH = abi.MH_FEATURE_AESNI | abi.MH_FEATURE_VAES
NEEDED_ECX = 1 << 1 | 1 << 9 | 1 << 19 | 1 << 25 | 1 << 30
XSAVE, AVX, AVX2, VAES, VPCLMULQDQ = 1 << 26, 1 << 28, 1 << 5, 1 << 9, 1 << 10
OSXSAVE = 1 << 18
ALL = {(0, "eax"): 7, (1, "ecx"): NEEDED_ECX | XSAVE | AVX, (7, "ebx"): AVX2, (7, "ecx"): VAES | VPCLMULQDQ}

XSETBV = b"\x0f\x01\xd1"
XCR0_OFFERS = {0b001: False, 0b011: False, 0b101: False, 0b111: True}
"""XCR0, and whether VEX instructions on ymm registers work: AMD64 APM volume 2, 11.5.2."""


def mapped(uc: Any, bits: int) -> tuple[int, bytes]:
    """Map the linked helper at `CODE`; the address of `detect_features`, and the image."""
    image = helper(bits)
    uc.mem_map(CODE, -(-len(image.data) // 0x1000) * 0x1000)
    uc.mem_write(CODE, image.data)
    notice(uc, CODE, image.data)
    text = image.section(".text")
    return CODE + image.symbol("detect_features").value - text.va + text.offset, image.data


def detected(cpuid: dict[tuple[int, str], int], xsetbv: bytes = XSETBV) -> tuple[int, int, int]:
    """What `detect_features` makes of a CPU: the features, CR4 and XCR0. `xsetbv` is what that instruction becomes."""
    library: Any = unicorn  # says that it is typed, and is not
    uc = library.Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64)
    uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_EPYC_ROME)
    uc.mem_map(0, 0x10000)
    entry, code = mapped(uc, 256)
    assert code.count(XSETBV) == 1
    uc.mem_write(CODE, code.replace(XSETBV, xsetbv))
    reader = assemble_text("xor ecx, ecx\nxgetbv\n", "reader.s").sections[0].data
    uc.mem_write(END, reader)

    def answer(_uc: object, _data: object) -> int:
        leaf, subleaf = uc.reg_read(x86_const.UC_X86_REG_EAX), uc.reg_read(x86_const.UC_X86_REG_ECX)
        assert leaf not in {7, 13} or subleaf == 0
        for name in ("eax", "ebx", "ecx", "edx"):
            uc.reg_write(getattr(x86_const, f"UC_X86_REG_{name.upper()}"), cpuid.get((leaf, name), 0))
        return 1

    uc.hook_add(unicorn_const.UC_HOOK_INSN, answer, None, 1, 0, x86_const.UC_X86_INS_CPUID)
    uc.mem_write(STACK, END.to_bytes(8, "little"))
    uc.reg_write(x86_const.UC_X86_REG_RSP, STACK)
    uc.reg_write(x86_const.UC_X86_REG_RCX, 0x55)
    uc.reg_write(x86_const.UC_X86_REG_CR4, uc.reg_read(x86_const.UC_X86_REG_CR4) & ~OSXSAVE)
    uc.emu_start(entry, END)
    features = uc.reg_read(x86_const.UC_X86_REG_EAX)
    cr4 = uc.reg_read(x86_const.UC_X86_REG_CR4)
    enabled = 0
    if cr4 & OSXSAVE:
        uc.emu_start(END, END + len(reader))
        enabled = uc.reg_read(x86_const.UC_X86_REG_EAX)
    return features, cr4 & OSXSAVE, enabled


def test_a_cpu_with_all_gets_the_wide_kernel_and_avx() -> None:
    assert detected(ALL) == (BOTH, OSXSAVE, 7)


@pytest.mark.parametrize(
    ("leaf", "register", "bit"),
    [(1, "ecx", XSAVE), (1, "ecx", AVX), (7, "ebx", AVX2), (7, "ecx", VAES), (7, "ecx", VPCLMULQDQ)],
)
def test_without_one_of_them_avx_stays_off(leaf: int, register: str, bit: int) -> None:
    lacking = ALL | {(leaf, register): ALL[leaf, register] & ~bit}
    assert detected(lacking) == (abi.MH_FEATURE_AESNI, 0, 0)


def test_leaf_7_is_not_read_where_it_is_not() -> None:
    """A CPU answers for its highest leaf when asked for one above."""
    assert detected(ALL | {(0, "eax"): 6}) == (abi.MH_FEATURE_AESNI, 0, 0)


def test_a_host_that_skips_xsetbv_gets_no_wide_kernel() -> None:
    """It may intercept the instruction, and go on behind it."""
    features, cr4, enabled = detected(ALL, b"\x90" * len(XSETBV))
    assert (features, cr4) == (abi.MH_FEATURE_AESNI, OSXSAVE)
    assert not XCR0_OFFERS[enabled]


@pytest.mark.parametrize("xcr0", XCR0_OFFERS)
@pytest.mark.parametrize("osxsave", [0, OSXSAVE])
def test_what_wipes_asks_the_cpu(traced: Traced, xcr0: int, osxsave: int) -> None:
    """VZEROALL is reached where it works, and nowhere else: a fault in the fault handler would never end."""
    uc = traced.uc
    before = uc.reg_read(x86_const.UC_X86_REG_CR4) & ~OSXSAVE
    uc.reg_write(x86_const.UC_X86_REG_CR4, before | OSXSAVE)
    for register, value in (("RAX", xcr0), ("RCX", 0), ("RDX", 0)):
        uc.reg_write(getattr(x86_const, f"UC_X86_REG_{register}"), value)
    uc.mem_write(traced.RETURN, XSETBV)
    uc.emu_start(traced.RETURN, traced.RETURN + len(XSETBV))
    uc.reg_write(x86_const.UC_X86_REG_CR4, before | osxsave)
    outcome = traced.call("wipe_vectors")
    reached = any(kind == "run" and place == traced.symbols["gcm_vaes_wipe"] for kind, place, _ in traced.trace)
    assert reached == (bool(osxsave) and XCR0_OFFERS[xcr0])
    assert outcome.vector == bytes(len(outcome.vector))


@pytest.mark.parametrize("bit", [1, 9, 19, 25, 30])
def test_without_what_is_needed_there_is_no_kernel(bit: int) -> None:
    assert detected(ALL | {(1, "ecx"): ALL[1, "ecx"] & ~(1 << bit)}) == (0, 0, 0)


@pytest.mark.parametrize("part", PARTS)
def test_no_emulated_part_shows_vaes(part: str) -> None:
    assert PARTS[part].cpuid(7, 0, encrypted=True).ecx & (VAES | VPCLMULQDQ) == 0


def test_emulation_never_reaches_vex_instructions() -> None:
    """A migration does as well when the files that have them are all breakpoints."""
    image = build_helper("regions", Options(vector_bits=512))
    text = image.section(".text")
    data = image.data
    for name in ("payload/gcm_vaes.s", "payload/gcm_zmm.s"):
        wide = next(piece for piece in text.pieces if piece.name == name)
        start = text.offset + wide.offset
        data = data[:start] + b"\xcc" * wide.size + data[start + wide.size :]
    poisoned = replace(image, data=data)
    scenario = Scenario(
        "regions", PARTS["milan"], parse_image(poisoned.data), image.table_bytes, bytes(range(256)) * 64
    )
    assert run(scenario).good
