"""The picture of the packages, and the rule that nothing imports in a circle."""

from __future__ import annotations

from types import ModuleType

import pytest

from emulator_tests.command.conftest import ROOT, docs_program

EMULATOR = ROOT / "mh_emulator"


@pytest.fixture(scope="module")
def rooms() -> ModuleType:
    return docs_program("rooms")


def test_picture_is_that_of_the_code(rooms: ModuleType) -> None:
    assert rooms.PICTURE.read_text() == rooms.draw(rooms.packages()), "run `python docs/rooms.py`"


def test_every_package_is_in_the_table(rooms: ModuleType) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert [name for name in rooms.packages() if f"\n| `{name}` |" not in page] == []


def test_nothing_imports_in_a_circle(rooms: ModuleType) -> None:
    places = rooms.packages()
    rooms.floors(rooms.graph(places))
    for name, folder in places.items():
        rooms.floors(rooms.graph(rooms.modules(folder), f"{name}."))


def test_modules_of_the_emulators_rooms_import_in_no_circle(rooms: ModuleType) -> None:
    inner = [folder.parent for folder in sorted(EMULATOR.glob("*/__init__.py"))]
    assert len(inner) >= 8
    for folder in inner:
        rooms.floors(rooms.graph(rooms.modules(folder), f"mh_emulator.{folder.name}."))


def test_circle_would_be_seen(rooms: ModuleType) -> None:
    with pytest.raises(ValueError, match="cycle"):
        rooms.floors({"a": frozenset({"b"}), "b": frozenset({"a"})})


def test_files_are_short() -> None:
    """One concern a file: none of the product's has more than 400 lines."""
    folders = [path.parent for path in ROOT.glob("*/__init__.py")] + [ROOT / "bench", ROOT / "payload"]
    files = [path for folder in folders for kind in ("py", "s", "inc", "h", "c") for path in folder.rglob(f"*.{kind}")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > 400} == {}
