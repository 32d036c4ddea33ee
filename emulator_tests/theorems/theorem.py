"""A theorem about linked code, and the faults that have to break it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from emulator_tests.mutation.mutants import Mutant
from emulator_tests.theorems.linked import Code, Part
from emulator_tests.theorems.symbolic import Refuted
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.schemes.space import Options


@dataclass(frozen=True, slots=True)
class Theorem:
    """`check` raises `Refuted` where it does not hold."""

    text: str
    """Its bound too, if it has one."""
    check: Callable[[Code], None]
    images: Mapping[str, Callable[[], Image]]
    """Those about which it is, by name."""
    faulty: str
    """The image in which faults are planted, one in which each makes a difference."""
    blob: str
    """The blob (coverage.blobs) that has that image's code."""
    parts: tuple[Part, ...]
    """The code that has no fault."""

    def code(self, name: str) -> Code:
        """That of one of the images."""
        return Code.of(self.images[name]())

    def faults(self) -> list[Mutant]:
        """All small faults of its code."""
        code = self.code(self.faulty)
        return [fault for part in self.parts for fault in part.faults(code, self.blob)]

    def survives(self, fault: Mutant) -> bool:
        """Whether it holds in spite of that fault."""
        try:
            self.check(self.code(self.faulty).with_fault(fault, self.blob))
        except Refuted:
            return False
        return True

    def __str__(self) -> str:
        return self.text


def about_regions(text: str, check: Callable[[Code], None], *parts: Part) -> Theorem:
    """A theorem that the image of `regions` stands for: its code does not depend on the address space."""
    images = {"regions": partial(build_helper, "regions", Options())}
    return Theorem(text, check, images, "regions", "helper", parts)
