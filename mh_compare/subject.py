"""What columns are asked about: a scheme on a part, as an image and as what its page tables map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

from mh_abi import abi
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.parts import PARTS, Part
from mh_builder.report.layout import Layout
from mh_builder.report.open import layout_of
from mh_builder.schemes.space import Options, Start
from mh_compare.arena import SECRET, SOURCE
from mh_compare.calls import Calls
from mh_compare.candidate import OWNER, Candidate, options_for
from mh_compare.mirror_arena import MirrorArena, MirrorSide
from mh_compare.snp_arena import Held, SnpArena, SnpSide
from mh_emulator.host.launch import launch
from mh_emulator.host.site import prepare
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.psp.snp.tcb import TCB_LAYOUTS


@dataclass(frozen=True)
class Subject(ABC):
    """A scheme on a part; what is measured in a guest depends on whether there is a mirror."""

    scheme: str
    part: Part
    small: Candidate
    """Its image for a small guest, quick to launch."""

    @property
    @abstractmethod
    def parts(self) -> list[Part]:
        """The processors that have such guests."""

    @property
    @abstractmethod
    def flags(self) -> str:
        """What `build.py build` has to be told of the start, with a blank before it."""

    @property
    @abstractmethod
    def calls(self) -> Calls:
        """What it takes to launch a VM with nothing but the helper, and to start it."""

    @property
    def start(self) -> Start:
        """How the helper of that image starts."""
        return self.small.start

    @property
    def options(self) -> Options:
        """What `build.py build` takes with `flags` alone."""
        return options_for(self.part, self.start)

    @cached_property
    def image(self) -> Image:
        """The image that it makes then."""
        return build_helper(self.scheme, self.options)

    @cached_property
    def layout(self) -> Layout:
        """What the page tables of that image map, read back from its bytes."""
        return layout_of(self.image, self.part.geometry(encrypted=True))

    @property
    def as_built(self) -> Candidate:
        """The image as something to be launched."""
        return Candidate(self.scheme, self.image, self.part)


@dataclass(frozen=True)
class MirrorSubject(Subject):
    """A scheme whose helper runs in a mirror of a plain SEV guest."""

    small_es: Candidate
    """Its image for a small guest of SEV-ES."""

    @property
    def parts(self) -> list[Part]:
        """All have SEV."""
        return list(PARTS.values())

    @property
    def flags(self) -> str:
        """Nothing: plain SEV is what a build is for."""
        return ""

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


@dataclass(frozen=True)
class SnpSubject(Subject):
    """A scheme whose helper is in an SNP guest itself."""

    @property
    def parts(self) -> list[Part]:
        """All that have SEV-SNP."""
        return [part for part in PARTS.values() if part.name in TCB_LAYOUTS]

    @property
    def flags(self) -> str:
        """The start, and an owner, without whom there is no image."""
        return f" --start {self.start.value} --owner-key {OWNER.public_key().public_bytes_raw().hex()}"

    @cached_property
    def source(self) -> SnpSide:
        """The image as built, in a guest with contents that may use them, and with its record."""
        return SnpArena(self.as_built).source

    @property
    def alone(self) -> SnpSide:
        """The image as built in a VM with nothing else, and with its record."""
        return self._launched[0]

    @property
    def calls(self) -> Calls:
        """What it takes to launch that, to start it, and to have its owner give it the record."""
        return self._launched[1]

    @cached_property
    def _launched(self) -> tuple[SnpSide, Calls]:
        arena = SnpArena(self.as_built)
        platform = arena.server(SOURCE)
        calls = Calls(platform)
        machine = Held(platform, arena.placement, arena.helper, ())
        return arena.believed(machine, abi.mh_role.MH_ROLE_SOURCE, arena.secret), calls

    def arena(self) -> SnpArena:
        """A new arena for a small guest."""
        return SnpArena(self.small)
