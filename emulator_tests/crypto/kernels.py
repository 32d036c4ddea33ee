"""The linked helper's kernels in memory, ready to call, run by unicorn or by this CPU."""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import unicorn
from unicorn import unicorn_const, x86_const

from emulator_tests.coverage.recorder import notice
from mh_abi import abi
from mh_abi.sources import PAYLOAD
from mh_builder.asm import ObjectFile, RelocationKind, assemble, assemble_text
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import Options

from .masks import Masks

KERNELS = ("aes", "gcm", "gcm_open", "gcm_seal", "gcm_vaes", "gcm_zmm", "kdf", "x25519")
MASK = bytes.fromhex("8f5c2ae1037bd94660b7f21c9ed5483a")
"""The mask of gcm_open where a test gives no other."""

CODE_BYTES = 0x20000
DATA_BYTES = 0x20000
STACK_BYTES = 0x1000  # of the kernels; behind it the record of the probe and the stack of the probe
RECORD_VECTOR = 192  # in probe.s: xmm0 at the call, vector registers at the return
HEAP_OFFSET = 0x2000
RECORD_FIFTH = 96  # in probe.s
CANARY = b"\xa5" * 16
UNTOUCHED = b"\xee"
STACK_PAINT = b"\x5a"
PRESERVED = {
    "rbx": 0x33333333,
    "rbp": 0x55555555,
    "r12": 0xCCCCCCCC,
    "r13": 0xDDDDDDDD,
    "r14": 0xEEEEEEEE,
    "r15": 0xFFFFFFFF,
}
GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


SYMBOLS = abi.assembler_symbols() | {"MH_VECTORS_512": 1}
"""With all kernels."""


@cache
def assembled(name: str) -> ObjectFile:
    return assemble(PAYLOAD / f"{name}.s", symbols=SYMBOLS)


@cache
def _probe(vector_bytes: int) -> ObjectFile:
    return assemble(Path(__file__).with_name("probe.s"), symbols={"VECTOR_BYTES": vector_bytes})


@cache
def constants() -> dict[str, int]:
    """The offsets and sizes of gcm.inc and kdf.inc, by an object that exports them."""
    included = ("gcm.inc", "kdf.inc")
    texts = [(PAYLOAD / name).read_text(encoding="ascii") for name in included]
    names = re.findall(r"^(?:\.equ|field) ([\w.]+),", "".join(texts), re.MULTILINE)
    lines = [*(f'.include "{name}"' for name in included), *(f".global {name}" for name in names), ""]
    text = "\n".join(lines)
    exported = assemble_text(text, "constants.s", symbols=abi.assembler_symbols(), include_dir=PAYLOAD)
    return {symbol.name: symbol.value for symbol in exported.symbols if symbol.section is None}


def addresses(source: ObjectFile, places: dict[str, int]) -> dict[str, int]:
    return {symbol.name: places[symbol.section] + symbol.value for symbol in source.symbols if symbol.section}


def relocated(source: ObjectFile, places: dict[str, int], outside: dict[str, int]) -> dict[str, bytes]:
    """The sections of `source` when they lie at `places`, with `outside` for the names of other files."""
    names = outside | addresses(source, places)
    result = {}
    for section in source.sections:
        data = bytearray(section.data)
        for fixup in section.relocations:
            value = names[fixup.symbol] + fixup.addend
            if fixup.kind is RelocationKind.REL32:
                struct.pack_into("<i", data, fixup.offset, value - places[section.name] - fixup.offset)
            else:
                assert fixup.kind is RelocationKind.ABS64, fixup
                struct.pack_into("<Q", data, fixup.offset, value)
        result[section.name] = bytes(data)
    return result


@cache
def helper(vector_bits: int = 256) -> Image:
    """The linked helper, whose kernels these are."""
    return build_helper("regions", Options(vector_bits=vector_bits))


