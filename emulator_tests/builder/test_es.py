"""The SEV-ES start: the VMSA read by another project's structure, no #VC in the code, a migration from there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import capstone
import pytest
from sevsnpmeasure.vmsa import SevEsSaveArea

from emulator_tests.command.conftest import ROOT
from emulator_tests.helper.test_migrate import scenario
from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.asm import assemble_text
from mh_builder.helper import build_helper, helper_objects
from mh_builder.image.model import Image
from mh_builder.image.output import image_files
from mh_builder.image.vmsa import write_vmsa
from mh_builder.link import link
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import NO_LEAF, CpuidResult, Part
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import Options, Start
from mh_builder.symbols import LinkError
from mh_builder.vc import check_no_vc
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import Registers, SystemSegment, Table
from mh_emulator.host.migration import run
from mh_emulator.host.ring import HelperRefused

ENTRY = ".text\n.global entry64\nentry64:\n    hlt\n"


def es_image(scheme: str, c_bit: int | None = 51) -> Image:
    return build_helper(scheme, Options(c_bit=c_bit, start=Start.ES))


def as_registers(vmsa: bytes) -> Registers:
    """The state of a vCPU as another project reads the page."""
    area: Any = SevEsSaveArea.from_buffer_copy(vmsa)
    return Registers(
        rip=area.rip,
        cr3=area.cr3,
        rsp=area.rsp,
        **{name: getattr(area, name) for name in ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi")},
        **{f"r{number}": getattr(area, f"r{number}") for number in range(8, 16)},
        **{name: getattr(area, name).selector for name in ("cs", "ss", "ds", "es", "fs", "gs")},
        rflags=area.rflags,
        fs_base=area.fs.base,
        gs_base=area.gs.base,
        gdtr=Table(area.gdtr.base, area.gdtr.limit),
        idtr=Table(area.idtr.base, area.idtr.limit),
        tr=SystemSegment(area.tr.selector, area.tr.base, area.tr.limit, area.tr.attrib),
        ldtr=SystemSegment(area.ldtr.selector, area.ldtr.base, area.ldtr.limit, area.ldtr.attrib),
        cr0=area.cr0,
        cr2=area.cr2,
        cr4=area.cr4,
        efer=area.efer,
        mxcsr=area.mxcsr,
    )


def test_page_says_what_another_structure_reads(scheme: str) -> None:
    image = es_image(scheme)
    vmsa = write_vmsa(image, image.space.base, 51)
    assert len(vmsa) == PAGE_BYTES
    area: Any = SevEsSaveArea.from_buffer_copy(vmsa)
    descriptor = parse_image(image.data).descriptor
    # cr3 includes the C-bit where the build fixes it.
    assert (area.rip, area.rsp, area.cr3) == (descriptor.entry64, descriptor.stack64, descriptor.cr3)
    assert area.cr3 >> 51 & 1
    assert (area.cr0, area.cr4, area.efer) == (0x80010033, 0x660, 0x1D00)
    assert (area.rflags, area.dr6, area.dr7) == (2, 0xFFFF0FF0, 0x400)
    assert (area.g_pat, area.xcr0, area.mxcsr, area.x87_fcw) == (0x0007040600070406, 1, 0x1F80, 0x37F)
    assert (area.sev_features, area.cpl, area.vmpl) == (0, 0, 0)
    code, data = (0x08, 0xA9B, 0xFFFFFFFF, 0), (0x10, 0xC93, 0xFFFFFFFF, 0)
    assert segment(area.cs) == code
    for name in ("es", "ss", "ds", "fs", "gs"):
        assert segment(getattr(area, name)) == data
    assert segment(area.gdtr) == segment(area.idtr) == (0, 0, 0, 0)
    assert segment(area.ldtr) == (0, 0x82, 0xFFFF, 0)
    assert segment(area.tr) == (0, 0x8B, 0xFFFF, 0)


def test_nothing_is_set_that_the_other_structure_does_not_name() -> None:
    """Written by name through the other structure, the page is the same to the last byte."""
    image = es_image("regions")
    area: Any = SevEsSaveArea.from_buffer_copy(write_vmsa(image, image.space.base, 51))
    again: Any = SevEsSaveArea()
    names = ("es", "cs", "ss", "ds", "fs", "gs", "gdtr", "ldtr", "idtr", "tr", "efer", "cr4", "cr3", "cr0", "dr7",
             "dr6", "rflags", "rip", "rsp", "g_pat", "xcr0", "mxcsr", "x87_fcw")  # fmt: skip
    for name in names:
        setattr(again, name, getattr(area, name))
    assert bytes(again) == write_vmsa(image, image.space.base, 51)


def segment(part: Any) -> tuple[int, int, int, int]:
    return part.selector, part.attrib, part.limit, part.base


def test_vmsa_follows_the_base() -> None:
    image = es_image("isolated", None)
    base = image.space.base + 0x123000
    area: Any = SevEsSaveArea.from_buffer_copy(write_vmsa(image, base, 47))
    assert area.cr3 == parse_image(parse_image(image.data).relocated(base, 47)).descriptor.cr3


def test_vmsa_is_written_where_base_and_c_bit_are_known(scheme: str) -> None:
    assert image_files(es_image(scheme))[f"{scheme}.vmsa"] == write_vmsa(
        es_image(scheme), es_image(scheme).space.base, 51
    )
    assert f"{scheme}.vmsa" not in image_files(es_image(scheme, None))
    assert f"{scheme}.vmsa" not in image_files(build_helper(scheme, Options(c_bit=51)))


def test_command_line_writes_it(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "build.py"), "build", "--scheme", "regions", "--start", "es", "--c-bit", "51"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "regions.vmsa").read_bytes() == image_files(es_image("regions"))["regions.vmsa"]
    assert parse_image((tmp_path / "regions.bin").read_bytes()).descriptor.flags & abi.MH_FLAG_ES


# ---- it runs ----


@pytest.fixture
def leaves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """CPUID leaves that are asked for; none says anything."""
    asked: list[int] = []

    def cpuid(_part: Part, leaf: int, _subleaf: int, *, encrypted: bool) -> CpuidResult:
        assert isinstance(encrypted, bool)
        asked.append(leaf)
        return NO_LEAF

    monkeypatch.setattr(Part, "cpuid", cpuid)
    return asked


def test_machine_reads_the_page_as_the_other_structure(scheme: str) -> None:
    image = es_image(scheme)
    page = image_files(image)[f"{scheme}.vmsa"]
    loaded = vmsa.load(page)
    # The machine keeps SVME to the page, and attributes where a descriptor has them.
    expected = as_registers(page).with_changes(
        efer=loaded.efer, tr=loaded.tr._replace(attributes=0x8B00), ldtr=loaded.ldtr._replace(attributes=0x8200)
    )
    assert loaded == expected
    assert vmsa.make(loaded, fpu=True) == page, "KVM makes the page that the toolchain wrote"


def test_migrates_from_its_vmsa(scheme: str, leaves: list[int]) -> None:
    """Under SEV-ES, where nobody else can start it; neither helper nor guest asks for CPUID."""
    assert run(scenario(es_image(scheme))).good
    assert leaves == []


def test_host_start_asks_cpuid(images: dict[str, Image], leaves: list[int]) -> None:
    """The test above could fail: without CPUID's answer this build serves nobody."""
    with pytest.raises(HelperRefused, match="MH_NO_FEATURE"):
        run(scenario(images["regions"]))
    assert 1 in leaves


