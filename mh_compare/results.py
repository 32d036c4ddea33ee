"""What a comparison consists of: cells and outcomes, each with the command that reproduces it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from mh_builder.schemes import EVERY_SCHEME, SCHEMES
from mh_builder.schemes.space import Start


@dataclass(frozen=True, slots=True)
class Cell:
    """One property of one layout."""

    column: str
    title: str
    layout: str
    value: str
    """As people read it."""
    number: float | None
    """The same for programs, in `unit`, where it is a number."""
    unit: str
    detail: str
    """What else was seen, where there is more."""
    how: str

    def as_json(self) -> dict[str, Any]:
        """Without the layout, which the row says; number, unit and detail only where there are any."""
        return {name: value for name, value in asdict(self).items() if name != "layout" and value not in (None, "")}


@dataclass(frozen=True, slots=True)
class AttackResult:
    """How one attack ended under one layout and one start."""

    attack: str
    family: str
    title: str
    layout: str
    start: str
    """`host` in plain SEV, `es`, `snp`."""
    outcome: str
    """`refused`, `detected`, `garbage`, `succeeds`, or `not applicable`."""
    seen: str
    """What the verdict was read from."""
    why: str
    """Where it succeeds: why nothing prevents it; else empty."""
    how: str
    part: str
    """The processor on which it was carried out."""
    evidence: tuple[str, ...] = ()
    """What happened, line by line."""

    def as_json(self) -> dict[str, Any]:
        """All fields; `why` and `evidence` only where there are any."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything from one run."""

    part: str
    layouts: tuple[str, ...]
    cells: tuple[Cell, ...]
    attacks: tuple[AttackResult, ...]

    @property
    def mirrors(self) -> Comparison:
        """What is about schemes whose helper runs in a mirror."""
        layouts = tuple(name for name in self.layouts if name in SCHEMES)
        cells = tuple(cell for cell in self.cells if cell.layout in layouts)
        attacks = tuple(attack for attack in self.attacks if attack.start != Start.SNP.value)
        return replace(self, layouts=layouts, cells=cells, attacks=attacks)

    @property
    def snp(self) -> tuple[AttackResult, ...]:
        """Attacks on SNP guests."""
        return tuple(attack for attack in self.attacks if attack.start == Start.SNP.value)

    def without_evidence(self) -> Comparison:
        """The verdicts alone, with what each was read from."""
        return replace(self, attacks=tuple(replace(attack, evidence=()) for attack in self.attacks))

    def as_json(self) -> dict[str, Any]:
        """Rows, attacks; what follows from them is the decision's."""
        return {
            "part": self.part,
            "rows": [
                {
                    "layout": layout,
                    "start": EVERY_SCHEME[layout].starts[0].value,
                    "cells": [cell.as_json() for cell in self.cells if cell.layout == layout],
                }
                for layout in self.layouts
                if any(cell.layout == layout for cell in self.cells)
            ],
            "attacks": [attack.as_json() for attack in self.attacks],
        }
