"""What the helper moves of an SNP guest, and to where: done in the emulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from mh_abi.image import HelperImage
from mh_builder.firmware.snp import SnpPage, pages_of
from mh_builder.helper import build_helper
from mh_builder.image.vmsa import hosted
from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import DEFAULT_HOME, Options
from mh_compare.arena import TARGET, Status
from mh_compare.candidate import OWNER
from mh_compare.columns.column import Value
from mh_compare.columns.moving import NUMBERED, OTHER_HOME, TAKEN, for_a_page
from mh_compare.snp_arena import Held, SnpArena
from mh_compare.subject import SnpSubject
from mh_emulator.host import snp_migration
from mh_emulator.host.bulk import move_batches
from mh_emulator.host.migration import Scenario
from mh_emulator.host.placement import Placement
from mh_emulator.host.ring import HelperRefused
from mh_emulator.host.session import resume


def exits(subject: SnpSubject) -> Value:
    """KVM_RUN calls of both helpers while they move RAM in bulk, from the first greeting to the agreed totals."""
    arena = SnpArena(subject.as_built, NUMBERED)
    source, target = arena.source.machine, arena.target.machine
    pages, count = snp_migration.move(source, target, arena.owned)
    if source.read_pages(arena.owned) != target.read_pages(arena.owned):
        raise AssertionError(f"{subject.scheme}: RAM arrives changed")
    return for_a_page(count, pages)


def under_snp(subject: SnpSubject) -> Value:
    """A whole migration under SNP: a guest at work, its registers too, to another platform."""
    candidate = subject.small
    contents = SnpArena(candidate).contents
    scenario = Scenario(subject.scheme, subject.part, candidate.helper, candidate.image.table_bytes, contents)
    report = snp_migration.run(scenario, OWNER)
    detail = f"{report.pages} pages, the VMSA one of them; copies of the guest that run afterwards: {report.copies}"
    return Value("yes" if report.good else "no", detail=detail)


class Unplugged(SnpArena):
    """A guest with a page of RAM behind all that it has a GPA for."""

    @cached_property
    def placement(self) -> Placement:
        """The usual one, and one page more."""
        usual = super().placement
        return replace(usual, topology=replace(usual.topology, unplugged=PAGE_BYTES))


def unplugged(subject: SnpSubject) -> Value:
    """Move a page that the guest has at no address."""
    source, target = Unplugged(subject.small).connect()
    try:
        address = source.request_address(source.machine.memory.size - PAGE_BYTES)
    except ValueError:
        return Value("no: it has no name in requests")
    status = target.put(address, source.export(address))
    return Value("yes" if status == Status.MH_DONE else f"no: {status.name}")


def post_copy(subject: SnpSubject) -> Value:
    """Have the guest started at the target when only its registers are there, after both helpers were told."""
    arena = subject.arena()
    arena.source.machine.start_guest()
    source, target = arena.connect()
    move_batches((source.ring, target.ring), [source.machine.vmsa])
    for side in (source, target):
        resume([side.ring])
    try:
        target.machine.start_guest()
    except HelperRefused as error:
        return Value(f"no: {error.status.name}", detail="the target starts no guest before all has come")
    raise AssertionError(f"{subject.scheme}: the guest starts before its RAM is there")


@dataclass(frozen=True)
class Upgraded(SnpArena):
    """A guest that uses RAM on all sides of its helper, on its way to a platform with another build of the helper."""

    new: HelperImage = field(kw_only=True)

    @cached_property
    def placement(self) -> Placement:
        """Enough RAM for the old helper and the new one."""
        usual = super().placement
        return replace(usual, topology=replace(usual.topology, below=4 * OTHER_HOME))

    @property
    def used(self) -> list[int]:
        """GPAs that a new helper may want: behind the old one, and where one may be moved to."""
        return [DEFAULT_HOME + self.helper.memory_bytes, OTHER_HOME]

    @cached_property
    def guest(self) -> list[SnpPage]:
        """These pages as well."""
        return [*super().guest, *pages_of([(gpa, b"used" * (PAGE_BYTES // 4)) for gpa in self.used])]

    def launched(self, seed: int, guest: Sequence[SnpPage]) -> Held:
        """The target gets the new helper."""
        return Held(self.server(seed), self.placement, self.new if seed == TARGET else self.helper, guest)


def upgrade(subject: SnpSubject, change: Callable[[Options], Options]) -> Value:
    """Move pages that the old helper leaves to the guest to a helper whose build had other options."""
    new = build_helper(subject.scheme, change(subject.small.image.space.options))
    arena = Upgraded(subject.small, new=hosted(new, subject.part.c_bit))
    source, target = arena.connect()
    for gpa in (arena.address(0), *arena.used):
        status = target.put(gpa, source.export(gpa))
        if status != Status.MH_DONE:
            return Value(f"no: {status.name}", detail=TAKEN)
        if target.machine.read_pages([gpa]) != source.machine.read_pages([gpa]):
            raise AssertionError(f"{subject.scheme}: {gpa:#x} arrives changed")
    return Value("yes")