def test_features_come_from_measured_memory(images: dict[str, Image]) -> None:
    offset = len(abi.mh_descriptor)
    for image, features in ((es_image("regions"), abi.MH_FEATURE_AESNI), (images["regions"], 0)):
        assert abi.mh_params(image.data[offset : offset + len(abi.mh_params)]).features == features
        assert image.section(".header").private


# ---- no #VC ----

RAISING = ("cpuid", "rdmsr", "wrmsr", "in al, dx", "out 0x80, al", "rdtsc", "rdtscp", "rdpmc", "wbinvd", "invd",
           "monitor", "mwait", "vmmcall", "rep vmmcall", "mov rax, dr7", "mov dr7, rax")  # fmt: skip


@pytest.mark.parametrize("instruction", RAISING)
def test_seeded_instruction_is_named(instruction: str) -> None:
    text = f".text\nharmless:\n    nop\nguilty:\n    nop\n.Linside:\n    nop\n1:  {instruction}\n    ret\n"
    image = link([assemble_text(ENTRY + text, "seed.s")], SCHEMES["isolated"], Options(start=Start.ES))
    name = "mov dr" if "dr7" in instruction else instruction.split()[-1 if "vmmcall" in instruction else 0]
    with pytest.raises(LinkError) as caught:
        check_no_vc(image)
    assert caught.value.reasons == (f"seed.s: guilty+0x2: error: '{name}' raises #VC in an SEV-ES image",)


def test_bytes_that_cannot_be_decoded_are_no_way_around() -> None:
    image = link([assemble_text(f"{ENTRY}data: .byte 0x06\n", "seed.s")], SCHEMES["isolated"], Options(start=Start.ES))
    with pytest.raises(
        LinkError, match=r"^seed\.s: data\+0x0: error: bytes that are no instruction in an SEV-ES image"
    ):
        check_no_vc(image)


def test_helper_for_the_host_is_no_es_image(images: dict[str, Image]) -> None:
    with pytest.raises(LinkError, match=r"detect_features\+0x[0-9a-f]+: error: 'cpuid' raises #VC"):
        check_no_vc(images["regions"])


def test_build_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ES build of sources that use CPUID is refused."""
    objects = helper_objects()
    monkeypatch.setattr("mh_builder.helper.helper_objects", lambda *_: objects)
    with pytest.raises(LinkError, match="'cpuid' raises #VC"):
        es_image("regions")


def test_every_instruction_of_the_image_is_seen(scheme: str) -> None:
    """A count by plain linear disassembly: nothing of .text is passed over."""
    image = es_image(scheme)
    text = image.section(".text")
    code = image.data[text.offset : text.offset + text.size]
    decoded = list(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm_lite(code, text.va))
    assert sum(size for _, size, _, _ in decoded) == text.size
    names = {mnemonic for _, _, mnemonic, _ in decoded}
    assert {"hlt", "rdrand", "aesenc", "ltr"} <= names
    assert not names & {"cpuid", "rdmsr", "wrmsr", "vmmcall", "rdtsc"}
