"""What a layout can move, and to where: done in the emulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from mh_abi.image import HelperImage, parse_image
from mh_builder.helper import build_helper
from mh_builder.paging import GIB, MIB, PAGE_BYTES
from mh_builder.schemes.space import DEFAULT_HOME, LayoutError, Options, Start
from mh_compare.arena import SECRET, TARGET, Status
from mh_compare.candidate import options_for
from mh_compare.columns.column import Column, Value
from mh_compare.guest_os import GuestOs, read_word
from mh_compare.mirror_arena import MirrorArena, MirrorSide
from mh_compare.subject import MirrorSubject, Subject
from mh_emulator.host import migration
from mh_emulator.host.launch import launch
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement
from mh_emulator.host.session import Batch, export_batch, finish, import_batch, resume
from mh_emulator.kvm.exits import Reason
from mh_emulator.owner import POLICY, GuestOwner
from mh_emulator.platform import Platform

_RUN_PAGES = 1024

_PLUGGED = 32 << 30
"""GPA at which memory is plugged and unplugged."""

TAKEN = "for RAM of the guest that the new helper reserves"

OTHER_HOME = 96 * MIB
"""Main GPA of a helper that another firmware has put elsewhere."""

_WORD = 0x0123_4567_89AB_CDEF


NUMBERED = b"".join(number.to_bytes(8, "little") * (PAGE_BYTES // 8) for number in range(1, _RUN_PAGES + 1))
"""Contents of RAM that is moved to count host exits: no page is zero."""


def exits(subject: MirrorSubject) -> Value:
    """KVM_RUN calls of both helpers while they move RAM in bulk, from the first greeting to the agreed totals."""
    arena = MirrorArena(subject.as_built, NUMBERED)
    source, target = arena.launched(), launch(arena.site(TARGET), GuestOwner(POLICY), (), SECRET)
    pages, count = migration.move(source, target, arena.ram)
    if any(source.read_guest(page) != target.read_guest(page) for page in arena.ram):
        raise AssertionError(f"{subject.scheme}: RAM arrives changed")
    return for_a_page(count, pages)


def for_a_page(count: int, pages: int) -> Value:
    """KVM_RUN calls for each of so many pages."""
    return Value(f"{count / pages:.4f}", count / pages, f"{count} for {pages} pages")


def under_es(subject: MirrorSubject) -> Value:
    """A whole migration under SEV-ES: a guest at work, its registers too, to another platform."""
    candidate = subject.small_es
    scenario = migration.Scenario(
        subject.scheme,
        subject.part,
        candidate.helper,
        candidate.image.table_bytes,
        MirrorArena(candidate).contents,
    )
    report = migration.run(scenario)
    return Value("yes" if report.good else "no", detail=f"{report.pages} pages, the VMSA one of them")


def other_start(subject: Subject, start: Start) -> Value:
    """What there is for guests of another kind than the scheme is for: no image, and why."""
    try:
        build_helper(subject.scheme, options_for(subject.part, start))
    except LayoutError as error:
        return Value("no", detail=str(error))
    raise AssertionError(f"{subject.scheme} can be built for start {start.value}")


class Unplugged(MirrorArena):
    """A guest with a page of RAM behind all that it has a GPA for."""

    @cached_property
    def placement(self) -> Placement:
        """The usual one, and one page more."""
        usual = super().placement
        return replace(usual, topology=replace(usual.topology, unplugged=PAGE_BYTES))


def never_mapped(subject: MirrorSubject) -> Value:
    """Move a page that the main VM has at no address, as a VMSA or the RAM of a device."""
    arena = Unplugged(subject.small)
    source, target = arena.connect()
    page = source.machine.memory.size - PAGE_BYTES
    source.machine.platform.dram.write_private(source.machine.asid, source.machine.memory.spa(page), b"data" * 1024)
    moved = _move(source, target, page)
    if moved == "yes" and target.machine.read_guest(page) != b"data" * 1024:
        return Value("no: it arrives changed")
    return Value(moved)


def unplugged(subject: MirrorSubject) -> Value:
    """The guest writes to plugged memory; the host unplugs and moves it, and plugs it at the target."""
    arena = Unplugged(subject.small)
    source, target = arena.connect()
    page = source.machine.memory.size - PAGE_BYTES
    _plug(source.machine, page)
    GuestOs(source.machine, _PLUGGED).run(f"mov rax, {_WORD:#x}\n mov rdi, {_PLUGGED:#x}\n mov [rdi], rax\n hlt")
    source.machine.vm.set_user_memory_region(_SLOT, 0, 0, source.machine.memory, 0)
    moved = _move(source, target, page)
    _plug(target.machine, page)
    found = GuestOs(target.machine, _PLUGGED).run(read_word(_PLUGGED))[:8]
    if (moved == "yes") != (found == _WORD.to_bytes(8, "little")):
        raise AssertionError(f"{subject.scheme}: moved: {moved}, and the guest reads {found.hex()}")
    return Value(moved)


_SLOT = 9


def _plug(machine: Machine, page: int) -> None:
    machine.vm.set_user_memory_region(_SLOT, _PLUGGED, PAGE_BYTES, machine.memory, page)


def _move(source: MirrorSide, target: MirrorSide, page: int) -> str:
    """Move the page at that `ram_addr`."""
    try:
        address = source.machine.request_address(page)
    except ValueError:
        return "no: it has no name in requests"
    status = target.put(address, source.export(address))
    return "yes" if status == Status.MH_DONE else f"no: {status.name}"


def post_copy(subject: MirrorSubject) -> Value:
    """Start the guest at the target before its RAM is there, and move the page that it needs on the urgent lane."""
    arena = subject.arena()
    source, target = arena.connect()
    machine, page = target.machine, arena.ram[0]
    low = machine.placement.topology.blocks[0]
    machine.vm.set_user_memory_region(0, low.gpa, 0, machine.memory, low.ram_addr)
    guest = GuestOs(machine)
    guest.begin(read_word(0))
    exit_ = guest.go_on()
    if (exit_.reason, exit_.gpa) != (Reason.MMIO, 0):
        raise AssertionError(f"{subject.scheme}: the guest was to need its first page: it left with {exit_}")
    # The guest runs at the target from here on: what has moved stays as the guest leaves it.
    for side in (source, target):
        resume([side.ring])
    # The mirror's own slot reaches the page, so its import needs none of the main VM's.
    batch = Batch(address=source.machine.request_address(page), count=1)
    packets, exported = export_batch(source.ring.urgent, batch)
    imported = import_batch(target.ring.urgent, batch, packets)
    statuses = [result.status.name for result in (*exported, *imported) if result.status != Status.MH_DONE]
    if statuses:
        return Value(f"no: {statuses[0]}")
    machine.vm.set_user_memory_region(0, low.gpa, low.size, machine.memory, low.ram_addr)
    if guest.go_on().reason is not Reason.HLT:
        return Value("no: the guest does not go on")
    found = guest.data()[:8]
    for address in map(arena.address, range(1, len(arena.ram))):
        target.put(address, source.export(address))
    total = finish(source.ring, target.ring)
    good = found == arena.plaintext(0)[:8] and total == len(arena.ram)
    return Value("yes" if good else "no", detail=f"1 of {total} pages on the urgent lane, when the guest asked for it")


@dataclass(frozen=True)
class Upgraded(MirrorArena):
    """A guest with RAM on all sides of its helper, on its way to a platform with another build of the firmware."""

    new: HelperImage = field(kw_only=True)

    @cached_property
    def placement(self) -> Placement:
        """Enough RAM for the old helper and the new one."""
        usual = super().placement
        return replace(usual, topology=replace(usual.topology, below=4 * OTHER_HOME))

    def ground(self, seed: int) -> tuple[Platform, Placement, HelperImage]:
        """The target gets the new helper."""
        platform, placement, old = super().ground(seed)
        return platform, placement, self.new if seed == TARGET else old


def upgrade(subject: MirrorSubject, change: Callable[[Options], Options]) -> Value:
    """Move a guest that uses all RAM that the old firmware leaves it to one whose build had other options."""
    new = parse_image(build_helper(subject.scheme, change(subject.small.image.space.options)).data)
    source, target = Upgraded(subject.small, new=new).connect()
    behind = DEFAULT_HOME + subject.small.image.memory_bytes
    for page in (0, behind, OTHER_HOME):
        source.machine.platform.dram.write_private(
            source.machine.asid, source.machine.memory.spa(page), b"used" * (PAGE_BYTES // 4)
        )
        answer = _move(source, target, page)
        if answer != "yes":
            return Value(answer, detail=TAKEN)
        if target.machine.read_guest(page) != source.machine.read_guest(page):
            raise AssertionError(f"{subject.scheme}: {page:#x} arrives changed")
    return Value("yes")


def smaller(options: Options) -> Options:
    """For less RAM."""
    return replace(options, ram_limit=options.ram_limit - GIB)


def larger(options: Options) -> Options:
    """With more page tables."""
    return replace(options, largest_page=2 * MIB)


def elsewhere(options: Options) -> Options:
    """For another place in RAM."""
    return replace(options, home=OTHER_HOME)


COLUMNS = (
    Column("exits", "host exits for a page, both helpers together", "exits", exits),
    Column("never-mapped", "moves RAM that has no GPA", "", never_mapped),
    Column("unplugged", "moves unplugged virtio-mem", "", unplugged),
    Column("post-copy", "post-copy: the guest runs before its RAM is there", "", post_copy),
    Column("sev-es", "migrates SEV-ES guests", "", under_es),
    Column("sev-snp", "migrates SEV-SNP guests", "", partial(other_start, start=Start.SNP)),
    Column("upgrade", "firmware upgrade to a helper that is not larger", "", partial(upgrade, change=smaller)),
    Column("upgrade-larger", "firmware upgrade to a larger helper", "", partial(upgrade, change=larger)),
    Column("upgrade-moved", "firmware upgrade to a helper at another place", "", partial(upgrade, change=elsewhere)),
)
