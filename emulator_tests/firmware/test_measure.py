"""Launch digests against sev-snp-measure's own command, and what is said where there is none."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sevsnpmeasure import guest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmm_types import VMMType
from sevsnpmeasure.vmsa import VMSA

from emulator_tests.command.conftest import Command
from emulator_tests.firmware.conftest import Find
from mh_builder.firmware import guids
from mh_builder.firmware.digests import Mode
from mh_builder.firmware.direct import DirectBoot
from mh_builder.firmware.measure import Vcpus, launch_digest
from mh_builder.firmware.metadata import read_metadata
from mh_builder.firmware.table import read_table
from mh_builder.helper import build_helper
from mh_builder.image.vmsa import write_vmsa
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options, Start

MODES = {Mode.SEV: SevMode.SEV, Mode.SEV_ES: SevMode.SEV_ES, Mode.SNP: SevMode.SEV_SNP}
NO_RESET = "no SEV-ES reset vector in the GUIDed table: vCPUs with encrypted registers cannot start"
AREAS_OFFSET, AREA = 16, struct.Struct("<III")


def theirs(path: Path, mode: str, vcpus: int, signature: int) -> str:
    script = Path(sys.executable).with_name("sev-snp-measure")
    command = [str(script), "--mode", mode, "--vcpus", str(vcpus), "--vcpu-sig", hex(signature), "--ovmf", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return str(done.stdout).strip()


@pytest.mark.parametrize(("mode", "vcpus", "part"), [("sev", 1, "milan"), ("seves", 3, "genoa"), ("snp", 2, "milan")])
def test_digest_equals_theirs(injected: Find, command: Command, mode: str, vcpus: int, part: str) -> None:
    path = injected("X64")
    outcome = command("ovmf", "measure", path, "--mode", mode, "--vcpus", vcpus, "--part", part, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["digests"] == {mode: theirs(path, mode, vcpus, PARTS[part].signature)}


@pytest.fixture(scope="module")
def measured(stock: Find, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock image that measures a kernel: as AmdSev's, its table has a place for hashes, its metadata an area."""
    data = bytearray(stock("X64").read_bytes())
    entry = read_table(bytes(data)).find(guids.KERNEL_HASHES)
    assert entry is not None
    struct.pack_into("<II", data, entry.start, 0x810C00, 0x400)
    first = data.index(b"ASEV") + AREAS_OFFSET
    count = struct.unpack_from("<I", data, first - 4)[0]
    AREA.pack_into(data, first + (count - 1) * AREA.size, 0x810000, 0x1000, 0x10)
    path = tmp_path_factory.mktemp("measured") / "measured.fd"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("vmm", VMMType)
@pytest.mark.parametrize(
    ("kernel", "initrd", "append"), [(b"", b"", ""), (b"kernel", b"", ""), (b"kernel" * 999, b"initrd", "ro quiet")]
)
def test_kernels_and_vmms_equal_theirs(
    measured: Path, tmp_path: Path, mode: Mode, vmm: VMMType, kernel: bytes, initrd: bytes, append: str
) -> None:
    for name, data in (("kernel", kernel), ("initrd", initrd)):
        (tmp_path / name).write_bytes(data)
    names = [str(tmp_path / name) if data else "" for name, data in (("kernel", kernel), ("initrd", initrd))]
    signature = CPU_SIGS["EPYC-Genoa"]
    expected = guest.calc_launch_digest(MODES[mode], 2, signature, str(measured), *names, append, 0x21, vmm_type=vmm)
    boot = DirectBoot(kernel, initrd, append) if kernel else None
    assert launch_digest(measured.read_bytes(), mode, Vcpus(2, signature, 0x21, vmm=vmm), boot) == expected


