"""What `help()` shows has to make sense on its own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from emulator_tests.command.conftest import ROOT

PACKAGES = sorted(path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "emulator_tests")
LEANING = re.compile(r"(The same|Of|Those|Such|Another) ")
"""How a docstring begins that leans on what stands before it."""


def leaning(text: str) -> list[str]:
    """Names of what has such a docstring."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [node.name for node in nodes if LEANING.match(ast.get_docstring(node) or "")]


@pytest.mark.parametrize("package", [*PACKAGES, ROOT / "bench"], ids=lambda path: path.name)
def test_docstrings_stand_alone(package: Path) -> None:
    found = {path.name: leaning(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}
    assert {name: names for name, names in found.items() if names} == {}


def test_one_that_leans_is_found() -> None:
    text = 'def f():\n    """The same on the target."""\n\ndef g():\n    """Export a page."""\n'
    assert leaning(text) == ["f"]
