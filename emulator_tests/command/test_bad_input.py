"""Bad input: one line that names the thing and both numbers, a documented exit code, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emulator_tests.command.conftest import PROJECT, ROOT, Command, copy_tree, run_process
from mh_builder.schemes import SCHEMES


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text[:-1]


def test_missing_ram_file(command: Command) -> None:
    outcome = command("migrate", "--scheme", "regions", "--ram", "nowhere")
    assert outcome == (2, "", "build.py: error: RAM file nowhere: No such file or directory\n")


def test_empty_ram_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    outcome = command("migrate", "--scheme", "regions", "--ram", "empty")
    assert outcome == (2, "", "build.py: error: RAM file empty is empty: 0x0 bytes, at least 0x1 needed\n")


def test_folder_as_ram_file(command: Command, tmp_path: Path) -> None:
    outcome = command("migrate", "--scheme", "regions", "--ram", tmp_path)
    assert outcome == (2, "", f"build.py: error: RAM file {tmp_path} is no regular file\n")


@pytest.mark.parametrize(("scheme", "what"), [("alias-gpa", "GPA"), ("regions", "ram_addr"), ("isolated", "ram_addr")])
def test_ram_larger_than_the_layout(command: Command, tmp_path: Path, scheme: str, what: str) -> None:
    """A sparse file of a size that no layout maps is refused before a byte of it is read."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(600 << 30)
    outcome = command("migrate", "--scheme", scheme, "--ram", "huge")
    assert outcome.code == 1
    assert outcome.out == ""
    assert one_line(outcome.err).startswith(f"build.py: error: RAM ends at {what} 0x96")
    assert outcome.err.endswith(", the image maps addresses below 0x1000000000\n")


