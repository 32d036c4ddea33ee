"""A whole migration, and the proof of it: stop, move, resume, compare.

The host here does what a faithful host does, and looks wherever a curious one would look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Protocol

from mh_abi import abi
from mh_abi.errors import MigrationHelperError
from mh_abi.image import HelperImage
from mh_builder.paging import MIB, PAGE_BYTES
from mh_builder.parts import Part
from mh_emulator.guest.contents import Contents
from mh_emulator.guest.worker import Worker, expected
from mh_emulator.host.bulk import CHUNK, bulk, move_all, move_batches
from mh_emulator.host.consent import Consent
from mh_emulator.host.launch import Launcher, launch
from mh_emulator.host.look import are_equal, count_naive_copies, count_plain_pages, portions
from mh_emulator.host.machine import Machine
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.session import connect_all, finish_all, runs
from mh_emulator.host.site import Site, prepare
from mh_emulator.kvm import EsVcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.owner import POLICY, POLICY_ES, GuestOwner
from mh_emulator.platform import Platform
from mh_emulator.secret import Secret

ROUNDS = 3
"""How often the guest goes over its RAM."""

_LAUNCHED_BYTES = 64 * MIB
"""Of the contents, that one command encrypts; so many at once go back to the system when they are freed."""

_SPARE_FRAMES = 4
"""A platform has this many times the frames that the guest touches, so that they lie scattered."""


class Working(Protocol):
    """A guest that can be run."""

    consent: Consent

    def run_guest(self, max_instructions: int | None = None) -> Exit:
        """KVM_RUN of the guest's vCPU, until something else than a hypercall."""


class MigrationError(MigrationHelperError):
    """A migration that did not come to its end."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured in one migration; all sizes in bytes."""

    scheme: str
    start: str
    """`host` in plain SEV, where it sets registers; `es`; `snp`."""
    part: str
    image_bytes: int
    table_bytes: int
    ram_bytes: int
    """Contents of the guest's RAM, as given."""
    pages: int
    """Moved, as both helpers authenticate it; but in plain SEV one of them is the VMSA."""
    shared_pages: int
    """Copied by the host, because the guest shares them."""
    host_exits: int
    """KVM_RUN calls that the moving took, both sides together."""
    vcpus: int
    """Of each helper; source and target work at once if it is more than one."""
    source_plain_pages: int
    """Pages whose plaintext the host of the source can see."""
    target_plain_pages: int
    naive_equal_pages: int
    """Pages that survive when the host copies ciphertext."""
    equal: bool
    """Whether the target's guest sees in every page what the source's saw."""
    guest_ok: bool
    """Whether the guest, resumed on the target, ends with the right result and the right RAM."""
    seconds: float

    @property
    def exits_per_page(self) -> float:
        """Host exits for one page moved."""
        return self.host_exits / self.pages

    @property
    def good(self) -> bool:
        """Whether everything that has to hold did."""
        hidden = self.source_plain_pages == self.target_plain_pages == self.naive_equal_pages == 0
        return self.equal and self.guest_ok and hidden

    def as_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self) | {"exits_per_page": self.exits_per_page, "good": self.good}


@dataclass(frozen=True)
class Scenario:
    """What is to be migrated: RAM contents, the image, the part of both platforms."""

    scheme: str
    part: Part
    helper: HelperImage
    table_bytes: int
    contents: Contents
    prepare: Callable[[Platform, Placement, HelperImage], Site] = prepare
    """Lays out either side."""
    launch: Launcher = launch
    """Launches either side: how its helper gets into memory."""
    known: bytes | None = None
    """SHA-256 of what is launched first and brings the helper; None where that is the helper itself."""

    @property
    def strict(self) -> bool:
        """Whether the owner asks for a strict finish: wherever the image has the room for it."""
        return bool(self.helper.descriptor.flags & abi.MH_FLAG_STRICT)


