"""What a test calls of the project, itself or by its own helpers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from emulator_tests.vacuous.spoil import Function

_ROOT = Path(__file__).parents[2]
_TESTS = str(_ROOT / "emulator_tests")
_UNNAMED = "<"


class Calls:
    """Recorded into a file, since the process that runs the test has an end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[tuple[str, str], None] = {}

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """While a test runs, of which only its own calls count, not those of its fixtures."""
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._path.write_text(json.dumps(list(self._found)))

    def _event(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or frame.f_back is None:
            return
        code, caller = frame.f_code, frame.f_back.f_code
        if not caller.co_filename.startswith(_TESTS) or code.co_filename.startswith(_TESTS):
            return
        if not code.co_filename.startswith(str(_ROOT)) or ".venv" in code.co_filename:
            return
        if _UNNAMED not in code.co_qualname and not code.co_qualname.endswith("__"):
            module = ".".join(Path(code.co_filename).relative_to(_ROOT).with_suffix("").parts)
            self._found[module.removesuffix(".__init__"), code.co_qualname] = None


def read(path: Path) -> list[Function]:
    """In the order of their first call."""
    return [Function(*pair) for pair in json.loads(path.read_text())] if path.exists() else []
