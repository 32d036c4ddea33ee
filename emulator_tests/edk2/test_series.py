"""The patch series against the trees that they are for."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from emulator_tests.edk2.conftest import Edk2, series_of
from mh_abi import abi
from mh_builder.edk2.driver import HOME, driver_files
from mh_builder.edk2.series import Series, all_releases, all_series, contents_id
from mh_builder.helper import build_helper
from mh_builder.schemes.space import Options

SERIES = {series.release: series for series in all_series()}


def lines(series: Series) -> Iterator[bytes]:
    for patch in series.patches:
        _, _, body = patch.read_bytes().partition(b"\ndiff --git ")
        yield from body.split(b"\n")


def changed(series: Series, sign: bytes) -> list[bytes]:
    return [line for line in lines(series) if re.match(re.escape(sign) + rb"(?![+-]{2} )", line)]


def test_every_release_has_a_series() -> None:
    assert list(SERIES) == ["edk2-upstream", "edk2-stable202502", "edk2-stable202211"]


def test_every_stable_release_is_known() -> None:
    """Tried on a clone, by `python -m mh_builder.edk2.releases`, on 26 November 2026."""
    months = [f"{year}{month:02}" for year in range(2022, 2027) for month in (2, 5, 8, 11)]
    tags = [f"edk2-stable{month}" for month in months if "202211" <= month <= "202605"]
    tags += ["edk2-stable202408.01", "edk2-stable202508.01"]
    assert [one.release for one in all_releases()][::-1] == [*sorted(tags), "edk2-upstream"]


def test_what_is_kept_of_a_release_is_what_its_series_changes() -> None:
    for release in all_releases():
        made_for = SERIES[release.made_for]
        assert {change.path for change in release.changes} == {change.path for change in made_for.changes}
        assert all(change.before != change.after for change in release.changes)
        assert (release.changes == made_for.changes) == (release.release == release.made_for)


@pytest.mark.parametrize("series", SERIES.values(), ids=SERIES)
def test_series_add_the_same_lines_and_take_none_away(series: Series) -> None:
    assert changed(series, b"+") == changed(SERIES["edk2-stable202211"], b"+")
    assert changed(series, b"+")
    assert changed(series, b"-") == []


@pytest.mark.parametrize("series", SERIES.values(), ids=SERIES)
def test_series_keep_crlf_and_a_line_of_context(series: Series) -> None:
    context = 0
    for line in lines(series):
        if line[:1] in {b"+", b" "} and not line.startswith(b"+++ "):
            assert line.endswith(b"\r"), line
            context += line.startswith(b" ")
    assert context == 2 * len(series.changes)


def test_git_applies_the_series(release: str, copy: Edk2, program: Callable[[str], str]) -> None:
    root, series = copy(release), series_of(release)
    for change in series.changes:
        assert contents_id((root / change.path).read_bytes()) == change.before
    subprocess.run([program("git"), "init", "-q"], cwd=root, check=True)
    subprocess.run([program("git"), "apply", *series.patches], cwd=root, check=True)
    for change in series.changes:
        assert contents_id((root / change.path).read_bytes()) == change.after


def test_git_am_takes_the_series(release: str, copy: Edk2, program: Callable[[str], str]) -> None:
    root, series = copy(release), series_of(release)
    git = [program("git"), "-c", "core.autocrlf=false", "-c", "user.name=n", "-c", "user.email=e@example.invalid"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "release"]):
        subprocess.run([*git, *words], cwd=root, check=True)
    subprocess.run([*git, "am", "-q", "--keep-cr", *series.patches], cwd=root, check=True)
    assert contents_id((root / series.changes[0].path).read_bytes()) == series.changes[0].after


def test_the_driver_has_the_header_itself() -> None:
    files = driver_files(build_helper("regions", Options()).data)
    for header in abi.HEADERS:
        assert files[f"{HOME}/Include/{header.name}"] == header.read_bytes()
    # And nothing of it a second time.
    for path, contents in files.items():
        if path.endswith((".c", ".h")) and Path(path).name not in {header.name for header in abi.HEADERS}:
            assert not re.search(rb"#define\s+MH_|[0-9a-f]{8}-[0-9a-f]{4}-", contents), path


def test_no_placeholder_is_left() -> None:
    files = driver_files(build_helper("alias-gpa", Options(home=0x5000000)).data)
    texts = {path: data for path, data in files.items() if not path.endswith(("Image.bin", "Image.sha256"))}
    assert not [path for path, data in texts.items() if re.search(rb"@\w+@", data)]
    assert abi.MH_LOADER_FILE_GUID.encode() in files[f"{HOME}/MigrationHelperDxe.inf"]
    assert b"MIGRATION_HELPER_ENTRY=0x5000000," in files[f"{HOME}/MigrationHelper.dsc.inc"]


def test_the_inf_names_every_source() -> None:
    files = driver_files(build_helper("regions", Options()).data)
    sources = {Path(path).name for path in files if path.endswith((".c", ".h")) and "/Include/" not in path}
    listed = re.search(rb"\[Sources\]\n((?:  \S+\n)+)", files[f"{HOME}/MigrationHelperDxe.inf"])
    assert listed
    assert set(listed[1].decode().split()) == sources


COMPILE = (
    "-c", "-fshort-wchar", "-fno-builtin", "-fno-strict-aliasing", "-fno-common", "-fno-stack-protector",
    "-mno-red-zone", "-mno-mmx", "-mno-sse", "-Os", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror",
    "-DEFIAPI=__attribute__((ms_abi))", "-include", "PiDxe.h", "-o", "/dev/null",
)  # fmt: skip


def test_the_driver_compiles_with_the_releases_headers(
    release: str, edk2: Edk2, program: Callable[[str], str], tmp_path: Path
) -> None:
    for path, contents in driver_files(build_helper("regions", Options()).data).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(contents)
    include = edk2(release) / "MdePkg/Include"
    folders = [f"-I{folder}" for folder in (include, include / "X64", tmp_path / HOME / "Include")]
    for source in sorted((tmp_path / HOME).glob("*.c")):
        subprocess.run([program("cc"), *COMPILE, *folders, source], check=True)


RESET_VECTOR = """
%define ARCH_X64
%define SEV_FW_HASH_BLOCK_BASE 0x1000
%define SEV_FW_HASH_BLOCK_SIZE 0x400
%define SEV_LAUNCH_SECRET_BASE 0x2000
%define SEV_LAUNCH_SECRET_SIZE 0xc00
%define SEV_ES_AP_RESET_IP 0x80b004
EarlyBspInitReal16:
EarlyApInitReal16:
Main32:
TdxMetadataGuid:
OvmfSevMetadataGuid:
%include "{path}"
"""
"""What the rest of OVMF's reset vector gives to the file that holds the GUIDed table."""