def run(scenario: Scenario) -> Report:
    """Migrate the guest of `scenario` between two platforms of its part.

    Raises `PlacementError` where its RAM does not fit, `MigrationError` and `HelperRefused` where it fails.
    """
    began = time.perf_counter()
    placement = place(len(scenario.contents), scenario.helper)
    sites = _site(scenario, placement, 1), _site(scenario, placement, 2)
    worker = placement.worker(ROUNDS, scenario.helper, sites[0].base)
    source, target = _launch(scenario, placement, worker, sites)
    work_until_stopped(source, worker)

    moved, shared = source.guest_pages(), source.shared_pages()
    source_plain = count_plain_pages(source, moved)
    naive_equal = count_naive_copies(source, target, moved)
    if source.es:
        _show_states(source, target, worker)
    # What the guest said of itself travels with the stream.
    target.regions, target.consent.shared = source.regions, source.consent.shared
    pages, exits = move(source, target, moved, 1 if scenario.strict else CHUNK)
    copy_shared(source, target, shared)
    target_plain = count_plain_pages(target, moved)
    equal = are_equal(source, target, moved)
    guest_ok = _resume_and_check(source, target, placement, worker, scenario.contents)
    return Report(
        scheme=scenario.scheme,
        start="es" if source.es else "host",
        part=scenario.part.name,
        image_bytes=len(scenario.helper.data),
        table_bytes=scenario.table_bytes,
        ram_bytes=len(scenario.contents),
        pages=pages,
        shared_pages=len(shared),
        host_exits=exits,
        vcpus=source.vcpus,
        source_plain_pages=source_plain,
        target_plain_pages=target_plain,
        naive_equal_pages=naive_equal,
        equal=equal,
        guest_ok=guest_ok,
        seconds=time.perf_counter() - began,
    )


def move(source: Machine, target: Machine, pages: list[int], chunk: int = CHUNK) -> tuple[int, int]:
    """Move the pages at these `ram_addr`, `chunk` to a packet; return their authenticated number and the host exits.

    Where both sides show a state, that is moved as well, after all of them.
    """
    source.start_helper()
    target.start_helper()
    pairs = list(zip(source.rings, target.rings, strict=False))
    before = source.mirror.exits + target.mirror.exits
    sources, targets = [ring for ring, _ in pairs], [ring for _, ring in pairs]
    connect_all(sources, targets)
    batches = bulk([source.request_address(page) for page in pages], chunk, len(pairs))
    move_all(pairs, batches)
    move_batches(pairs[0], runs(source.state_requests(), chunk))
    total = finish_all(sources, targets)
    return total, source.mirror.exits + target.mirror.exits - before


def copy_shared(source: Machine, target: Machine, pages: list[int]) -> None:
    """Copy pages that the guest shares, as the host sees them: through a private view they would be garbage."""
    for page in pages:
        target.memory.write_raw(page, source.memory.read_raw(page, PAGE_BYTES))


def _site(scenario: Scenario, placement: Placement, seed: int) -> Site:
    frames = len(scenario.contents) // PAGE_BYTES + scenario.helper.memory_bytes // PAGE_BYTES + 64
    platform = Platform(scenario.part, _SPARE_FRAMES * frames * PAGE_BYTES, seed)
    return scenario.prepare(platform, placement, scenario.helper)


def _launch(
    scenario: Scenario, placement: Placement, worker: Worker, sites: tuple[Site, Site]
) -> tuple[Machine, Machine]:
    """Launch source and target; under SEV-ES the target's guest begins where it waits for its registers."""
    es = sites[0].es
    secret = Secret.fresh(_protection(sites[0]), abi.MH_OWNER_STRICT if scenario.strict else 0)
    c_mask = 1 << scenario.part.c_bit
    boot = boot_contents(scenario, placement, worker)
    known = scenario.known or scenario.helper.digest(scenario.part.c_bit)
    owners = [GuestOwner(POLICY_ES if es else POLICY, helper=known) for _ in sites]
    source = scenario.launch(sites[0], owners[0], boot, secret, worker.start(c_mask))
    if not es:
        return source, scenario.launch(sites[1], owners[1], (), secret, None)
    target = scenario.launch(sites[1], owners[1], worker.awaiting(c_mask), secret, worker.landing(c_mask))
    parked = target.run_guest()
    if parked.reason is not Reason.HLT:
        raise MigrationError(f"the target's guest does not wait for its registers: it left with {parked}")
    return source, target


