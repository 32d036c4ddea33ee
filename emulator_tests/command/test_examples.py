"""The examples run, and the tests of a changed payload find what is wrong with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emulator_tests.command.conftest import ROOT
from mh_abi.sources import PAYLOAD
from mh_builder.image.model import Image

EXAMPLES = ROOT / "examples"


def python(*arguments: str | Path, cwd: Path) -> tuple[int, str, str]:
    """Run Python on this project, wherever else it is installed; return exit code and outputs."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_every_example_is_run() -> None:
    """One that is new needs a test here."""
    assert {path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"} == {
        "build_image.py", "migrate_guest.py", "ci_payload",
    }  # fmt: skip


def test_build_image(tmp_path: Path) -> None:
    code, out, err = python(EXAMPLES / "build_image.py", "blobs", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert sorted(map(Path, out.split())) == sorted(path.relative_to(tmp_path) for path in tmp_path.glob("blobs/*"))
    assert (tmp_path / "blobs" / "regions.bin").exists()


def test_migrate_guest(tmp_path: Path) -> None:
    code, out, err = python(EXAMPLES / "migrate_guest.py", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"\d+ pages moved, hosts see 0 of them, guest right: True\n", out)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The folder of somebody who changes the payload, and has not yet."""
    shutil.copytree(PAYLOAD, tmp_path / "payload")
    for path in (EXAMPLES / "ci_payload").glob("*.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def run_job(job: Path, *options: str | Path) -> tuple[int, str]:
    """Run its tests; the plugin is named, so that it is there also where the package is not installed."""
    plugins = ("-p", "mh_emulator.pytest_plugin", "-p", "no:cacheprovider")
    code, out, err = python("-m", "pytest", *plugins, "-q", "-rfE", *options, cwd=job)
    assert not err
    return code, out


def edit(path: Path, old: str, new: str) -> None:
    """Replace the first `old`, which must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_change_that_harms_nothing_passes(job: Path) -> None:
    edit(job / "payload" / "address.s", ".Lout_of_range:\n", ".Lout_of_range:\n    nop\n")
    code, out = run_job(job)
    assert (code, "4 passed" in out) == (0, True), out


@pytest.mark.parametrize(
    ("source", "old", "new", "found"),
    [
        ("address.s", "mov eax, MH_OUT_OF_RANGE", "mov eax, MH_DONE", "test_a_page_outside_of_ram_is_refused"),
        ("packet.s", "mov eax, MH_BAD_TAG", "mov eax, MH_DONE", "test_a_changed_page_is_refused"),
    ],
)
def test_a_change_that_harms_is_found(job: Path, source: str, old: str, new: str, found: str) -> None:
    edit(job / "payload" / source, old, new)
    code, out = run_job(job)
    assert (code, re.findall(r"^FAILED test_payload.py::(\w+)", out, re.MULTILINE)) == (1, [found]), out


def test_a_source_that_is_wrong_is_named(job: Path) -> None:
    edit(job / "payload" / "address.s", "mov eax, MH_OUT_OF_RANGE", "mov eax, nowhere")
    code, out = run_job(job)
    assert code == 1
    assert re.search(r"payload/address.s:\d+:14: error: ", out)


def test_another_abi_is_refused(job: Path) -> None:
    edit(job / "payload" / "abi.h", "MH_OUT_OF_RANGE", "MH_OUT_OF_HERE")
    code, out = run_job(job)
    assert code == 1
    assert "has another ABI" in out


def test_an_image_is_tested_as_it_is(job: Path, images: dict[str, Image]) -> None:
    (job / "helper.bin").write_bytes(images["isolated"].data)
    code, out = run_job(job, "--mh-payload", "helper.bin", "--mh-part", "genoa")
    assert (code, "4 passed" in out) == (0, True), out
    (job / "helper.bin").write_bytes(images["isolated"].data[:-1])
    code, out = run_job(job, "--mh-payload", "helper.bin")
    assert (code, "ImageError" in out) == (1, True), out


def test_the_plugin_imports_nothing_for_others(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\ndef test_it() -> None:\n    assert not {'mh_abi', 'mh_builder', 'unicorn'} & {*sys.modules}\n"
    )
    code, out = run_job(tmp_path)
    assert (code, "1 passed" in out) == (0, True), out
