"""What a column is, and what it is asked about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.parts import Part
from mh_builder.report.layout import Layout
from mh_builder.report.open import layout_of
from mh_builder.schemes.space import Options
from mh_compare.arena import SECRET, SOURCE
from mh_compare.calls import Calls
from mh_compare.candidate import Candidate
from mh_compare.mirror_arena import MirrorArena, MirrorSide
from mh_emulator.host.launch import launch
from mh_emulator.host.site import prepare
from mh_emulator.owner import POLICY, GuestOwner


@dataclass(frozen=True, slots=True)
class Value:
    """An answer for people, and for programs where it is a number."""

    text: str
    number: float | None = None
    detail: str = ""
    """What else was seen."""


@dataclass(frozen=True)
class Subject:
    """A scheme on a part."""

    scheme: str
    part: Part
    small: Candidate
    """Its image for a small guest, quick to launch."""
    small_es: Candidate
    """The same for SEV-ES."""

    @property
    def options(self) -> Options:
        """What `build.py build` takes without further options."""
        return Options.for_part(self.part)

    @cached_property
    def image(self) -> Image:
        """The image that `build.py build` makes without further options."""
        return build_helper(self.scheme, self.options)

    @cached_property
    def layout(self) -> Layout:
        """What the page tables of that image map, read back from its bytes."""
        return layout_of(self.image, self.part.geometry(encrypted=True))

    @property
    def as_built(self) -> Candidate:
        """The image as something to be launched."""
        return Candidate(self.scheme, self.image, self.part)

    @cached_property
    def source(self) -> MirrorSide:
        """The image as built, in a guest with contents, and started."""
        return MirrorArena(self.as_built).source

    @cached_property
    def calls(self) -> Calls:
        """What it takes to launch a VM with nothing but the helper, and to start it."""
        platform, placement, helper = MirrorArena(self.as_built).ground(SOURCE)
        calls = Calls(platform)
        launch(prepare(platform, placement, helper), GuestOwner(POLICY), (), SECRET).start_helper()
        return calls

    def arena(self) -> MirrorArena:
        """A new arena for a small guest."""
        return MirrorArena(self.small)


@dataclass(frozen=True, slots=True)
class Column:
    """A question that has an answer for every layout."""

    name: str
    """What users type."""
    title: str
    """What is asked."""
    unit: str
    """Of the answer's number; empty where the answer is none."""
    measure: Callable[[Subject], Value]
    how: str = ""
    """Another command that shows it, with {scheme} and {part}; empty: only `compare` does."""