def test_the_table_gains_our_entry_and_nothing_else(
    release: str, copy: Edk2, program: Callable[[str], str], tmp_path: Path
) -> None:
    def assembled(root: Path, *defines: str) -> bytes:
        (tmp_path / "vector.asm").write_text(RESET_VECTOR.format(path=root / path))
        words = ["-f", "bin", *defines, "-o", "vector.bin", "vector.asm"]
        subprocess.run([program("nasm"), *words], cwd=tmp_path, check=True)
        return (tmp_path / "vector.bin").read_bytes()

    root, series = copy(release), series_of(release)
    path = series.changes[0].path
    stock = assembled(root)
    subprocess.run([program("git"), "apply", *series.patches], cwd=root, check=True)
    assert assembled(root) == stock
    image = build_helper("regions", Options()).data
    text = driver_files(image)[f"{HOME}/MigrationHelper.dsc.inc"].decode()
    flags = re.search(r"NASMB_FLAGS = (.*)", text)
    assert flags
    ours = assembled(root, *flags[1].split())
    descriptor = abi.mh_descriptor(image)
    entry = struct.pack("<4I", descriptor.home, descriptor.memory_bytes, descriptor.ring_offset, descriptor.scheme)
    entries = table(ours)
    assert entries.pop(UUID(abi.MH_FIRMWARE_ENTRY_GUID)) == entry
    assert len(entries) == 5
    assert list(entries) == list(table(stock))
    assert {guid: len(data) for guid, data in entries.items()} == {
        guid: len(data) for guid, data in table(stock).items()
    }


def table(vector: bytes) -> dict[UUID, bytes]:
    """GUID -> data, by the rule of QEMU's hw/i386/pc_sysfw_ovmf.c."""
    end = len(vector) - 32 - 18
    start = end + 18 - struct.unpack_from("<H", vector, end)[0]
    found = {}
    while end - start >= 18:
        length = struct.unpack_from("<H", vector, end - 18)[0]
        found[UUID(bytes_le=vector[end - 16 : end])] = vector[end - length : end - 18]
        end -= length
    return found
