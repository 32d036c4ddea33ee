"""The command, run in this process or in one of its own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from mh_cli.main import main

ROOT = Path(__file__).parents[2]

PROJECT = (
    "build.py", "mh_abi", "mh_builder", "mh_cli", "mh_compare", "mh_emulator", "mh_qemu", "ovmf_patches", "payload",
    "bench",
)  # fmt: skip
"""What `build.py` needs of the project's folder."""


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def docs_program(name: str) -> ModuleType:
    """A program in docs/ that makes something of the sources, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `build.py` with these arguments in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Outcome:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def copy_tree(source: Path, folder: Path) -> None:
    """Copy a file or folder of the project into `folder`, without what Python left there."""
    if source.is_dir():
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, folder)


def run_process(
    *arguments: str | Path, cwd: Path, root: Path = ROOT, timeout: int = 100, environment: dict[str, str] | None = None
) -> Outcome:
    """Run `build.py` of the tree at `root` as a process of its own."""
    done = subprocess.run(
        [sys.executable, root / "build.py", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)
