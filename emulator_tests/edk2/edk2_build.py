"""Whole OVMF images from patched sources: slow, so not part of the suite but of `make test-firmware`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mh_builder.edk2.driver import FLAG

PLATFORM = "OvmfPkg/OvmfPkgX64.dsc"
FLAGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # Debian's Shell of 2022.11 wants the secure boot library; without a network its FDF still parses.
        "edk2-stable202211": ("SECURE_BOOT_ENABLE=TRUE", "NETWORK_ENABLE=FALSE"),
    }
)
"""What a release needs to build, or to build faster."""

_TOOLS = "BaseTools/Source/C"
_SCRIPT = 'cd "$WORKSPACE" && . ./edksetup.sh >/dev/null && exec build "${words[@]}"'


def build_tree(source: Path, tree: Path) -> None:
    """A copy of `source` at `tree` with its tools built, kept from one run to the next."""
    if not tree.is_dir():
        shutil.copytree(source, tree, symlinks=True, ignore=_of_another_place)
    if not (tree / _TOOLS / "bin/GenFw").is_file():
        _run(["make", "-C", str(tree / _TOOLS), f"-j{os.cpu_count()}"], tree.parent / f"{tree.name}-tools.log")


def _of_another_place(folder: str, names: list[str]) -> set[str]:
    """What a tree that was built before has of its own: objects, history, and where its tools were."""
    own = {"BuildEnv.sh"} if Path(folder).name == "Conf" else {"Build", ".git"}
    return own.intersection(names)


def build_ovmf(tree: Path, release: str) -> Path:
    """The folder of `OVMF_CODE.fd` and `OVMF_VARS.fd`, built with the helper."""
    defines = [word for flag in (FLAG, "FD_SIZE_4MB", *FLAGS.get(release, ())) for word in ("-D", flag)]
    tools = tool_chain(tree)
    words = ["-n", str(os.cpu_count()), "-a", "X64", "-t", tools, "-b", "DEBUG", "-p", PLATFORM, *defines]
    # What is sourced sees the arguments of who sources it.
    script = f"words=({' '.join(words)}); set --; {_SCRIPT}"
    environment = os.environ | {"WORKSPACE": str(tree), "PYTHON3_ENABLE": "TRUE", "PYTHON_COMMAND": sys.executable}
    _run(["bash", "-c", script], tree.parent / f"{tree.name}.log", environment)
    return tree / f"Build/OvmfX64/DEBUG_{tools}/FV"


def tool_chain(tree: Path) -> str:
    """What the tree calls gcc: GCC, or GCC5 where it knows that alone (202211)."""
    definitions = (tree / "BaseTools/Conf/tools_def.template").read_text(encoding="latin-1")
    return "GCC" if "*_GCC_*_*_FAMILY" in definitions else "GCC5"


def _run(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    with log.open("wb") as stream:
        result = subprocess.run(command, env=environment, stdout=stream, stderr=stream, check=False)
    if result.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise AssertionError(f"{command[0]} failed, see {log}:\n{tail}")
