"""Every path leaves the stack as it found it, and none uses more of it than there is."""

from __future__ import annotations

import pytest

from emulator_tests.claims import code
from emulator_tests.claims.code import symbols
from emulator_tests.claims.stack import Stack, Unbalanced
from emulator_tests.coverage.blobs import LANDING, RECORDED, linked
from emulator_tests.helper.conftest import facing, lonely
from emulator_tests.mutation.plant import changed
from mh_abi import abi
from mh_builder.image.model import Image, vcpu_section

HELPER_BYTES, SNP_BYTES, LOADER_BYTES, LANDING_BYTES = 488, 856, 896, 32
"""Of X25519; of SHA-256 below HKDF; of SHA-256 in a loader; of a walk through a guest's tables."""
_KINDS = {
    "helper": ("entry64", HELPER_BYTES),
    "loader": ("loader_entry", LOADER_BYTES),
    LANDING: (LANDING, LANDING_BYTES),
}
"""Where a blob begins, and what it may use."""
UEFI_STACK_BYTES = 128 << 10
"""What a driver finds at least: UEFI 2.10, section 2.3.4."""


def kind(name: str) -> tuple[str, int]:
    return _KINDS[name.partition(",")[0]]


def bound(name: str) -> int:
    return Stack(name).bound(symbols(name)[kind(name)[0]])


@pytest.mark.parametrize("name", RECORDED)
def test_the_stack_is_balanced_and_bounded(name: str) -> None:
    assert bound(name) == (SNP_BYTES if name == "helper, SEV-SNP" else kind(name)[1])
    assert SNP_BYTES < abi.MH_STACK_BYTES
    assert LOADER_BYTES < UEFI_STACK_BYTES


def test_a_running_helper_stays_within_the_bound(images: dict[str, Image]) -> None:
    """X25519 goes deepest."""
    side = lonely(images)
    facing(side, abi.mh_role.MH_ROLE_SOURCE)
    section = images["regions"].section(vcpu_section(".stack", 0))
    pages = range(section.offset, section.offset + section.size, abi.MH_PAGE_BYTES)
    stack = b"".join(side.machine.read_helper(page, abi.MH_PAGE_BYTES) for page in pages)
    assert HELPER_BYTES // 2 < len(stack.lstrip(b"\0")) <= HELPER_BYTES


@pytest.mark.parametrize(("text", "error"), [("push", "bytes on the stack"), ("ret", "returns with")])
def test_an_instruction_that_goes_is_found(monkeypatch: pytest.MonkeyPatch, text: str, error: str) -> None:
    """The first push of claim() dropped, and a return put in the place of its first pop."""
    found = (one for one, insn in code.decoded("helper").values() if one.line.startswith("payload/bitmap.s:"))
    wanted = "push" if text == "push" else "pop"
    target = next(one for one in found if code.decoded("helper")[one.offset][1].mnemonic == wanted)
    with changed((target.place, target.count, lambda _: b"\x90" if text == "push" else b"\xc3")):
        broken = linked("helper")
    monkeypatch.setattr(code, "blob", lambda _: broken)
    code.decoded.cache_clear()
    with pytest.raises(Unbalanced, match=error):
        bound("helper")
    code.decoded.cache_clear()
