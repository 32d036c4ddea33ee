"""Runs the README's commands on bare Debian machines: `make bare`, as root on Debian.

A machine is what debootstrap's minbase makes, with make, python3 and git. It is made once, below .cache/bare, and
copied for every run; the run sees the files that git tracks, the network, and how pip and apt take packages here.
The last run's figures go into docs/contributing.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".cache" / "bare"
PAGE = ROOT / "docs" / "contributing.md"
START, END = "<!-- bare -->", "<!-- /bare -->"

SUITES = ("bookworm", "trixie")
COMMANDS = ("make", "make test")
PACKAGES = "make,python3,git,ca-certificates"
ARCHIVE_SETTINGS = ("Acquire::Check-Valid-Until", "Acquire::Retries", "Acquire::http", "Acquire::https")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Run(NamedTuple):
    """What one command did on one machine."""

    suite: str
    command: str
    code: int
    seconds: float
    output: str


def mirror() -> str:
    """Debian's archive, as this machine's apt has it."""
    shape = ["--format", "$(ORIGIN) $(SITE)", "Created-By: Packages"]
    for line in _output("apt-get", "indextargets", *shape).splitlines():
        origin, site = line.split(" ", 1)
        if origin == "Debian":
            return site
    raise SystemExit("bare: this machine's apt knows no archive of Debian's")


def pip_settings() -> dict[str, str]:
    """What this machine's pip is told, as variables of the environment."""
    found = {}
    for line in _output(sys.executable, "-m", "pip", "config", "list").splitlines():
        match = re.fullmatch(r"(?:global|:env:)\.([a-z-]+)='(.*)'", line)
        if match:
            found["PIP_" + match[1].upper().replace("-", "_")] = match[2]
    return found


def make_machine(suite: str) -> Path:
    """The folder of a machine of that suite, made if it is not there."""
    folder = PLACE / suite
    if not folder.is_dir():
        PLACE.mkdir(parents=True, exist_ok=True)
        half = PLACE / f"{suite}.half"
        shutil.rmtree(half, ignore_errors=True)
        _output("debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(half), mirror())
        half.rename(folder)
    return folder


@contextmanager
def copied(machine: Path) -> Iterator[Path]:
    """A copy of the machine with this checkout's files in /project; it goes at the end."""
    root = PLACE / "run"
    with ExitStack() as after:
        shutil.rmtree(root, ignore_errors=True)
        _output("cp", "-a", "--reflink=auto", str(machine), str(root))
        after.callback(shutil.rmtree, root)
        for place in ("/dev", "/dev/pts", "/proc"):
            _mount(after, root, Path(place))
        for setting in pip_settings().values():
            for text in setting.split():
                index = text.removeprefix("file://")
                # The files of an index lie beside its pages.
                source = Path(text) if index == text else Path(index).parent
                if source.is_absolute() and source.is_dir():
                    _mount(after, root, source)
                elif source.is_absolute() and source.is_file():
                    _copy(root, source)
        for file in (Path("/etc/resolv.conf"), CERTIFICATES):
            if file.exists():
                _copy(root, file)
        (root / "etc/apt/apt.conf.d/90archive").write_text(_output("apt-config", "dump", *ARCHIVE_SETTINGS))
        for name in _output("git", "-C", str(ROOT), "ls-files", "-z").split("\0"):
            if name:
                (root / "project" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, root / "project" / name)
        yield root


def run(suite: str, root: Path, command: str) -> Run:
    """Run the command there, as CI does."""
    kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    environment = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "CI": "true"} | kept | pip_settings()
    if CERTIFICATES.exists():
        environment |= {"SSL_CERT_FILE": str(CERTIFICATES)}
    began = time.monotonic()
    done = subprocess.run(  # noqa: S603
        ["/usr/sbin/chroot", str(root), "sh", "-c", f"cd /project && {command}"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
    )  # fmt: skip
    (PLACE / f"{suite}.{command.replace(' ', '-')}.log").write_text(done.stdout)
    return Run(suite, command, done.returncode, time.monotonic() - began, done.stdout)


def page(text: str, runs: list[Run], today: str) -> str:
    """The page with these figures between its marks."""
    rows = [f"| {one.suite} | `{one.command}` | {one.seconds:.0f} s | {_last(one.output)} |" for one in runs]
    head = [f"Last run: {today}.", "", "| Debian | command | took | last line |", "|---|---|---|---|"]
    table = "\n".join([START, *head, *rows, END])
    return re.sub(f"{START}.*{END}", lambda _: table, text, flags=re.DOTALL)


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1].replace("|", "/") if lines else ""


def _mount(after: ExitStack, root: Path, place: Path) -> None:
    target = root / place.relative_to("/")
    target.mkdir(parents=True, exist_ok=True)
    _output("mount", "--bind", str(place), str(target))
    after.callback(_output, "umount", "--lazy", str(target))


def _copy(root: Path, file: Path) -> None:
    target = root / file.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, target)


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603


def main(suites: tuple[str, ...]) -> int:
    """Run all commands on all machines; 1 where one failed."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit("bare: this needs root on Debian")
    runs = []
    for suite in suites:
        with copied(make_machine(suite)) as root:
            for command in COMMANDS:
                runs.append(run(suite, root, command))
                print(f"{suite}: {command}: exit code {runs[-1].code} after {runs[-1].seconds:.0f} s", flush=True)
                print("\n".join(runs[-1].output.splitlines()[-5:]), flush=True)
                if runs[-1].code:
                    return 1
    if set(suites) == set(SUITES):
        PAGE.write_text(page(PAGE.read_text(), runs, f"{datetime.now(UTC):%Y-%m-%d}"))
    return 0


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or SUITES))
