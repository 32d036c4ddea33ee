"""The wheel, installed into an environment of its own, does what the repository does, from any folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from emulator_tests.command.conftest import PROJECT, ROOT, Outcome, copy_tree
from mh_abi.sources import PAYLOAD
from mh_cli import __version__

TOP = {"mh_abi", "mh_bench", "mh_builder", "mh_cli", "mh_compare", "mh_emulator", "mh_qemu", "ovmf_patches"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network: in CI setuptools must be new enough, elsewhere an older one is a skip."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    if f"setuptools=={metadata.version('setuptools')}" not in wanted:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{wanted[0]} is not installed")
        pytest.skip(f"{wanted[0]} is not installed: run `make test`")
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in (*PROJECT, "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        copy_tree(ROOT / name, tree)
    pip("wheel", "--no-build-isolation", "--wheel-dir", out, tree)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment that has this one's libraries, and not the project's own folder."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    # A path that a .pth file names is not searched for .pth files, of which one names the project's folder.
    (site / "libraries.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    pip("--python", folder / "bin" / "python", "install", wheel)
    return folder / "bin" / "sev-mh"


def pip(*arguments: str | Path) -> None:
    """Run pip on what lies here; it asks no index."""
    at = 1 + next(number for number, name in enumerate(arguments) if name in {"wheel", "install"})
    command = [sys.executable, "-m", "pip", *arguments[:at], "--quiet", "--no-deps", "--no-index", *arguments[at:]]
    subprocess.run(command, check=True, timeout=120)


def call(installed: Path, *arguments: str | Path, cwd: Path) -> Outcome:
    """Run the installed command, which must not find the project's folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [installed, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_names_that_others_may_have_are_not_taken(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == TOP
    sources = {
        path.relative_to(PAYLOAD).as_posix() for path in PAYLOAD.rglob("*") if path.suffix in {".s", ".h", ".inc"}
    }
    assert {name.removeprefix("mh_abi/payload/") for name in names if name.startswith("mh_abi/payload/")} >= sources
    assert {f"{name}/py.typed" for name in TOP - {"mh_bench", "mh_cli", "mh_compare", "ovmf_patches", "mh_qemu"}} <= {
        *names
    }


def test_every_module_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for top in TOP:
        folder = ROOT / "bench" if top == "mh_bench" else ROOT
        assert {path.relative_to(folder).as_posix() for path in (folder / top).rglob("*.py")} <= names


def test_build(installed: Path, tmp_path: Path) -> None:
    outcome = call(installed, "build", "--scheme", "regions", "-o", "out", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert (tmp_path / "out" / "regions.bin").read_bytes()


def test_migrate(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(b"a page and more" * 400)
    outcome = call(installed, "migrate", "--scheme", "isolated", "--ram", "ram", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert re.search(r"^isolated .* migrated$", outcome.out, re.MULTILINE)


def test_compare(installed: Path, tmp_path: Path) -> None:
    outcome = call(installed, "compare", "--scheme", "regions", "--column", "reserved", "--jobs", "1", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "regions" in outcome.out


def test_it_goes_by_its_name(installed: Path, tmp_path: Path) -> None:
    assert call(installed, "bench", "--help", cwd=tmp_path).out.startswith("usage: sev-mh bench ")
    assert call(installed, "--version", cwd=tmp_path).out == f"sev-mh {__version__}\n"
    outcome = call(installed, "migrate", "--ram", "nowhere", cwd=tmp_path)
    assert outcome == (2, "", "sev-mh: error: RAM file nowhere: No such file or directory\n")


def test_pytest_finds_the_fixtures(installed: Path, tmp_path: Path) -> None:
    done = call(installed.with_name("python"), "-m", "pytest", "--fixtures", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "mh_pair -- " in done.out
