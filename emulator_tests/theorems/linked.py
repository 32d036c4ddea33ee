"""The code of a linked helper, by label, and with a fault in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from functools import cache
from itertools import takewhile

from emulator_tests.coverage.blobs import Blob, Instruction, blob, source
from emulator_tests.mutation.mutants import KINDS, Mutant, mutants
from mh_abi import abi
from mh_abi.sources import PAYLOAD
from mh_builder.asm import assemble_text
from mh_builder.image.model import Image

_LOCK = 0xF0
_FIELD = re.compile(r"^field ([\w.]+),", re.MULTILINE)
_ONLY = re.compile(r"^\.ifdef (\w+)\n(.*?)^\.endif\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Code:
    """What of an image never changes: its header, its code and its constants."""

    image: Image
    text: bytes

    @staticmethod
    def of(image: Image) -> Code:
        """That of an image as it was linked."""
        section = image.section(".text")
        return Code(image, image.data[section.offset : section.offset + section.size])

    @property
    def params(self) -> abi.mh_params:
        """What the linker tells the code."""
        return abi.mh_params(self.image.data[len(abi.mh_descriptor) :])

    @property
    def start(self) -> int:
        """Virtual address of the first instruction."""
        return self.image.section(".text").va

    def constants(self) -> Iterator[tuple[int, bytes]]:
        """(virtual address, bytes) of what code may read."""
        for name in (".header", ".rodata"):
            section = self.image.section(name)
            yield section.va, self.image.data[section.offset : section.offset + section.stored]

    def label(self, source: str, name: str) -> int:
        """Virtual address of a label of that source, local ones included."""
        (found,) = (one.value for one in self.image.symbols if (one.origin, one.name) == (f"payload/{source}.s", name))
        return found

    def at(self, address: int) -> bytes:
        """The bytes from there, as many as an instruction can have; none where there is no code."""
        offset = address - self.start
        return self.text[offset : offset + 16] if offset >= 0 else b""

    def with_fault(self, mutant: Mutant, name: str) -> Code:
        """With one small fault, of an instruction that the blob of that name has too."""
        one = _instruction(blob(name), mutant)
        end = one.offset + one.size
        code = KINDS[mutant.kind](self.text[one.offset : end])
        return replace(self, text=self.text[: one.offset] + code + self.text[end:])


def _instruction(code: Blob, mutant: Mutant) -> Instruction:
    return next(one for one in code.instructions if one.key == (mutant.place, mutant.count))


@dataclass(frozen=True, slots=True)
class Part:
    """Code of one source, from a label up to another one, to an instruction, or to the end of the source."""

    source: str
    first: str
    behind: str | None = None
    _: KW_ONLY
    until: str | None = None
    """The instruction, as the source has it."""
    also: tuple[str, ...] = ()
    """Instructions that are dropped too, though nothing is asked or compared there."""

    def faults(self, code: Code, name: str) -> Iterator[Mutant]:
        """All small faults of it that a test can notice with one vCPU, as the blob of that name has them.

        Not those of a lock, nor of what begins anew where another vCPU was faster.
        """
        here = self._instructions(code, name)
        locked = {one.offset + one.size for one in here if code.text[one.offset] == _LOCK}
        inside = {one.key for one in here if one.offset not in locked}
        for mutant in mutants((name,)):
            if (mutant.place, mutant.count) in inside and mutant.kind != "unlocked" and mutant.equivalent is None:
                yield mutant
        yield from (Mutant(*one.key, "dropped") for one in here if written(one) in self.also)

    def _instructions(self, code: Code, name: str) -> list[Instruction]:
        start = code.label(self.source, self.first)
        end = code.start + len(code.text) if self.behind is None else code.label(self.source, self.behind)
        file = f"payload/{self.source}.s:"
        here = [
            one
            for one in blob(name).instructions
            if start <= code.start + one.offset < end and one.place.startswith(file)
        ]
        return list(takewhile(lambda one: written(one) != self.until, here))


def written(instruction: Instruction) -> str:
    """As the source has it."""
    name, _, number = instruction.line.rpartition(":")
    return source(name)[int(number) - 1].partition("#")[0].strip()


@cache
def offsets(*defined: str) -> dict[str, int]:
    """Where the fields of private state lie, and how large it is (vcpu.inc), in bytes, in a build with these names."""
    text = (PAYLOAD / "vcpu.inc").read_text(encoding="ascii")
    names = _FIELD.findall(_ONLY.sub(lambda found: found[2] if found[1] in defined else "", text))
    text = '.include "vcpu.inc"\n.section .rodata\n' + "".join(f".quad {name}\n" for name in names)
    unit = assemble_text(
        text, "offsets", symbols=abi.assembler_symbols() | dict.fromkeys(defined, 1), include_dir=PAYLOAD
    )
    (data,) = (section.data for section in unit.sections if section.name == ".rodata")
    return {name: int.from_bytes(data[8 * i : 8 * i + 8], "little") for i, name in enumerate(names)}