def test_every_cpu_model_by_command(measured: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"a kernel")
    digests = set()
    for model, signature in CPU_SIGS.items():
        options = ("--mode", "snp", "--vcpu-type", model, "--kernel", "vmlinuz", "--append", "console=ttyS0")
        outcome = command("ovmf", "measure", measured, *options)
        expected = guest.calc_launch_digest(
            SevMode.SEV_SNP, 1, signature, str(measured), str(tmp_path / "vmlinuz"), "", "console=ttyS0", 1
        )
        assert outcome == (0, f"snp    {expected.hex()}\n", "")
        digests.add(outcome.out)
    assert len(digests) == len(set(CPU_SIGS.values()))


def test_the_helpers_vcpu_is_measured_behind_the_firmwares(injected: Find, command: Command, tmp_path: Path) -> None:
    image = build_helper("regions", Options(start=Start.ES, c_bit=51))
    page = write_vmsa(image, image.space.base, 51)
    (tmp_path / "helper.vmsa").write_bytes(page)
    path = injected("X64")
    outcome = command("ovmf", "measure", path, "--mode", "seves", "--vmsa", "helper.vmsa")
    main = next(VMSA(SevMode.SEV_ES, 0x80B004, 0x00A00F11, 0).pages(1))
    assert outcome.out == f"seves  {hashlib.sha256(path.read_bytes() + main + page).hexdigest()}\n"


def test_another_cpu_model(injected: Find, command: Command) -> None:
    """QEMU's models have a stepping of their own."""
    path = injected("X64")
    outcome = command("ovmf", "measure", path, "--mode", "seves", "--cpu-signature", "0xa10f10")
    assert outcome.out.split()[1] == theirs(path, "seves", 1, 0xA10F10)


def without_areas(data: bytearray) -> None:
    struct.pack_into("<III", data, data.index(b"ASEV") + 4, 16, 1, 0)


def unknown_kind(data: bytearray) -> None:
    struct.pack_into("<I", data, data.index(b"ASEV") + AREAS_OFFSET + AREA.size + 8, 0x77)


def spoiled_reset(data: bytearray) -> None:
    at = data.index(guids.SEV_ES_RESET.bytes_le)
    data[at] ^= 0xFF


def odd_area(data: bytearray) -> None:
    struct.pack_into("<I", data, data.index(b"ASEV") + AREAS_OFFSET + 4, 0x8800)


REASONS: list[tuple[Callable[[bytearray], None], dict[str, str]]] = [
    (without_areas, {"snp": "no SEV metadata in the GUIDed table: it cannot be launched as an SNP guest"}),
    (unknown_kind, {"snp": "is of the unknown kind 0x77: it cannot be launched as an SNP guest"}),
    (odd_area, {"snp": "of 0x8800 bytes is not made of pages: it cannot be launched as an SNP guest"}),
    (spoiled_reset, {"seves": NO_RESET, "snp": NO_RESET}),
]


@pytest.mark.parametrize(("spoil", "reasons"), REASONS, ids=lambda value: getattr(value, "__name__", ""))
def test_no_digest_is_left_out_without_a_word(
    stock: Find, command: Command, tmp_path: Path, spoil: Callable[[bytearray], None], reasons: dict[str, str]
) -> None:
    data = bytearray(stock("X64").read_bytes())
    spoil(data)
    path = tmp_path / "spoiled.fd"
    path.write_bytes(data)
    outcome = command("ovmf", "measure", path)
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == [
        mode.value for mode in Mode if mode.value not in reasons
    ]
    lines = [line for line in outcome.err.splitlines() if "no " in line]
    assert len(lines) == len(reasons)
    for line, (mode, reason) in zip(lines, reasons.items(), strict=True):
        assert line.startswith(f"{path}: no {mode} digest: ")
        assert line.endswith(reason)
    found = json.loads(command("ovmf", "measure", path, "--json").out)
    assert set(found["digests"]) | set(found["reasons"]) == {"sev", "seves", "snp"}
    for mode, reason in reasons.items():
        refused = command("ovmf", "measure", path, "--mode", mode)
        assert (refused.code, refused.out) == (1, "")
        assert refused.err.startswith(f"build.py: error: {path}: ")
        assert refused.err.endswith(f"{reason}\n")
        assert refused.err.count("\n") == 1


