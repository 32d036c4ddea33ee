"""Scripts of changed files: one of each kind of change, for each kind of file."""

from __future__ import annotations

from emulator_tests.fuzz.script import FAMILIES, Script, step

_CHANGES = (
    (),
    (step("field", spot=0, offset=8, value="size"),),
    (step("field", spot=1, offset=4, value=0), step("field", spot=1, offset=0x10, width=8, value="not")),
    (step("raw", spot=2, offset=1, **{"byte 0": 0x7F}), step("seal", how="not at all")),
    (step("copy", **{"from": 1, "spot": 2}), step("grow", bits=12)),
    (step("cut", spot=3, what="eight"), step("cut", spot=4, what="end")),
)
FILE_SEEDS = tuple(
    Script(stage, changes) for stage, family in FAMILIES.items() if family == "file" for changes in _CHANGES
)
"""Of all files."""
