"""Scripts of changed files: one of each kind of change, for each kind of file."""

from __future__ import annotations

from emulator_tests.fuzz.script import FAMILIES, Script, step

_CHANGES = (
    (),
    (step("field", spot=0, offset=8, value="size"),),
    (step("raw", spot=3, offset=1, **{"byte 0": 0x7F}), step("seal", how="not at all")),
    (step("cut", spot=3, what="eight"), step("cut", spot=4, what="end")),
)
FILE_SEEDS = tuple(
    Script(stage, changes) for stage, family in FAMILIES.items() if family == "file" for changes in _CHANGES
)
"""Of all files."""