def test_inject_says_the_same(stock: Find, command: Command, tmp_path: Path) -> None:
    data = bytearray(stock("X64").read_bytes())
    unknown_kind(data)
    (tmp_path / "in.fd").write_bytes(data)
    outcome = command("ovmf", "inject", "in.fd", "-o", "out.fd", "--scheme", "regions")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines() if " before " in line] == ["sev", "seves"]
    assert "out.fd: no snp digest: SEV metadata: area at" in outcome.err


def test_a_page_that_is_launched_twice_is_a_warning(stock: Find, command: Command, tmp_path: Path) -> None:
    data = bytearray(stock("X64").read_bytes())
    first = data.index(b"ASEV") + AREAS_OFFSET
    gpa, _, _ = AREA.unpack_from(data, first)
    struct.pack_into("<I", data, first + AREA.size, gpa + 0x1000)
    (tmp_path / "twice.fd").write_bytes(data)
    outcome = command("ovmf", "measure", "twice.fd")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 3
    assert "twice.fd: warning: SEV metadata: " in outcome.err
    assert "is launched twice" in outcome.err


def test_no_kernel_is_measured_where_the_firmware_does_not_look(stock: Find, command: Command, tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"a kernel")
    outcome = command("ovmf", "measure", stock("4M"), "--kernel", "vmlinuz")
    assert (outcome.code, outcome.out) == (1, "")
    assert [line.split(": ")[1] for line in outcome.err.splitlines()] == [
        f"no {mode} digest" for mode in ("sev", "seves", "snp")
    ]


def test_incoming_image_of_a_helper_alone(command: Command, tmp_path: Path) -> None:
    """A helper that is launched alone is all of its launch; another vCPU of it is another image."""
    options = ("--scheme", "isolated", "--start", "es", "--c-bit", 51, "--vcpus", 2)
    assert command("build", *options, "-o", ".").code == 0
    both = ("--vmsa", "isolated.vmsa", "--vmsa", "isolated.1.vmsa")
    outcome = command("ovmf", "measure", "isolated.bin", "--imi", "all", *both, "--json")
    found = json.loads(outcome.out)
    assert found["imd"] == found["digests"]["snp"]
    one = json.loads(command("ovmf", "measure", "isolated.bin", "--imi", "all", *both[:2], "--json").out)
    assert one["imd"] != found["imd"]
    assert one["digests"]["sev"] == found["digests"]["sev"]
    alone = command("ovmf", "measure", "isolated.bin")
    assert alone.err.splitlines() == [
        f"isolated.bin: no {mode} digest: no --vmsa: a helper alone starts from the VMSAs of its vCPUs"
        for mode in ("seves", "snp")
    ]
    assert (tmp_path / "isolated.bin").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--imi", "0x800000+0x800"), 2, "'0x800000+0x800' is not made of pages of 0x1000"),
        (("--imi", "somewhere"), 2, "'somewhere' is neither GPA+BYTES nor vmsa"),
        (("--imi", "0x1000+0x1000"), 1, "incoming image 0x1000 to 0x1fff: no page at 0x1000 is launched"),
        (("--imi", "all", "--mode", "sev"), 2, "--imi is for SNP, --mode is sev"),
        (("--append", "ro"), 2, "--append is of a kernel: give --kernel"),
        (("--vcpu-type", "EPYC-v4", "--cpu-signature", "1"), 2, "not allowed with argument"),
    ],
)
def test_bad_arguments(stock: Find, command: Command, options: tuple[str, ...], code: int, message: str) -> None:
    outcome = command("ovmf", "measure", stock("X64"), *options)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err.splitlines()[-1]


def test_table_without_the_entry_has_no_areas(stock: Find) -> None:
    flash = stock("X64").read_bytes()
    table = read_table(flash)
    assert read_metadata(flash, table)
    others = tuple(entry for entry in table.entries if entry.guid != guids.SEV_METADATA)
    assert read_metadata(flash, replace(table, entries=others)) == ()
