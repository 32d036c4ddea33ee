"""The linked helper and the limit kernels in this process's memory, to be run as user code."""

from __future__ import annotations

import ctypes
import platform
import struct
from pathlib import Path

from mh_abi import abi
from mh_abi.sources import PAYLOAD
from mh_builder.asm import ObjectFile, RelocationKind, assemble_text
from mh_builder.asm.native import Memory
from mh_builder.image.model import Image
from mh_builder.paging import PAGE_BYTES

NEEDS = {
    "aesni": frozenset({"aes", "pclmulqdq", "ssse3", "sse4_1"}),
    "vaes": frozenset({"aes", "pclmulqdq", "ssse3", "sse4_1", "avx2", "vaes", "vpclmulqdq"}),
    "zmm": frozenset(
        {"aes", "pclmulqdq", "ssse3", "sse4_1", "avx2", "vaes", "vpclmulqdq", "avx512f", "avx512bw", "avx512vl"}
    ),
}
"""What /proc/cpuinfo must list for a kernel."""

FEATURES = {
    "aesni": abi.MH_FEATURE_AESNI,
    "vaes": abi.MH_FEATURE_AESNI | abi.MH_FEATURE_VAES,
    "zmm": abi.MH_FEATURE_AESNI | abi.MH_FEATURE_VAES | abi.MH_FEATURE_ZMM,
}


def missing(kernel: str) -> list[str]:
    """The CPU features that a kernel needs and this machine does not show."""
    return sorted(NEEDS[kernel] - set(_cpuinfo("flags").split()))


def cpu_name() -> str:
    """The CPU as it says itself: name, family, model and stepping, as far as it does."""
    name = _cpuinfo("model name")
    numbers = ", ".join(f"{field} {_cpuinfo(key)}" for field, key in _NUMBERS.items() if _cpuinfo(key))
    return f"{name} ({numbers})" if numbers else name


_NUMBERS = {"family": "cpu family", "model": "model", "stepping": "stepping"}


def _cpuinfo(key: str) -> str:
    """A field of the first CPU, where this machine is x86-64 Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.exists():
        return ""
    fields = (line.partition(":") for line in cpuinfo.read_text(encoding="utf-8").splitlines())
    return next((value.strip() for name, _, value in fields if name.strip() == key), "")


class NativeImage:
    """A linked image; its code reaches its data relative to rip, so it runs wherever the distances are right."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._memory = Memory(image.memory_bytes)
        self._memory.write(0, image.data)
        self._key_offset = image.section(".vcpu").offset
        for section in image.sections:
            if section.executable:
                self._memory.make_executable(section.offset, section.size)

    def address(self, name: str) -> int:
        """Where a global symbol is in this process."""
        return self._memory.base + self._offset(name)

    def _offset(self, name: str) -> int:
        symbol = self._image.symbol(name)
        section = self._image.section(symbol.section or "")
        return symbol.value - section.va + section.offset

    def choose(self, kernel: str) -> None:
        """Make `gcm_seal` and `gcm_open` take a kernel, as a session does by the features of its CPU."""
        self._memory.write(self._key_offset + _features_offset(), struct.pack("<I", FEATURES[kernel]))

    def set_key(self, key: bytes) -> int:
        """Prepare a page key; give its address."""
        where, source = self._memory.base + self._key_offset, ctypes.create_string_buffer(key, len(key))
        prepare = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(self.address("gcm_key_init"))
        prepare(where, ctypes.addressof(source))
        return where


def _features_offset() -> int:
    text = '.include "gcm.inc"\n.global gcm_key.features\n'
    unit = assemble_text(text, "offset.s", include_dir=PAYLOAD)
    return next(symbol.value for symbol in unit.symbols if symbol.name == "gcm_key.features")


class Limits:
    """AES alone and GHASH alone, from limit.s."""

    def __init__(self) -> None:
        folder = PAYLOAD
        source = Path(__file__).with_name("limit.s").read_text(encoding="ascii")
        unit = assemble_text(source, "bench/limit.s", symbols=abi.assembler_symbols(), include_dir=folder)
        places, end = {}, 0
        for section in unit.sections:
            places[section.name] = end = -(-end // PAGE_BYTES) * PAGE_BYTES
            end += section.size
        self._memory = Memory(end)
        for section in unit.sections:
            self._memory.write(places[section.name], _relocated(unit, section.name, places))
            if section.name == ".text":
                self._memory.make_executable(places[section.name], section.size)
        self._offsets = {item.name: places[item.section] + item.value for item in unit.symbols if item.section}

    def address(self, name: str) -> int:
        """Where a function is in this process."""
        return self._memory.base + self._offsets[name]


def _relocated(unit: ObjectFile, name: str, places: dict[str, int]) -> bytes:
    names = {item.name: places[item.section] + item.value for item in unit.symbols if item.section}
    section = next(item for item in unit.sections if item.name == name)
    data = bytearray(section.data)
    for fixup in section.relocations:
        if fixup.kind is not RelocationKind.REL32:
            raise ValueError(f"{fixup.place}: not relative")
        distance = names[fixup.symbol] + fixup.addend - places[name] - fixup.offset
        struct.pack_into("<i", data, fixup.offset, distance)
    return bytes(data)