def _protection(site: Site) -> int:
    """What an owner of such a guest demands of both sides."""
    protection = abi.mh_protection
    return int(protection.MH_PROTECTION_SEV_ES if site.es else protection.MH_PROTECTION_SEV)


def _show_states(source: Machine, target: Machine, worker: Worker) -> None:
    if isinstance(source.vcpu, EsVcpu):
        source.show_state(source.vcpu.vmsa)
    target.show_state(target.memory, target.placement.topology.ram_addr(worker.state))


def boot_contents(scenario: Scenario, placement: Placement, worker: Worker) -> Iterator[tuple[int, bytes]]:
    """(GPA, bytes) of all that the source's guest begins with."""
    yield from worker.contents(1 << scenario.part.c_bit)
    for content in placement.contents:
        for start in range(0, content.size, _LAUNCHED_BYTES):
            size = min(_LAUNCHED_BYTES, content.size - start)
            data = scenario.contents[content.offset + start : content.offset + start + size]
            yield content.gpa + start, data.ljust(size, b"\0")


def work_until_stopped(source: Working, worker: Worker) -> None:
    """Run the guest from its start to about the middle of its work, at no particular instruction."""
    allowed = source.run_guest()
    if allowed.reason is not Reason.MSR or not source.consent.allowed:
        raise MigrationError(f"the guest has not allowed its migration: it left with {allowed}")
    stopped = source.run_guest(worker.instructions() // 2)
    if stopped.reason is not Reason.LIMIT:
        raise MigrationError(f"the guest was to be stopped at work: it left with {stopped}")


def _resume_and_check(
    source: Machine, target: Machine, placement: Placement, worker: Worker, contents: Contents
) -> bool:
    if not source.es:
        target.vcpu.set_registers(source.vcpu.get_registers())
    ram_addr = placement.topology.ram_addr
    return ends_right(
        target, lambda pages: target.read_pages([ram_addr(gpa) for gpa in pages]), placement, worker, contents
    )


def ends_right(
    guest: Working, read: Callable[[Sequence[int]], bytes], placement: Placement, worker: Worker, contents: Contents
) -> bool:
    """Whether the guest, run to its end, has the right result, and the right RAM; `read` gives pages by GPA."""
    if guest.run_guest().reason is not Reason.HLT:
        return False
    result, changed = expected(contents, worker.rounds)
    if worker.result(read([worker.base])) != result:
        return False
    after = _overwritten(contents, changed)
    # Pieces of the contents follow each other without a gap.
    pages = [content.gpa + at for content in placement.contents for at in range(0, content.size, PAGE_BYTES)]
    return all(read(some) == b"".join(islice(after, len(some))) for some in portions(pages))


def _overwritten(contents: Contents, changed: dict[int, bytes]) -> Iterator[bytes]:
    """The pages of `contents`, the last one filled up with zeros, with these words in them, by offset."""
    words: dict[int, list[tuple[int, bytes]]] = {}
    for offset, word in changed.items():
        words.setdefault(offset // PAGE_BYTES, []).append((offset % PAGE_BYTES, word))
    for number, start in enumerate(range(0, len(contents), PAGE_BYTES)):
        page = bytearray(contents[start : start + PAGE_BYTES].ljust(PAGE_BYTES, b"\0"))
        for offset, word in words.get(number, ()):
            page[offset : offset + len(word)] = word
        yield bytes(page)
