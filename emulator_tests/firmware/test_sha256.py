"""SHA-256 of the loader and of a helper for SNP against hashlib: every length around its blocks, and some long ones."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, UC_PROT_EXEC, UC_PROT_READ, Uc, x86_const

from emulator_tests.attest.machine import image_for
from emulator_tests.coverage.recorder import notice
from emulator_tests.firmware.probe import addresses
from mh_builder.firmware.driver import build_loader
from mh_builder.paging import PAGE_BYTES
from mh_emulator.uefi.driver import load_driver

CODE, INPUT, STACK, RETURN = 0x10_0000, 0x80_0000, 0x90_0000, 0xA0_0000
INPUT_BYTES = 20 * PAGE_BYTES
STACK_TOP = STACK + PAGE_BYTES - 64
DIGEST = STACK + 64
BEHIND = b"\x5a" * 32


def of_loader() -> tuple[bytes, int]:
    """Its bytes, and where in them the routine is."""
    return load_driver(build_loader()).image, addresses()["sha256"]


def of_helper() -> tuple[bytes, int]:
    """The same, of the only build that has one, for HKDF: no length of its own comes near the end of a block."""
    image = image_for()
    symbol = next(symbol for symbol in image.symbols if symbol.name == "sha256")
    section = image.section(".text")
    return image.data, symbol.value - section.va + section.offset


class Hashing:
    """An engine in which one of them runs on the last bytes of `data`: no input starts where a block would."""

    def __init__(self, code: bytes, start: int) -> None:
        self._start = CODE + start
        self._engine = engine = Uc(UC_ARCH_X86, UC_MODE_64)
        engine.mem_map(CODE, -(-len(code) // PAGE_BYTES) * PAGE_BYTES, UC_PROT_READ | UC_PROT_EXEC)
        engine.mem_write(CODE, code)
        notice(engine, CODE, code)
        self.data = random.Random(1).randbytes(INPUT_BYTES)
        engine.mem_map(INPUT, INPUT_BYTES, UC_PROT_READ)
        engine.mem_write(INPUT, self.data)
        engine.mem_map(STACK, PAGE_BYTES)
        engine.mem_map(RETURN, PAGE_BYTES)

    def digest(self, length: int) -> bytes:
        """And what lies behind it."""
        engine = self._engine
        engine.mem_write(DIGEST + 32, BEHIND)
        engine.mem_write(STACK_TOP, RETURN.to_bytes(8, "little"))
        registers = {
            x86_const.UC_X86_REG_RSI: INPUT + INPUT_BYTES - length, x86_const.UC_X86_REG_RDX: length,
            x86_const.UC_X86_REG_RDI: DIGEST, x86_const.UC_X86_REG_RBX: 77, x86_const.UC_X86_REG_RSP: STACK_TOP,
        }  # fmt: skip
        for register, value in registers.items():
            engine.reg_write(register, value)
        engine.emu_start(self._start, RETURN)
        kept = [engine.reg_read(register) for register in (x86_const.UC_X86_REG_RBX, x86_const.UC_X86_REG_RSP)]
        assert kept == [77, STACK_TOP + 8]
        return bytes(engine.mem_read(DIGEST, 32 + len(BEHIND)))


@pytest.mark.parametrize("lengths", [range(130), (4095, 4096, 4097, 65535, INPUT_BYTES)], ids=["short", "long"])
@pytest.mark.parametrize("find", [of_loader, of_helper])
def test_digest(find: Callable[[], tuple[bytes, int]], lengths: Sequence[int]) -> None:
    hashing = Hashing(*find())
    for length in lengths:
        expected = hashlib.sha256(hashing.data[INPUT_BYTES - length :]).digest()
        assert hashing.digest(length) == expected + BEHIND, length
