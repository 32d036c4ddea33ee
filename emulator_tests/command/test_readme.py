"""The README's commands run, and what it shows is what they print."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from emulator_tests.command.conftest import ROOT
from mh_builder.image.model import Image
from mh_builder.schemes import SCHEMES

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def test_top_commands_are_targets() -> None:
    for line in BLOCKS[0].splitlines():
        command = shlex.split(line, comments=True)
        done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
        assert "python" in done.stdout


def test_usage_commands_run_in_order(tmp_path: Path) -> None:
    for line in BLOCKS[1].splitlines():
        command = line.replace(".venv/bin/python build.py", f"{shlex.quote(sys.executable)} {ROOT / 'build.py'}")
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
        )
        assert (done.returncode, done.stderr) == (0, ""), line
    assert (tmp_path / "blobs" / "regions.bin").exists()


def test_shown_table_is_what_the_images_are(images: dict[str, Image]) -> None:
    rows = {line.split()[0]: line.split() for line in README.splitlines() if line.split()[-1:] == ["migrated"]}
    assert list(rows) == list(SCHEMES)
    for scheme, row in rows.items():
        image = images[scheme]
        assert [row[1], int(row[2]), int(row[3])] == ["host", len(image.data), image.table_bytes]


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_pages_name_files_that_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    tests = {path.name for path in (ROOT / "emulator_tests").rglob("test_*.py")}
    for name in re.findall(r"`(test_\w+\.py)", text):
        assert name in tests, f"{page} names {name}"
    for name in re.findall(r"`((?:mh_\w+|payload|emulator_tests)/[\w/]+(?:\.\w+)?)`", text):
        assert (ROOT / name).exists(), f"{page} names {name}"
