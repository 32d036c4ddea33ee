"""The linked image under another MMU: unicorn's own (QEMU's), with its own page walk and no memory encryption."""

from __future__ import annotations

from typing import Any

import pytest
import unicorn
from unicorn import x86_const as x86

from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.helper import build_helper
from mh_builder.image.manifest import manifest
from mh_builder.image.model import Image
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import HELPER_VA, Options, Start
from mh_emulator.peer import hello_tag
from mh_emulator.secret import Secret

RAM_BYTES = 128 << 20
MSR_EFER, EFER = 0xC0000080, 0xD01
SECRET = Secret.fresh()
CR0, CR4 = 0x80010033, 0x620


@pytest.fixture(params=["alias-gpa", "regions", "isolated"])
def engine(request: pytest.FixtureRequest) -> tuple[Any, Image, int]:
    """(unicorn with the image loaded and started to its first HLT, the image, GPA of its ring)."""
    # QEMU's physical addresses have 40 bits here, so what may be moved is moved below.
    base = None if request.param == "alias-gpa" else 1 << 38
    image = build_helper(request.param, Options(base=base, ram_limit=RAM_BYTES))
    uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.ctl_set_cpu_model(x86.UC_CPU_X86_EPYC_ROME)
    uc.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
    uc.mem_map(0, RAM_BYTES)
    if base is not None:
        uc.mem_map(base, image.memory_bytes)
    descriptor = parse_image(image.data).descriptor
    uc.mem_write(image.space.base, image.data)
    uc.mem_write(image.space.base + descriptor.secret_offset, SECRET.table())
    uc.reg_write(x86.UC_X86_REG_CR4, CR4)
    uc.reg_write(x86.UC_X86_REG_MSR, (MSR_EFER, EFER))
    uc.reg_write(x86.UC_X86_REG_CR3, descriptor.cr3)
    uc.reg_write(x86.UC_X86_REG_CR0, CR0)
    uc.emu_start(descriptor.entry64, 0)
    return uc, image, image.space.base + descriptor.ring_offset


def is_hello(data: bytes) -> bool:
    """Whether this is one that a helper with the secret has made."""
    tag = hello_tag(SECRET, data[: abi.MH_HELLO_MAC_BYTES])
    return any(abi.mh_hello(data).nonce) and data[abi.MH_HELLO_MAC_BYTES :] == tag


def test_helper_starts_and_serves(engine: tuple[Any, Image, int]) -> None:
    uc, _, ring = engine
    header = abi.mh_ring(bytes(uc.mem_read(ring, len(abi.mh_ring))))
    assert (header.magic, header.state) == (abi.MH_RING_MAGIC, abi.mh_ring_state.MH_RING_READY)
    assert header.features == abi.MH_FEATURE_AESNI
    uc.mem_write(ring + abi.MH_RING_SUBMISSIONS, abi.mh_submission(op=abi.mh_op.MH_OP_HELLO.value, cookie=7).dumps())
    uc.mem_write(ring + abi.mh_ring.fields["tail"].offset, b"\1\0\0\0")
    uc.emu_start(uc.reg_read(x86.UC_X86_REG_RIP), 0)
    size = len(abi.mh_completion)
    completion = abi.mh_completion(bytes(uc.mem_read(ring + abi.MH_RING_COMPLETIONS, size)))
    assert (completion.status, completion.cookie) == (abi.mh_status.MH_DONE, 7)
    assert is_hello(bytes(uc.mem_read(ring + abi.MH_RING_PACKETS, len(abi.mh_hello))))


@pytest.mark.parametrize("section", [".header", ".text", ".rodata", ".tables", ".secret"])
def test_its_mmu_refuses_writes_too(engine: tuple[Any, Image, int], section: str) -> None:
    uc, image, _ = engine
    wipe = image.symbol("wipe_session").value
    stosb = image.data.index(b"\xf3\xaa", wipe - image.section(".text").va + image.section(".text").offset)
    uc.reg_write(x86.UC_X86_REG_RDI, image.section(section).va)
    uc.reg_write(x86.UC_X86_REG_RCX, 1)
    with pytest.raises(unicorn.UcError):
        uc.emu_start(image.section(".text").va + stosb - image.section(".text").offset, 0)
    assert uc.reg_read(x86.UC_X86_REG_CR2) == image.section(section).va


def test_32_bit_start_leads_to_service() -> None:
    """From protected mode without paging, every register poisoned, to a request that is served."""
    for scheme in ("alias-gpa", "alias-window", "alias-window-high"):
        image = build_helper(scheme, Options(ram_limit=RAM_BYTES))
        descriptor = parse_image(image.data).descriptor
        uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        uc.ctl_set_cpu_model(x86.UC_CPU_X86_EPYC_ROME)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
        uc.mem_map(0, RAM_BYTES)
        uc.mem_write(image.space.base, image.data)
        uc.mem_write(image.space.base + descriptor.secret_offset, SECRET.table())
        ring = image.space.base + descriptor.ring_offset
        hello = abi.mh_submission(op=abi.mh_op.MH_OP_HELLO.value, cookie=7)
        uc.mem_write(ring + abi.MH_RING_SUBMISSIONS, hello.dumps())
        uc.mem_write(ring + abi.mh_ring.fields["tail"].offset, b"\1\0\0\0")
        for name in ("EAX", "EBX", "ECX", "EDX", "ESI", "EBP", "ESP", "CR3"):
            uc.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0xDEAD0000)
        assert uc.reg_read(x86.UC_X86_REG_CR0) >> 31 == 0
        uc.emu_start(descriptor.entry32, 0)
        # Such an engine does not tell 64-bit registers; memory tells what has happened.
        assert uc.reg_read(x86.UC_X86_REG_CR0) >> 31 == 1
        header = abi.mh_ring(bytes(uc.mem_read(ring, len(abi.mh_ring))))
        assert (header.magic, header.state, header.head) == (abi.MH_RING_MAGIC, abi.mh_ring_state.MH_RING_READY, 1)
        done = abi.mh_completion(bytes(uc.mem_read(ring + abi.MH_RING_COMPLETIONS, len(abi.mh_completion))))
        assert (done.status, done.cookie) == (abi.mh_status.MH_DONE, 7)
        assert is_hello(bytes(uc.mem_read(ring + abi.MH_RING_PACKETS, len(abi.mh_hello))))


def test_only_images_below_4_gib_start_with_32_bits(scheme: str, images: dict[str, Image]) -> None:
    image = images[scheme]
    start = parse_image(image.data).descriptor.entry32
    assert (start == 0) == image.space.moves == (not SCHEMES[scheme].is_low)
    assert start < 1 << 32
    assert manifest(image)["entry32"] == (hex(start) if start else None)
    assert parse_image(build_helper(scheme, Options(start=Start.ES)).data).descriptor.entry32 == 0
    if start:
        assert start == image.space.base + image.symbol("entry32").value - HELPER_VA
