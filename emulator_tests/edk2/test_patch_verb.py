"""`ovmf patch` on real trees: what it says, and that it does all or nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from emulator_tests.command.conftest import Command
from emulator_tests.edk2.conftest import MARK, Edk2, series_of
from mh_abi import abi
from mh_builder.edk2.driver import HOME
from mh_builder.edk2.series import contents_id
from mh_builder.image.model import Image


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def patch(command: Command, root: Path, *more: str) -> tuple[int, str, str]:
    return command("ovmf", "patch", "--edk2", root, "--scheme", "regions", *more)


def refused(command: Command, root: Path, *more: str) -> str:
    """The one line that it says, having written nothing."""
    before = contents(root)
    code, out, err = patch(command, root, *more)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert contents(root) == before
    return err.removeprefix("build.py: error: ").rstrip("\n")


def test_a_release_is_patched(command: Command, copy: Edk2, release: str, images: Mapping[str, Image]) -> None:
    root = copy(release)
    before = contents(root)
    code, out, err = patch(command, root)
    assert (code, err) == (0, "")
    assert out.startswith(f"{root}: {release}: the series applies\n")
    after = contents(root)
    assert set(out.splitlines()[1:]) == {str(root / path) for path in after if after[path] != before.get(path)}
    assert {contents_id(after[change.path]) for change in series_of(release).changes} == {
        change.after for change in series_of(release).changes
    }
    image = images["regions"].data
    assert after[f"{HOME}/Image.bin"] == image
    assert after[f"{HOME}/Image.sha256"] == hashlib.sha256(image).digest()


def test_a_patched_tree_gets_the_new_helper(command: Command, copy: Edk2, images: Mapping[str, Image]) -> None:
    root = copy("edk2-stable202211")
    patch(command, root)
    once = contents(root)
    code, out, _ = command("ovmf", "patch", "--edk2", root, "--scheme", "alias-gpa")
    assert code == 0
    assert out.startswith(f"{root}: edk2-stable202211: the series is applied already\n")
    twice = contents(root)
    assert twice[f"{HOME}/Image.bin"] == images["alias-gpa"].data
    assert {path for path in twice if twice[path] != once[path]} == {
        f"{HOME}/Image.bin", f"{HOME}/Image.sha256", f"{HOME}/MigrationHelper.dsc.inc",
    }  # fmt: skip


def test_check_writes_nothing(command: Command, copy: Edk2, release: str) -> None:
    root = copy(release)
    before = contents(root)
    code, out, _ = patch(command, root, "--check", "--json")
    assert code == 0
    assert contents(root) == before
    result = json.loads(out)
    assert result["schema"] == "sev-migration-helper/ovmf-patch/1"
    assert (result["release"], result["state"], result["written"]) == (release, "release", False)
    assert f"{HOME}/Image.bin" in result["files"]


def test_a_tree_with_changes_of_its_own(command: Command, copy: Edk2, release: str) -> None:
    root = copy(release)
    path = root / "OvmfPkg/OvmfPkgX64.dsc"
    path.write_bytes(b"# ours\r\n" + path.read_bytes())
    code, out, _ = patch(command, root)
    assert code == 0
    assert out.startswith(f"{root}: {release}: changed since the release, the series applies all the same\n")
    assert path.read_bytes().startswith(b"# ours\r\n")


def test_a_tree_whose_changes_are_in_the_way(command: Command, copy: Edk2) -> None:
    root = copy("edk2-stable202502")
    path = root / "OvmfPkg/OvmfPkgX64.fdf"
    path.write_bytes(path.read_bytes().replace(b"INF  OvmfPkg/PlatformDxe/Platform.inf", b"INF  Ours.inf"))
    assert refused(command, root) == (
        f"{root}: no series applies (edk2-upstream, edk2-stable202502, edk2-stable202211); edk2-stable202502, "
        "the nearest, says: patch failed: OvmfPkg/OvmfPkgX64.fdf:364"
    )


def test_a_tree_that_is_half_patched(command: Command, copy: Edk2) -> None:
    root = copy("edk2-stable202211")
    original = (root / "OvmfPkg/OvmfPkgX64.fdf").read_bytes()
    patch(command, root)
    (root / "OvmfPkg/OvmfPkgX64.fdf").write_bytes(original)
    assert refused(command, root) == (
        f"{root}: edk2-stable202211 is half applied: OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm is patched, "
        "OvmfPkg/OvmfPkgX64.fdf is not"
    )


def test_a_tree_that_has_lost_its_line_ends(command: Command, copy: Edk2) -> None:
    root = copy("edk2-stable202502")
    for path in root.rglob("*.*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    assert "has lost its CRLF line ends (core.autocrlf?)" in refused(command, root)


def test_what_is_no_tree(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refused(command, tmp_path / "empty") == f"{tmp_path}/empty: no edk2 tree: it has no {MARK}"
    assert refused(command, tmp_path / "nowhere") == f"{tmp_path}/nowhere: no edk2 tree: it has no {MARK}"


def test_an_edk2_tree_without_the_files(command: Command, copy: Edk2) -> None:
    root = copy("edk2-stable202211")
    shutil.rmtree(root / "OvmfPkg/ResetVector")
    assert "no series applies" in refused(command, root)


def test_a_strange_driver_folder_is_left_alone(command: Command, copy: Edk2) -> None:
    root = copy("edk2-stable202211")
    (root / HOME).mkdir()
    (root / HOME / "MigrationHelperDxe.inf").write_text("somebody's\n")
    assert refused(command, root) == f"{root / HOME}: is there, and is not the migration helper's"


def test_isolated_is_no_business_of_the_firmware(command: Command, copy: Edk2) -> None:
    root = copy("edk2-stable202211")
    code, _, err = command("ovmf", "patch", "--edk2", root, "--scheme", "isolated")
    assert code == 1
    assert err == (
        "build.py: error: isolated: the helper lies in memory that only the mirror maps; no firmware loads it\n"
    )


def test_a_tree_that_cannot_be_written_stays_as_it_was(command: Command, copy: Edk2) -> None:
    root = copy("edk2-stable202211")
    # Root may write anywhere; a folder in the place of a file is in the way of everybody.
    (root / HOME / "Image.bin").mkdir(parents=True)
    (root / HOME / "MigrationHelperDxe.inf").write_text(abi.MH_LOADER_FILE_GUID)
    assert refused(command, root) == f"{root / HOME / 'Image.bin'}: Is a directory"


def test_without_git_it_says_so(command: Command, copy: Edk2, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copy("edk2-stable202211")
    monkeypatch.setenv("PATH", "/nowhere")
    assert refused(command, root) == "git is not installed: it applies the patches"


def test_a_tree_inside_another_repository(command: Command, copy: Edk2) -> None:
    root = copy("edk2-stable202211")
    (root.parent / ".git").mkdir()
    (root.parent / ".git/HEAD").write_text("ref: refs/heads/main\n")
    assert patch(command, root)[0] == 0
    change = series_of("edk2-stable202211").changes[0]
    assert contents_id((root / change.path).read_bytes()) == change.after


def test_list_names_the_series_of_every_release(command: Command) -> None:
    outcome = command("ovmf", "patch", "--list")
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["edk2-upstream", "series", "edk2-upstream"]
    assert lines[1] == ["edk2-stable202605", "series", "edk2-upstream"]
    assert lines[-1] == ["edk2-stable202211", "series", "edk2-stable202211"]
    rows = json.loads(command("ovmf", "patch", "--list", "--json").out)["releases"]
    assert [row["release"] for row in rows] == [line[0] for line in lines]
    assert all(len(identity) == 40 for row in rows for identity in row["files"].values())


@pytest.mark.parametrize(("options", "missing"), [((), "edk2"), (("--edk2", "."), "scheme")])
def test_what_is_not_said(command: Command, options: tuple[str, ...], missing: str) -> None:
    outcome = command("ovmf", "patch", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"build.py: error: --{missing} is missing")
