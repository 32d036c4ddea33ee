"""The loader's SHA-256 against hashlib, for every length around its blocks and some long ones."""

from __future__ import annotations

import hashlib
import random

import pytest

from emulator_tests.machine.guests import CODE, DATA, HEAP, STACK, TEXT, Guest, run_to_halt
from mh_builder.firmware.driver import loader_objects
from mh_emulator.kvm.vcpu import Vcpu

PAGE = 0x1000
DATA_PAGES = 20
DIGEST = HEAP + PAGE
INPUT = 0x9_0000
RODATA = TEXT + 4 * PAGE


@pytest.fixture(scope="module")
def hashing() -> tuple[Guest, Vcpu]:
    """A guest whose code is the loader's: its digest of RDX bytes at RSI goes to RDI, then it halts."""
    part = next(unit for unit in loader_objects() if unit.name.endswith("sha256.s"))
    text, rodata = (next(s for s in part.sections if s.name == name) for name in (".text", ".rodata"))
    code = bytearray(text.data)
    places = {symbol.name: symbol.value for symbol in part.symbols if symbol.section == ".rodata"}
    for relocation in text.relocations:
        distance = RODATA + places[relocation.symbol] + relocation.addend - (TEXT + 16 + relocation.offset)
        code[relocation.offset : relocation.offset + 4] = distance.to_bytes(4, "little", signed=True)
    guest = Guest()
    # CALL to the routine behind this stub, HLT.
    guest.contents[TEXT] = (b"\xe8" + (11).to_bytes(4, "little") + b"\xf4").ljust(16, b"\xcc") + bytes(code)
    guest.contents[RODATA] = rodata.data
    guest.tables.map(RODATA, RODATA, DATA)
    guest.tables.map(TEXT + 2 * PAGE, TEXT + 2 * PAGE, CODE)
    for page in range(INPUT, INPUT + DATA_PAGES * PAGE, PAGE):
        guest.tables.map(page, page, DATA)
    return guest, guest.launch()


@pytest.mark.parametrize("lengths", [range(130), (4095, 4096, 4097, 65535, DATA_PAGES * PAGE)], ids=["short", "long"])
def test_digest(hashing: tuple[Guest, Vcpu], lengths: range) -> None:
    guest, vcpu = hashing
    data = random.Random(1).randbytes(DATA_PAGES * PAGE)
    for start in range(0, len(data), PAGE):
        guest.platform.dram.write_private(guest.vm.asid, guest.spa(INPUT + start), data[start : start + PAGE])
    for length in lengths:
        # From its end: no input starts where a block would.
        address = INPUT + len(data) - length
        vcpu.set_registers(guest.registers(rsi=address, rdx=length, rdi=DIGEST, rbx=77, rsp=STACK))
        state = run_to_halt(vcpu)
        assert guest.private(DIGEST, 32) == hashlib.sha256(data[len(data) - length :]).digest(), length
        assert (state.rbx, state.rsp) == (77, STACK)
