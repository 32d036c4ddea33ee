"""CPUs that lack what the kernels need, or hosts that say so: no session, and nothing else is tried."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from emulator_tests.helper.conftest import PAGES, Op, Status, contents_of, launched
from emulator_tests.helper.rings import image_of, sides_of
from mh_abi.image import parse_image
from mh_builder.parts import PARTS, CpuidResult, Part


@dataclass(frozen=True)
class Lacking(Part):
    """A part without one bit of CPUID 1 ECX."""

    bit: int = 0

    def cpuid(self, leaf: int, subleaf: int, *, encrypted: bool) -> CpuidResult:
        found = super().cpuid(leaf, subleaf, encrypted=encrypted)
        return found._replace(ecx=found.ecx & ~(1 << self.bit)) if leaf == 1 else found


@pytest.mark.parametrize("bit", [1, 9, 19, 25, 30], ids=["pclmulqdq", "ssse3", "sse4.1", "aes", "rdrand"])
def test_no_ring_begins_or_joins_a_session(bit: int) -> None:
    milan = PARTS["milan"]
    part = Lacking(**{field.name: getattr(milan, field.name) for field in fields(milan)}, bit=bit)
    machine = launched(parse_image(image_of(2).data), part, 1, contents_of(PAGES))
    machine.start_helper()
    first, second = sides_of(machine)
    assert first.ask(Op.MH_OP_HELLO) == Status.MH_NO_FEATURE
    assert second.ask(Op.MH_OP_JOIN) == Status.MH_NO_FEATURE
    assert first.ask(Op.MH_OP_EXPORT) == Status.MH_WRONG_STATE