def test_ram_larger_than_the_emulator(command: Command, tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(5 << 30)
    outcome = command("migrate", "--scheme", "regions", "--ram", "big")
    message = "RAM file big has 0x140000000 bytes, the emulator takes 0x100000000"
    assert outcome == (2, "", f"build.py: error: {message}\n")


@pytest.mark.parametrize("verb", [["build"], ["migrate", "--ram", "x"]])
def test_c_bit_of_another_part(command: Command, tmp_path: Path, verb: list[str]) -> None:
    (tmp_path / "x").write_bytes(b"x")
    outcome = command(*verb, "--part", "genoa", "--c-bit", "47")
    message = "--c-bit 47 contradicts --part genoa, which has C-bit 51"
    assert outcome == (2, "", f"build.py: error: {message}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


def test_unknown_scheme_lists_the_known(command: Command) -> None:
    for verb in (["build"], ["migrate", "--ram", "x"]):
        outcome = command(*verb, "--scheme", "aliased")
        assert outcome.code == 2
        assert "aliased" in outcome.err
        assert all(scheme in outcome.err for scheme in SCHEMES)


LAYOUTS = {
    "overlapping-regions": (
        ["--scheme", "isolated", "--base", "0x1000000"],
        "isolated: region helper 0x1000000 to ",
        " overlaps region RAM 0x0 to 0x1000000000",
    ),
    "does-not-fit": (
        ["--scheme", "alias-gpa", "--home", "0x7fff0000"],
        "alias-gpa: helper of 0x",
        ", above 0x80000000",
    ),
    "below-two-mebibytes": (
        ["--scheme", "regions", "--home", "0xa0000"],
        "regions: home 0xa0000 is below ",
        "0x200000",
    ),
    "at-its-home": (
        ["--scheme", "regions", "--base", "64M"],
        "regions: region helper 0x4000000 to 0x",
        " overlaps region RAM 0x0 to 0x1000000000",
    ),
    "limit": (
        ["--scheme", "regions", "--ram-limit", "5T"],
        "regions: RAM limit 0x50000000000 ",
        "is not in 0x1 to 0x40000000000",
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_bad_layout(command: Command, tmp_path: Path, case: str) -> None:
    arguments, start, end = LAYOUTS[case]
    outcome = command("build", *arguments)
    assert outcome.code == 1
    line = one_line(outcome.err)
    assert line.startswith(f"build.py: error: {start}")
    assert line.endswith(end)
    assert not list(tmp_path.iterdir())


def test_base_beyond_the_part(command: Command, tmp_path: Path) -> None:
    """The C-bit of Milan lies above its physical addresses, so an image may be linked between the two."""
    (tmp_path / "ram").write_bytes(b"x")
    layout = ["--scheme", "isolated", "--base", "0x1000000000000", "--c-bit", "0x33"]
    outcome = command("migrate", *layout, "--ram", "ram")
    assert outcome.code == 1
    line = one_line(outcome.err)
    assert line.startswith("build.py: error: isolated: region helper 0x1000000000000 to 0x")
    assert line.endswith(" exceeds the 48 physical address bits of milan, 0x1000000000000")
    assert command("migrate", *layout, "--ram", "ram", "--part", "genoa").code == 0


@pytest.mark.parametrize("number", ["banana", "-1", "0x", "64X", "1.5G", ""])
def test_bad_number(command: Command, number: str) -> None:
    outcome = command("build", f"--home={number}")
    assert outcome.code == 2
    assert repr(number) in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("number", ["", "0x", "5o", "047"])
def test_bad_c_bit(command: Command, number: str) -> None:
    outcome = command("build", f"--c-bit={number}")
    assert outcome.code == 2
    assert f"{number!r} is not the number of a bit" in outcome.err


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb", r"a\nb"), ("x: error: y", "x: error: y"), ("\x1b[2J", r"\x1b[2J"), ("\udcff", r"\udcff")],
)
def test_odd_names_stay_one_line(command: Command, name: str, shown: str) -> None:
    outcome = command("migrate", "--ram", name)
    assert outcome == (2, "", f"build.py: error: RAM file {shown}: No such file or directory\n")


def test_name_that_stdout_cannot_say(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    outcome = run_process("build", "--scheme", "isolated", "-o", "\u00fc", cwd=tmp_path, environment=environment)
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith("\\xfc/isolated.bin\n")


@pytest.mark.parametrize(("stream", "code"), [("1", 2), ("2", 1)])
def test_closed_streams(tmp_path: Path, stream: str, code: int) -> None:
    """No traceback, no file in the place of a stream, no message in the place of results."""
    script = f'exec "$@" {stream}>&-'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", sys.executable, ROOT / "build.py", "build", "--ram-limit", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr == ("" if stream == "2" else "build.py: error: standard output is closed\n")


@pytest.mark.parametrize("verb", [["doctor"], ["build", "--scheme", "isolated", "--json"]])
@pytest.mark.parametrize("buffered", [True, False])
def test_full_stdout(tmp_path: Path, verb: list[str], *, buffered: bool) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, ROOT / "build.py", *verb],
            cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, env=environment, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "build.py: error: standard output: No space left on device\n")


def test_output_that_is_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    outcome = command("build", "--scheme", "regions", "-o", "file")
    assert outcome.code == 1
    assert one_line(outcome.err) == "build.py: error: file: Not a directory"
    assert (tmp_path / "file").read_text() == "mine"


def test_traceback_only_with_debug(tmp_path: Path) -> None:
    arguments = ("migrate", "--scheme", "regions", "--ram", "nowhere")
    outcome = run_process("--debug", *arguments, cwd=tmp_path)
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert "UsageError: RAM file nowhere" in outcome.err
    assert "Traceback" not in run_process(*arguments, cwd=tmp_path).err


def test_bad_source_gives_all_its_errors(tmp_path: Path) -> None:
    """In a copy of the tree, as somebody who edits the payload meets it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in PROJECT:
        copy_tree(ROOT / name, tree)
    source = tree / "payload" / "wipe.s"
    lines = source.read_text().splitlines()
    first, second = lines.index("    xor eax, eax"), lines.index("    rep stosb")
    lines[first], lines[second] = "    xor eax, nothing", "    mov al, 300"
    source.write_text("\n".join([*lines, ""]))
    outcome = run_process("build", cwd=tmp_path, root=tree)
    assert (outcome.code, outcome.out) == (1, "")
    assert [line.split(" ", 1)[0] for line in outcome.err.splitlines() if ": error: " in line] == [
        f"payload/wipe.s:{first + 1}:14:",
        f"payload/wipe.s:{second + 1}:5:",
    ]
    assert "    xor eax, nothing" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()


INTERRUPTED = """\
import os, signal, sys
def count(frame, event, what):
    global left
    left -= 1
    if not left:
        sys.setprofile(None)
        os.killpg(0, signal.SIGINT)
left = int(os.environ.pop("INTERRUPT_AFTER"))
del os.environ["PYTHONPATH"]
sys.setprofile(count)
"""
"""A sitecustomize by which Ctrl-C comes after so many calls and returns, whatever the time."""


@pytest.mark.parametrize("calls", [1, 30_000, 300_000, 2_000_000, 5_000_000])
def test_interrupt_leaves_no_partial_output(tmp_path: Path, calls: int) -> None:
    site, folder = tmp_path / "site", tmp_path / "folder"
    site.mkdir()
    folder.mkdir()
    (site / "sitecustomize.py").write_text(INTERRUPTED)
    environment = os.environ | {"PYTHONPATH": str(site), "INTERRUPT_AFTER": str(calls)}
    process = subprocess.run(
        [sys.executable, ROOT / "build.py"],
        cwd=folder, env=environment, capture_output=True, text=True, start_new_session=True, check=False, timeout=60,
    )  # fmt: skip
    # While the interpreter is starting, the signal ends it in its own ways.
    assert process.returncode in (130, -signal.SIGINT) or process.stderr.startswith("Fatal Python error: init_")
    assert process.returncode != 130 or process.stderr == "build.py: error: interrupted\n"
    assert not list(folder.iterdir())


@pytest.mark.parametrize("verb", [["doctor"], ["build", "--scheme", "isolated", "--json"]])
@pytest.mark.parametrize("buffered", [True, False])
def test_reader_that_goes_away(tmp_path: Path, verb: list[str], *, buffered: bool) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"}
    process = subprocess.Popen(
        [sys.executable, ROOT / "build.py", *verb],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert errors == ""
