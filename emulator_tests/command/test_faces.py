"""What the packages offer to programs: the names are there, and cost nothing before they are used."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import mh_builder
import mh_emulator
from emulator_tests.command.conftest import ROOT
from emulator_tests.command.test_imports import HEAVY

FACES = {"mh_builder": mh_builder.__all__, "mh_emulator": mh_emulator.__all__}


@pytest.mark.parametrize(("face", "name"), [(face, name) for face, names in FACES.items() for name in names])
def test_every_name_is_what_it_says(face: str, name: str) -> None:
    value = getattr(importlib.import_module(face), name)
    assert value.__name__ in {name, "run"} if callable(value) else len(value) > 3


def test_no_other_name() -> None:
    for face in FACES:
        with pytest.raises(AttributeError, match=f"module '{face}' has no attribute 'nothing'"):
            _ = importlib.import_module(face).nothing


@pytest.mark.parametrize("module", [*FACES, "mh_emulator.pytest_plugin"])
def test_importing_them_imports_nothing_else(module: str) -> None:
    probe = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    modules = set(json.loads(done.stdout))
    # pytest itself has rich where it is there.
    assert not modules & (HEAVY - {"rich"})
    assert {name for name in modules if name.startswith("mh_")} == {module, module.split(".", maxsplit=1)[0]}
