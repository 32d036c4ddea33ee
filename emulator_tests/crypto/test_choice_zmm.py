"""When the kernel on zmm registers is taken, and who turns these on."""

from __future__ import annotations

from typing import Any

import pytest
import unicorn
from unicorn import unicorn_const, x86_const

from mh_abi import abi
from mh_builder.helper import build_helper
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options

from .test_choice import ALL, AVX2, BOTH, END, STACK, XSETBV, mapped

XGETBV = b"\x0f\x01\xd0"
AVX512F, AVX512BW, AVX512VL = 1 << 16, 1 << 30, 1 << 31
AVX_STATE, ZMM_STATE = 7, 0xE0
WIDEST = ALL | {
    (0, "eax"): 13,
    (7, "ebx"): AVX2 | AVX512F | AVX512BW | AVX512VL,
    (13, "eax"): 0x200 | AVX_STATE | ZMM_STATE,
}


class Cpu:
    """Runs `detect_features`; unicorn has no zmm registers, so XCR0 is the test's, of which the host keeps `kept`."""

    def __init__(self, cpuid: dict[tuple[int, str], int], kept: int = -1) -> None:
        self.xcr0: list[int] = []
        """What was written."""
        self._cpuid, self._kept = cpuid, kept
        library: Any = unicorn  # says that it is typed, and is not
        self._uc = library.Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64)
        self._uc.mem_map(0, 0x10000)
        entry, _ = mapped(self._uc, 512)
        self._uc.hook_add(unicorn_const.UC_HOOK_INSN, self._answer, None, 1, 0, x86_const.UC_X86_INS_CPUID)
        self._uc.hook_add(unicorn_const.UC_HOOK_CODE, self._before)
        self._uc.mem_write(STACK, END.to_bytes(8, "little"))
        self._write("RSP", STACK)
        self._uc.emu_start(entry, END)
        self.features = self._read("EAX")

    def _read(self, name: str) -> int:
        return int(self._uc.reg_read(getattr(x86_const, f"UC_X86_REG_{name}")))

    def _write(self, name: str, value: int) -> None:
        self._uc.reg_write(getattr(x86_const, f"UC_X86_REG_{name}"), value)

    def _answer(self, _uc: object, _data: object) -> int:
        leaf = self._read("EAX")
        assert leaf not in {7, 13} or self._read("ECX") == 0
        for name in ("eax", "ebx", "ecx", "edx"):
            self._write(name.upper(), self._cpuid.get((leaf, name), 0))
        return 1

    def _before(self, _uc: object, address: int, size: int, _data: object) -> None:
        code = self._uc.mem_read(address, size)
        if code == XSETBV:
            assert self._read("ECX") == 0
            self.xcr0.append(self._read("RDX") << 32 | self._read("RAX"))
        elif code == XGETBV:
            assert self._read("ECX") == 0
            self._write("RAX", self.xcr0[-1] & self._kept)
            self._write("RDX", 0)
        else:
            return
        self._write("RIP", address + size)


def test_a_cpu_with_zmm_registers_gets_their_kernel() -> None:
    cpu = Cpu(WIDEST)
    assert (cpu.features, cpu.xcr0) == (BOTH | abi.MH_FEATURE_ZMM, [AVX_STATE | ZMM_STATE])


@pytest.mark.parametrize(
    ("leaf", "register", "bits"),
    [
        *((7, "ebx", bit) for bit in (AVX512F, AVX512BW, AVX512VL)),
        *((13, "eax", bit) for bit in (0x20, 0x40, 0x80)),
        (0, "eax", 13 & ~12),
    ],
)
def test_without_one_of_them_they_stay_off(leaf: int, register: str, bits: int) -> None:
    cpu = Cpu(WIDEST | {(leaf, register): WIDEST[leaf, register] & ~bits})
    assert (cpu.features, cpu.xcr0) == (BOTH, [AVX_STATE])


@pytest.mark.parametrize("kept", [~0x20, ~0x40, ~0x80, AVX_STATE])
def test_a_host_that_keeps_less_gets_the_lesser_kernel(kept: int) -> None:
    assert Cpu(WIDEST, kept).features == BOTH


def test_a_host_that_keeps_no_avx_gets_none_of_both() -> None:
    assert Cpu(WIDEST, ~0x4).features == abi.MH_FEATURE_AESNI


@pytest.mark.parametrize("part", PARTS.values(), ids=lambda part: part.name)
def test_kernel_is_linked_for_parts_that_have_them(part: Any) -> None:
    image = build_helper("regions", Options.for_part(part))
    names = {symbol.name for symbol in image.symbols}
    assert ("gcm_zmm_seal" in names) == (part.name in {"genoa", "turin"})
    assert len(image.data) - image.table_bytes <= 32 << 10
