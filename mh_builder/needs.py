"""What the project uses beside Python packages: programs and files, each asked to show that it works.

`python -m mh_builder.needs USE` prints the Debian packages that are missing for tests, firmware, the model, or packages
(of Python, for the tests). It needs nothing but Python, so that `make` can ask it first.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

C_LINE = '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n'
CPP_LINE = '#include <cstdio>\nint main() { return std::puts("") < 0; }\n'
UUID_LINE = "#include <uuid/uuid.h>\nuuid_t id;\n"

PYTHON_LINE = "#include <Python.h>\n#include <crypt.h>\n"

TESTS, FIRMWARE, MODEL, PACKAGES = "tests", "firmware", "model", "packages"

# From 3.13 on a package that one of the tests' depends on (virt-firmware: crypt_r) is compiled where it is installed.
_COMPILING = (PACKAGES,) if sys.version_info >= (3, 13) else ()

_SECONDS = 60
_COMPILE = ("-o", "/dev/null", "-")
_INCLUDE = sysconfig.get_path("include")


class Need(NamedTuple):
    """A program, or a file by its whole path; it works if the command with `arguments` ends well."""

    name: str
    packages: tuple[str, ...]
    """Debian's."""
    uses: tuple[str, ...] = (TESTS,)
    arguments: tuple[str, ...] = ("--version",)
    source: str = ""
    """For its standard input."""
    programs: tuple[str, ...] = ()
    """What it is called, where that is not `name`: the first that is there."""

    @property
    def path(self) -> str | None:
        """Where the program, or the file, is."""
        if self.name.startswith("/"):
            return self.name if Path(self.name).is_file() else None
        return next(filter(None, map(shutil.which, self.programs or (self.name,))), None)


NEEDS = (
    Need("as", ("binutils",)),
    Need("objdump", ("binutils",)),
    Need("readelf", ("binutils",)),
    Need("ld", ("binutils",)),
    Need("objcopy", ("binutils",)),
    Need("gdb", ("gdb",), arguments=("--batch", "-ex", "print 1")),
    Need("cc", ("gcc", "libc6-dev"), (TESTS, FIRMWARE, MODEL, *_COMPILING), ("-x", "c", *_COMPILE), C_LINE),
    Need("git", ("git",)),
    Need("nasm", ("nasm",), (TESTS, FIRMWARE), ("-v",)),
    Need("patch", ("patch",)),
    Need("xz", ("xz-utils",)),
    Need("qemu-system-x86_64", ("qemu-system-x86",), (TESTS, FIRMWARE)),
    Need("/usr/share/OVMF/OVMF_CODE_4M.fd", ("ovmf",), (TESTS, FIRMWARE)),
    Need("UEFIExtract", ("uefitool-cli",), arguments=(), programs=("UEFIExtract", "uefiextract")),
    Need("chromium", ("chromium",)),
    Need("spin", ("spin",), (TESTS, MODEL), ("-V",)),
    Need("make", ("make",), (FIRMWARE,)),
    Need("g++", ("g++",), (FIRMWARE,), ("-x", "c++", *_COMPILE), CPP_LINE),
    Need("iasl", ("acpica-tools",), (FIRMWARE,), ("-v",)),
    Need("Python.h", ("python3-dev",), _COMPILING, ("-x", "c", "-c", f"-I{_INCLUDE}", *_COMPILE), PYTHON_LINE, ("cc",)),
    Need("uuid/uuid.h", ("uuid-dev",), (FIRMWARE,), ("-x", "c", "-c", *_COMPILE), UUID_LINE, ("cc",)),
)


def trouble(need: Need) -> str:
    """Why it does not work, in one line; nothing if it does."""
    path = need.path
    if path is None:
        return "is not there"
    if path == need.name or not need.arguments:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - a row of the table
            [path, *need.arguments], input=need.source, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        return f"does not work: {lines[0] if lines else f'exit code {done.returncode}'}"
    return ""


def by_name(name: str) -> Need:
    """The row of that name."""
    return next(need for need in NEEDS if need.name == name)


def missing(use: str) -> list[str]:
    """Debian packages that would mend what does not work for that use."""
    wanted = [need.packages for need in NEEDS if use in need.uses and trouble(need)]
    return sorted({package for packages in wanted for package in packages})


if __name__ == "__main__":
    print(" ".join(missing(sys.argv[1])))