def loaded(image: Image, base: int, vector_bytes: int) -> tuple[bytes, dict[str, int]]:
    """The helper's file at `base` and the probe behind it, and where the global names of both are."""
    sections = {section.name: section for section in image.sections}
    names = {
        symbol.name: base + symbol.value - sections[symbol.section].va + sections[symbol.section].offset
        for symbol in image.symbols
        if symbol.is_global and symbol.section
    }
    start = -(-len(image.data) // PAGE_BYTES) * PAGE_BYTES
    source = _probe(vector_bytes)
    places = {".text": base + start}
    probe = relocated(source, places, {})[".text"]
    return image.data.ljust(start, b"\xcc") + probe, names | addresses(source, places)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a kernel left behind; `stack` is the whole of its stack, painted before the call."""

    general: dict[str, int]
    vector: bytes
    flags: int
    stack: bytes

    def vectors(self, size: int) -> list[bytes]:
        """Every vector register, of `size` bytes."""
        return [self.vector[at : at + size] for at in range(0, len(self.vector), size)]

    @property
    def eax(self) -> int:
        return self.general["rax"] & 0xFFFFFFFF


class Engine(ABC):
    """Runs kernels by name on buffers that lie between canaries; `FEATURES` of a key choose the kernel."""

    FEATURES = abi.MH_FEATURE_AESNI
    VECTOR_BYTES = 16
    VECTORS = 16
    PAINT = STACK_PAINT  # what a kernel finds on its stack

    def __init__(self, code: int, data: int) -> None:
        self.code, self.data = code, data
        self.image, self.symbols = loaded(self.built(), code, self.VECTOR_BYTES)
        assert len(self.image) < CODE_BYTES
        self.reset()

    def built(self) -> Image:
        """The helper whose kernels it runs."""
        return helper(max(256, 8 * self.VECTOR_BYTES))

    @abstractmethod
    def write(self, address: int, data: bytes) -> None: ...

    @abstractmethod
    def read(self, address: int, count: int) -> bytes: ...

    @abstractmethod
    def run(self, function: int, argument: int) -> None: ...

    def reset(self) -> None:
        """Gives up all buffers."""
        self._end = self.data + HEAP_OFFSET
        self._canaries: list[int] = []

    def buffer(self, contents: bytes, skew: int = 0) -> int:
        """The address of a buffer, `skew` bytes past a multiple of 64."""
        address = -(-(self._end + len(CANARY)) // 64) * 64 + skew
        self._end = address + len(contents) + len(CANARY)
        assert self._end <= self.data + DATA_BYTES
        self.write(address - len(CANARY), CANARY + contents + CANARY)
        self._canaries += [address - len(CANARY), address + len(contents)]
        return address

    def call(self, name: str, *arguments: int, vector: bytes = MASK) -> Outcome:
        """Calls a kernel, with `vector` in xmm0, and checks what every kernel promises its caller."""
        stack = self.data
        record = stack + STACK_BYTES
        self.write(stack, self.PAINT * STACK_BYTES)
        padded = (*arguments, *(0,) * (4 - len(arguments)))[:4]
        fifth = arguments[4] if len(arguments) > 4 else 0x88888888
        self.write(record, struct.pack("<6Q", self.symbols[name], *padded, record - 8))
        self.write(record + RECORD_FIFTH, struct.pack("<Q", fifth))
        self.write(record + RECORD_VECTOR, vector)
        self.run(self.symbols["probe"], record)

        out = self.read(record, RECORD_VECTOR + self.VECTORS * self.VECTOR_BYTES)
        general = dict(zip(GENERAL, struct.unpack_from("<16Q", out, 64), strict=True))
        flags = int.from_bytes(out[56:64], "little")
        assert {register: general[register] for register in PRESERVED} == PRESERVED
        assert not flags & 0x400, "the direction flag is set"
        assert all(self.read(canary, len(CANARY)) == CANARY for canary in self._canaries)
        return Outcome(general, out[RECORD_VECTOR:], flags, self.read(stack, STACK_BYTES))


class Emulated(Engine):
    """Unicorn."""

    CODE = 0x400000
    DATA = 0x10000000
    RETURN = CODE + CODE_BYTES - 16

    def __init__(self) -> None:
        library: Any = unicorn  # says that it is typed, and is not
        self.uc = library.Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64)
        self.uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_EPYC_ROME)
        self.uc.mem_map(self.CODE, CODE_BYTES, unicorn_const.UC_PROT_READ | unicorn_const.UC_PROT_EXEC)
        self.uc.mem_map(self.DATA, DATA_BYTES, unicorn_const.UC_PROT_READ | unicorn_const.UC_PROT_WRITE)
        super().__init__(self.CODE, self.DATA)
        self.uc.mem_write(self.CODE, self.image)
        notice(self.uc, self.CODE, self.image)

    def write(self, address: int, data: bytes) -> None:
        self.uc.mem_write(address, data)

    def read(self, address: int, count: int) -> bytes:
        return bytes(self.uc.mem_read(address, count))

    def run(self, function: int, argument: int) -> None:
        stack = self.data + HEAP_OFFSET - 8
        self.write(stack, struct.pack("<Q", self.RETURN))
        self.uc.reg_write(x86_const.UC_X86_REG_RSP, stack)
        self.uc.reg_write(x86_const.UC_X86_REG_RDI, argument)
        self.uc.emu_start(function, self.RETURN)


class Traced(Emulated):
    """Unicorn with a record of every instruction and every access to memory while a kernel runs."""

    def __init__(self) -> None:
        super().__init__()
        self.trace: list[tuple[str, int, int]] = []
        self.written: list[tuple[int, bytes]] = []
        """Each write of the trace, with what was written."""
        self._outside = range(self.symbols["probe"], self.symbols["probe"] + 0x1000)
        self._inside = False
        self.uc.hook_add(unicorn_const.UC_HOOK_CODE, self._code)
        self.uc.hook_add(unicorn_const.UC_HOOK_MEM_READ | unicorn_const.UC_HOOK_MEM_WRITE, self._access)

    def run(self, function: int, argument: int) -> None:
        self.trace.clear()
        self.written.clear()
        super().run(function, argument)

    def _code(self, _uc: object, address: int, size: int, _data: object) -> None:
        self._inside = address not in self._outside
        if self._inside:
            self.trace.append(("run", address, size))

    def _access(self, _uc: object, access: int, address: int, size: int, value: int, _data: object) -> None:
        if self._inside:
            kind = "read" if access == unicorn_const.UC_MEM_READ else "write"
            self.trace.append((kind, address, size))
            if kind == "write":
                self.written.append((address, (value % (1 << 8 * size)).to_bytes(size, "little")))


class Native(Engine):
    """This CPU."""

    NEEDS = frozenset({"aes", "pclmulqdq", "ssse3", "sse4_1"})

    @classmethod
    def missing(cls) -> set[str]:
        """The CPU features that the kernels need and this machine lacks."""
        if platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists():
            return set(cls.NEEDS)
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
        return set(cls.NEEDS) - set(flags.split())

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, CODE_BYTES + DATA_BYTES, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        super().__init__(self._base, self._base + CODE_BYTES)
        self.write(self._base, self.image)

    def write(self, address: int, data: bytes) -> None:
        self._memory[address - self._base : address - self._base + len(data)] = data

    def read(self, address: int, count: int) -> bytes:
        return self._memory[address - self._base : address - self._base + count]

    def run(self, function: int, argument: int) -> None:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)(argument)


class NativeWide(Native):
    """This CPU with the VAES kernel."""

    FEATURES = abi.MH_FEATURE_AESNI | abi.MH_FEATURE_VAES
    VECTOR_BYTES = 32
    NEEDS = Native.NEEDS | {"avx2", "vaes", "vpclmulqdq"}


class NativeWidest(NativeWide):
    """This CPU with the kernel on zmm registers, of which there are 32."""

    FEATURES = NativeWide.FEATURES | abi.MH_FEATURE_ZMM
    VECTOR_BYTES = 64
    VECTORS = 32
    NEEDS = NativeWide.NEEDS | {"avx512f", "avx512bw", "avx512vl"}


@dataclass(frozen=True, slots=True)
class Job:
    """A gcm_job in an engine's memory."""

    engine: Engine
    address: int
    fields: dict[str, int]

    def read(self, field: str, count: int) -> bytes:
        return self.engine.read(self.fields[field], count)


def make_key(engine: Engine, key: bytes, skew: int = 0) -> int:
    """A gcm_key in the engine's memory."""
    address = engine.buffer(bytes(constants()["sizeof.gcm_key"]))
    engine.call("gcm_key_init", address, engine.buffer(key, skew))
    engine.write(address + constants()["gcm_key.features"], struct.pack("<I", engine.FEATURES))
    return address


def make_job(engine: Engine, iv: bytes, aad: bytes, source: bytes, tag: bytes = bytes(16), *, skew: int = 0) -> Job:
    """A gcm_job whose buffers are misaligned by multiples of `skew` bytes, the scratch by whole blocks."""
    fields = {
        "iv": engine.buffer(iv, skew % 64),
        "aad": engine.buffer(aad, skew * 3 % 64),
        "aad_bytes": len(aad),
        "source": engine.buffer(source, skew * 5 % 64),
        "destination": engine.buffer(UNTOUCHED * len(source), skew * 7 % 64),
        "bytes": len(source),
        "tag": engine.buffer(tag, skew * 9 % 64),
        "scratch": engine.buffer(b"\x77" * len(source), skew * 16 % 64),
    }
    layout = bytearray(constants()["sizeof.gcm_job"])
    for name, value in fields.items():
        struct.pack_into("<Q", layout, constants()[f"gcm_job.{name}"], value)
    return Job(engine, engine.buffer(bytes(layout)), fields)


def masks(engine: Engine, key: int, mask: bytes = MASK) -> Masks:
    """Those of a gcm_key in the engine's memory, which begins with the schedule."""
    return Masks(engine.read(key, 32), mask)


def seal(engine: Engine, key: int, iv: bytes, aad: bytes, plaintext: bytes, *, skew: int = 0) -> bytes:
    """Ciphertext and tag, as AESGCM.encrypt gives them."""
    job = make_job(engine, iv, aad, plaintext, skew=skew)
    assert engine.call("gcm_seal", key, job.address).eax == 0
    return job.read("destination", len(plaintext)) + job.read("tag", 16)


def unseal(engine: Engine, key: int, iv: bytes, aad: bytes, sealed: bytes, *, skew: int = 0) -> bytes | None:
    """The plaintext that gcm_open wrote, or nothing where it found the tag wrong; the scratch is as promised."""
    job = make_job(engine, iv, aad, sealed[:-16], sealed[-16:], skew=skew)
    verdict = engine.call("gcm_open", key, job.address).eax
    length = len(sealed) - 16
    assert job.read("scratch", length) == masks(engine, key).waiting(iv, sealed[:-16])
    if verdict:
        assert verdict == 1
        assert job.read("destination", length) == UNTOUCHED * length
        return None
    return job.read("destination", length)


def matches(engine: Engine, key: int, iv: bytes, aad: bytes, plaintext: bytes, tag: bytes, *, skew: int = 0) -> int:
    """What gcm_matches says; it has written nothing."""
    job = make_job(engine, iv, aad, plaintext, tag, skew=skew)
    verdict = engine.call("gcm_matches", key, job.address).eax
    assert job.read("destination", len(plaintext)) == UNTOUCHED * len(plaintext)
    assert job.read("tag", 16) == tag
    return verdict
