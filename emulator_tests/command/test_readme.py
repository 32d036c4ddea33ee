"""The README's commands run, and what it shows is what they print."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from emulator_tests.command.conftest import ROOT
from mh_abi.sources import PAYLOAD
from mh_builder.image.model import Image
from mh_builder.schemes import SCHEMES
from mh_cli.main import VERBS
from mh_cli.ovmf import VERBS as OVMF_VERBS

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


def test_every_verb_is_named() -> None:
    for verb in (*VERBS, *(f"ovmf {verb}" for verb in OVMF_VERBS)):
        assert f"`{verb}" in README or f"build.py {verb}" in README, verb


PAGES = sorted(path.relative_to(ROOT) for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_pages_name_what_exists(page: Path) -> None:
    text = (ROOT / page).read_text()
    tests = {path: path.read_text() for path in (ROOT / "emulator_tests").rglob("test_*.py")}
    for name in re.findall(r"`(test_\w+\.py)", text):
        assert name in {path.name for path in tests}, f"{page} names {name}"
    for name in re.findall(r"[`:](test_\w+)[`\"]", text):
        assert any(f"def {name}(" in source for source in tests.values()), f"{page} names {name}"
    for name in re.findall(r"`((?:mh_\w+|payload|emulator_tests|ovmf_patches|examples|docs)/[\w/]*(?:\.\w+)?)`", text):
        assert (ROOT / name).exists(), f"{page} names {name}"
    for name in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / page.parent / name).exists(), f"{page} links to {name}"
    headers = "".join(path.read_text() for path in PAYLOAD.glob("*.h"))
    for name in re.findall(r"\bMH_[A-Z0-9_]+\b", text):
        assert name in headers, f"{page} names {name}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=str)
def test_every_page_is_reached_from_the_readme(page: Path) -> None:
    assert str(page) in README
