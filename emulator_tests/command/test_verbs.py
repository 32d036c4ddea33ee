"""What each verb prints and writes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from emulator_tests.command.conftest import PROJECT, ROOT, Command, copy_tree, run_process
from mh_builder.schemes import SCHEMES


def files_of_all_schemes() -> list[str]:
    """The names of what is written by default, in their order."""
    common = [f"{scheme}.{kind}" for scheme in SCHEMES for kind in ("bin", "elf", "map", "json")]
    return sorted([*common, *(f"{scheme}.reset" for scheme, record in SCHEMES.items() if record.is_low)])


def test_main_job(tmp_path: Path) -> None:
    """One row a scheme, every one migrated; all files of each."""
    outcome = run_process(cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    rows = {line.split()[0]: line.split() for line in outcome.out.splitlines() if line.split()[0] in SCHEMES}
    assert set(rows) == set(SCHEMES)
    for row in rows.values():
        assert row[-3:] == ["yes", "yes", "migrated"]
        assert row[1] == "host"
        assert int(row[2]) > int(row[3]) > 0
        assert int(row[4]) > 1024
        assert 0 < float(row[5]) < 1
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == files_of_all_schemes()
    assert "\x1b" not in outcome.out


def test_migrate_json(command: Command, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "ram").write_bytes(bytes(range(256)) * 16 * 40)
    outcome = command("migrate", "--scheme", scheme, "--ram", "ram", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    assert report["scheme"] == scheme
    assert report["equal"] is True
    assert report["guest_ok"] is True
    assert report["pages"] > 40
    assert report["good"] is True
    assert report["schema"] == "sev-migration-helper/migration/1"


def test_migrate_an_es_guest(command: Command, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(range(256)) * 16 * 10)
    outcome = command("migrate", "--scheme", "regions", "--ram", "ram", "--start", "es", "--part", "rome", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    assert (report["start"], report["part"], report["shared_pages"], report["good"]) == ("es", "rome", 1, True)


def test_migrate_all_schemes(command: Command, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(b"x")
    outcome = command("migrate", "--ram", "ram", "--json", "--part", "rome")
    reports = json.loads(outcome.out)["migrations"]
    assert [report["scheme"] for report in reports] == list(SCHEMES)
    assert {report["part"] for report in reports} == {"rome"}
    table = command("migrate", "--ram", "ram").out
    assert table.count("migrated") == len(SCHEMES)
    assert not list(tmp_path.glob("out*"))


def test_build_writes_what_it_names(command: Command, tmp_path: Path) -> None:
    outcome = command("build", "--scheme", "isolated", "-o", "somewhere/else")
    paths = [Path(line) for line in outcome.out.splitlines()]
    assert [path.name for path in paths] == ["isolated.bin", "isolated.elf", "isolated.map", "isolated.json"]
    assert all((tmp_path / path).stat().st_size for path in paths)
    assert (tmp_path / paths[0]).stat().st_mode & 0o777 == 0o644


def test_build_options_reach_the_image(command: Command, tmp_path: Path) -> None:
    layout = ["--home", "96M", "--base", "0x60000000000", "--ram-limit", "1T", "--c-bit=47"]
    command("build", "--scheme", "regions", *layout)
    manifest = json.loads((tmp_path / "out" / "regions.json").read_text())
    assert manifest["main_gpa"] == "0x6000000"
    assert manifest["mirror_gpa"] == "0x60000000000"
    assert manifest["ram_limit"] == "0x10000000000"
    assert manifest["c_bit"] == 47


def test_part_decides_the_high_window(command: Command) -> None:
    for part, window in (("rome", 1 << 42), ("genoa", 1 << 45)):
        outcome = command("build", "--scheme", "alias-window-high", "--part", part, "--json")
        assert json.loads(outcome.out)["images"][0]["window"] == hex(window)


def test_rebuild_replaces_and_keeps_other_files(command: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    command("build", "--scheme", "regions")
    first = (tmp_path / "out" / "regions.bin").read_bytes()
    command("build", "--scheme", "regions")
    assert (tmp_path / "out" / "regions.bin").read_bytes() == first
    assert (tmp_path / "out" / "mine").read_text() == "kept"
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_two_folders_give_the_same_bytes(tmp_path: Path) -> None:
    """Another path, another working directory, another hash seed."""
    results = []
    for name in ("here", "a much longer folder name"):
        tree = tmp_path / name
        tree.mkdir()
        for part in PROJECT:
            copy_tree(ROOT / part, tree)
        outcome = run_process("build", "-o", tree / "out", cwd=tree, root=tree)
        assert outcome.code == 0, outcome.err
        results.append({path.name: path.read_bytes() for path in (tree / "out").iterdir()})
    assert results[0] == results[1]
    assert sorted(results[0]) == files_of_all_schemes()
    assert not any(str(tmp_path).encode() in data for data in results[0].values())


@pytest.mark.parametrize(
    ("arguments", "schema"),
    [
        (["doctor"], "doctor/1"),
        (["build", "--scheme", "regions"], "build/1"),
        (["migrate", "--ram", "ram"], "migrations/1"),
        (["migrate", "--ram", "ram", "--scheme", "isolated"], "migration/1"),
    ],
    ids=["doctor", "build", "migrate-all", "migrate"],
)
def test_json_names_its_schema(command: Command, tmp_path: Path, arguments: list[str], schema: str) -> None:
    (tmp_path / "ram").write_bytes(b"x")
    assert json.loads(command(*arguments, "--json").out)["schema"] == f"sev-migration-helper/{schema}"


def test_doctor(command: Command) -> None:
    outcome = command("doctor", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["packages"]["unicorn"]
    assert "keystone-engine" in command("doctor").out


def test_help_names_verbs_and_exit_codes(command: Command) -> None:
    outcome = command("--help")
    assert outcome.code == 0
    for word in ("build", "migrate", "bench", "doctor", "exit codes:", "130"):
        assert word in outcome.out


@pytest.mark.parametrize("forced", ["1", ""])
def test_table_is_never_cut(tmp_path: Path, forced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", forced)
    monkeypatch.setenv("COLUMNS", "40")
    (tmp_path / "ram").write_bytes(b"x")
    outcome = run_process("migrate", "--scheme", "alias-window-high", "--ram", "ram", cwd=tmp_path)
    assert "\u2026" not in outcome.out
    assert "alias-window-high" in outcome.out
    assert ("\x1b" in outcome.out) == bool(forced)


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_no_colour_off_a_terminal(tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "xterm-256color" if variable == "TERM" else "1")
    (tmp_path / "ram").write_bytes(b"x")
    outcome = run_process("migrate", "--scheme", "regions", "--ram", "ram", cwd=tmp_path)
    assert "\x1b" not in outcome.out
    assert "migrated" in outcome.out


def test_build_without_packages_says_what_to_do(tmp_path: Path) -> None:
    python = shutil.which("python3")
    assert python is not None
    command = [python, "-S", "-E", "-s", str(ROOT / "build.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "is missing: run `make`" in done.stderr
    assert done.stderr.count("\n") == 1


def test_largest_page_is_asked_for_or_the_parts(command: Command) -> None:
    for arguments, largest in (((), 1 << 30), (("--largest-page", "2M"), 2 << 20), (("--largest-page", "1G"), 1 << 30)):
        outcome = command("build", "--scheme", "isolated", "--json", *arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert json.loads(outcome.out)["images"][0]["largest_page"] == largest
