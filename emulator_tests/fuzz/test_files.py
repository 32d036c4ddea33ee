"""Changed files: what a reader may not do with one is found, and the command has one line and an exit code for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emulator_tests.fuzz import corpus, file_player
from emulator_tests.fuzz.file_player import FilePlayer, FileStage
from emulator_tests.fuzz.runner import Runner
from emulator_tests.fuzz.script import FAMILIES, Script, loads, step
from emulator_tests.fuzz.seeds import SEEDS
from emulator_tests.fuzz.stage import Violation
from emulator_tests.fuzz.subjects import Subject, subject
from mh_abi.errors import MigrationHelperError
from mh_cli.main import main

READ_BY = {"flash": ("table", "check"), "wrapped": ("table", "igvm"), "igvm": ("table", "igvm")}
"""Verbs below `ovmf`."""


def played(read: Callable[[bytes], object], *steps: str) -> None:
    stage = FileStage("one", Subject(b"12345678", [(0, 8)], lambda data: [lambda: read(data)]))
    FilePlayer(stage).play(Script("igvm", tuple(step(kind) for kind in steps)))


def refuses(text: str) -> Callable[[bytes], object]:
    def read(_: bytes) -> object:
        raise MigrationHelperError(text)

    return read


def for_ever(_: bytes) -> object:
    while True:
        try:
            list(range(1000))
        except Exception:  # noqa: BLE001, S112 - whatever it is, it goes on
            continue


def test_a_reader_that_refuses_in_one_line() -> None:
    played(refuses("one"))


@pytest.mark.parametrize("text", ["", "one\ntwo"])
def test_a_reader_that_refuses_in_another_way(text: str) -> None:
    with pytest.raises(Violation, match=r"which is not one line$"):
        played(refuses(text))


def test_a_reader_that_has_no_words() -> None:
    with pytest.raises(ZeroDivisionError):
        played(lambda data: 1 // (len(data) - 8))


def test_a_reader_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_player, "SECONDS", 0.05)
    with pytest.raises(Violation, match=r"^is not done within 0\.05 seconds of CPU time$"):
        played(for_ever)


def test_what_the_changes_do() -> None:
    def changed(*steps: tuple[str, dict[str, int | str]]) -> bytes:
        player = FilePlayer(
            FileStage("one", Subject(b"12345678", [(0, 4), (4, 4)], lambda _: [], lambda data: data + b"!"))
        )
        player.change(Script("igvm", tuple(step(kind, **values) for kind, values in steps)))
        return player.file()

    assert changed() == b"12345678!"
    assert changed(("seal", {"how": "not at all"})) == b"12345678"
    assert changed(("field", {"spot": 1, "offset": 1, "width": 1, "value": "+1"})) == b"12345778!"
    assert changed(("field", {"width": 2, "value": "size"})) == b"\x08\x00345678!"
    assert changed(("raw", {"spot": 1, "width": 2, "byte 0": 65, "byte 1": 66})) == b"1234AB78!"
    assert changed(("copy", {"from": 1, "spot": 0})) == b"56785678!"
    assert changed(("cut", {"spot": 1, "what": "end"})) == b"1234!"
    assert changed(("cut", {"spot": 1, "what": "start"})) == b"5678!"
    assert changed(("grow", {"spot": 1, "where": "spot", "bits": 1, "fill": 46})) == b"1234..5678!"


def of_files() -> list[Script]:
    scripts = [*SEEDS, *map(loads, corpus.read(corpus.FOLDER))]
    return [script for script in scripts if script.stage in READ_BY]


def test_the_command_has_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, codes = tmp_path / "file", set()
    for script in of_files():
        player = FilePlayer(FileStage(script.stage, subject(script.stage)))
        player.change(script)
        try:
            path.write_bytes(player.file())
        except MigrationHelperError:
            continue
        for verb in READ_BY[script.stage]:
            code = main(["ovmf", verb, str(path)])
            said = capsys.readouterr()
            codes.add(code)
            assert code in (0, 1), script
            assert len(said.err.splitlines()) <= 1, said.err
            assert code or not said.err
            assert not code or said.err or said.out
    assert codes == {0, 1}


def test_each_kind_of_file_has_lines_of_its_own() -> None:
    runner = Runner()
    stages = [stage for stage, family in FAMILIES.items() if family == "file"]
    reached = [runner.run(Script(stage)).reached for stage in stages]
    assert all(reached)
    assert len(set().union(*reached)) == sum(map(len, reached))
