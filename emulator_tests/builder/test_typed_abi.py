"""Type checkers see every name of abi.h, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

from emulator_tests.command.conftest import ROOT
from mh_abi import abi
from mh_abi.stub import STUB, stub

GOOD = """\
from mh_abi import abi
def fields(packet: abi.mh_packet, ring: abi.mh_ring) -> int:
    return packet.sequence + ring.fault.vector + abi.mh_op.MH_OP_EXPORT + abi.MH_PAGE_BYTES
"""

BAD = {
    "enum": ("def f(kind: abi.mh_no_such_enum) -> None: ...", "mh_no_such_enum"),
    "constant": ("x = abi.MH_NO_SUCH_CONSTANT", "MH_NO_SUCH_CONSTANT"),
    "enumerator": ("x = abi.mh_op.MH_OP_EXPORTS", "MH_OP_EXPORTS"),
    "field": ("x = abi.mh_packet(bytes(64)).sequenze", "sequenze"),
    "keyword": ("x = abi.mh_packet(sequenze=1)", "sequenze"),
    "type": ("x: str = abi.mh_packet(bytes(64)).sequence", "Incompatible types"),
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What mypy says of all bad lines at once, each in a file of its own."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "good.py").write_text(GOOD)
    for name, (line, _) in BAD.items():
        (folder / f"bad_{name}.py").write_text(f"from mh_abi import abi\n{line}\n")
    files = [str(path) for path in sorted(folder.glob("*.py"))]
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(folder / "cache")]
    out, err, _ = api.run([*config, "--strict", *files])
    assert not err
    return out


@pytest.mark.parametrize("name", BAD)
def test_wrong_name_is_refused(name: str, complaints: str) -> None:
    lines = [line for line in complaints.splitlines() if Path(line.split(":")[0]).name == f"bad_{name}.py"]
    assert any(BAD[name][1] in line and "error:" in line for line in lines), complaints


def test_right_names_are_not(complaints: str) -> None:
    assert "good.py" not in complaints


def test_stub_is_that_of_the_header() -> None:
    assert STUB.read_text() == stub(), "run `python -m mh_abi.stub`"


def test_stub_names_everything() -> None:
    text = STUB.read_text()
    for name in [*abi.constants(), *abi.enumerators()]:
        assert f"{name}" in text
    for name in [*abi.enums(), *abi.structures()]:
        assert f"class {name}(" in text
