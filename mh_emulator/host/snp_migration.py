"""A whole migration under SNP: attest, work, stop, move, resume, compare, and try to have two guests.

The helper is in the guest, at VMPL0. Its record comes by reports that the owner believes; where it believes none, there
is no migration. The host does what a faithful host does until all has moved, then what a hostile one would.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mh_abi import abi
from mh_builder.firmware.snp import SnpPage, pages_of, snp_digest, vmsa_page
from mh_builder.paging import MIB
from mh_builder.parts import Part
from mh_builder.save_area import SNP_ACTIVE
from mh_emulator.attest.chain import Chain
from mh_emulator.attest.owner import ROLES, SnpOwner, Trust, TrustedPart
from mh_emulator.cpu import vmsa
from mh_emulator.guest.worker import Worker
from mh_emulator.host.attest import Messenger, fetch_records
from mh_emulator.host.bulk import CHUNK, bulk, move_all
from mh_emulator.host.look import are_equal, count_plain_pages
from mh_emulator.host.migration import ROUNDS, Report, Scenario, boot_contents, ends_right, work_until_stopped
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.ring import HelperRefused
from mh_emulator.host.session import connect_all, finish_all
from mh_emulator.host.snp_machine import SnpMachine, first_vmsa, vmsa_gpa
from mh_emulator.kvm.exits import Reason
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.psp.snp.tcb import FIRST_TCB
from mh_emulator.secret import Secret
from mh_emulator.snp_platform import SnpPlatform

_SPARE_FRAMES = 2
"""A platform has this many times the frames that are used, and `_OWN_BYTES` for its secure processor and KVM."""
_OWN_BYTES = 4 * MIB


@dataclass(frozen=True)
class SnpReport(Report):
    """What was measured in one migration."""

    attested: bool
    """Whether both helpers have their record from an owner who had to believe their reports first."""
    copies: int
    """On how many sides the guest still runs at the end, whatever both hosts try."""
    context: bool
    """Whether the guest's context has moved too: its digests, its policy, the root of its keys."""

    @property
    def good(self) -> bool:
        """Whether everything that has to hold did."""
        return super().good and self.attested and self.copies == 1


@dataclass(frozen=True)
class Pair:
    """Both sides of a migration, whose helpers have the owner's record; the source's guest has not begun."""

    placement: Placement
    worker: Worker
    pages: list[int]
    """GPAs of the guest's own."""
    source: SnpMachine
    target: SnpMachine
    record: bytes
    """That the owner has sealed for both."""

    @property
    def attested(self) -> bool:
        """Whether both helpers have it, where they were launched with zeros."""
        sides = (self.source, self.target)
        return all(side.record_page().startswith(self.record) for side in sides)

    def work(self) -> None:
        """Lend the guest its pages, and run it to about the middle of its work."""
        self.source.lend(self.pages)
        self.source.start_guest()
        work_until_stopped(self.source, self.worker)

    def expect(self) -> None:
        """Have the target's host know what is to come."""
        self.target.expect([*self.pages, vmsa_gpa(self.target.image)])


def begin(scenario: Scenario, key: X25519PrivateKey, kind: type[SnpMachine] = SnpMachine) -> Pair:
    """Launch both sides, and have the owner, who has `key`, believe them. Raises `PlacementError`, `OwnerRefuses`."""
    placement = place(len(scenario.contents), scenario.helper)
    worker = placement.worker(ROUNDS, scenario.helper, scenario.helper.descriptor.link_base)
    own = pages_of(boot_contents(scenario, placement, worker))
    guest = [*own, first_vmsa(scenario.helper, worker.start(1 << scenario.part.c_bit))]
    source = _launch(scenario, placement, kind, 1, guest)
    target = _launch(scenario, placement, kind, 2, ())
    record = _fetch_records(scenario, key, guest, source, target)
    return Pair(placement, worker, [page.gpa for page in own], source, target, record)


def run(scenario: Scenario, key: X25519PrivateKey, kind: type[SnpMachine] = SnpMachine) -> SnpReport:
    """Migrate the guest of `scenario`, whose owner has `key`, between two platforms of its part.

    Raises `PlacementError` where its RAM does not fit, `OwnerRefuses`, `MigrationError` and `HelperRefused`.
    """
    began = time.perf_counter()
    pair = begin(scenario, key, kind)
    placement, source, target, moved = pair.placement, pair.source, pair.target, pair.pages
    attested = pair.attested
    pair.work()
    source_plain = count_plain_pages(source, moved)
    pair.expect()
    pages, exits = move(source, target, moved, 1 if scenario.strict else CHUNK)
    shared = sorted(source.consent.shared)
    for gpa in map(placement.topology.gpa, shared):
        target.write_shared(gpa, source.read_shared(gpa))
    target_plain = count_plain_pages(target, moved)
    naive_equal = sum(target.overwrite(gpa, source.peek_pages([gpa])) for gpa in moved)
    equal = are_equal(source, target, moved)
    target.start_guest()
    guest_ok = ends_right(target, target.read_pages, placement, pair.worker, scenario.contents)
    return SnpReport(
        scheme=scenario.scheme,
        start="snp",
        part=scenario.part.name,
        image_bytes=len(scenario.helper.data),
        table_bytes=scenario.table_bytes,
        ram_bytes=len(scenario.contents),
        pages=pages,
        shared_pages=len(shared),
        host_exits=exits,
        vcpus=source.helper.vcpus,
        source_plain_pages=source_plain,
        target_plain_pages=target_plain,
        naive_equal_pages=naive_equal,
        equal=equal,
        guest_ok=guest_ok,
        seconds=time.perf_counter() - began,
        attested=attested,
        copies=sum(_still_runs(machine) for machine in (source, target)),
        context=kind.moves_context,
    )


def move(source: SnpMachine, target: SnpMachine, pages: Sequence[int], chunk: int = CHUNK) -> tuple[int, int]:
    """Move the pages at these GPAs and then the VMSA; return their authenticated number and the host exits.

    The export of the VMSA stops the source's guest: from then on it is none. FINISH makes that stay so.
    """
    before = source.exits + target.exits
    connect_all(source.rings, target.rings)
    batches = chain(bulk(pages, chunk, len(source.rings)), [source.vmsa])
    move_all(list(zip(source.rings, target.rings, strict=True)), batches)
    source.give_context(target)
    total = finish_all(source.rings, target.rings)
    return total, source.exits + target.exits - before


def _launch(
    scenario: Scenario, placement: Placement, kind: type[SnpMachine], seed: int, guest: Sequence[SnpPage]
) -> SnpMachine:
    used = len(scenario.contents) + scenario.helper.memory_bytes + _OWN_BYTES
    dram_bytes = -(-_SPARE_FRAMES * used // (2 * MIB)) * 2 * MIB
    return kind(SnpPlatform(scenario.part, dram_bytes, seed), placement, scenario.helper, guest)


def trust(part: Part, root: bytes, source: SnpMachine, target: SnpMachine, guest: Sequence[SnpPage]) -> Trust:
    """What the owner has to find: the helper below this guest at the source, and alone at the target."""
    digests = dict(zip(ROLES, (digest(source, guest), digest(target, ())), strict=True))
    return Trust(DEFAULT_POLICY, digests, {part.name: TrustedPart(FIRST_TCB, root)})


def digest(machine: SnpMachine, guest: Sequence[SnpPage]) -> bytes:
    """LD of a launch as it has to be, whatever the host launches."""
    states = (machine.helper.registers(number) for number in range(machine.helper.vcpus))
    vmsas = (vmsa_page(vmsa.make(state, fpu=True, features=SNP_ACTIVE)) for state in states)
    return snp_digest([*machine.own_pages(), *guest, *machine.incoming.marked(vmsas)]).ld


def _fetch_records(
    scenario: Scenario, key: X25519PrivateKey, guest: Sequence[SnpPage], source: SnpMachine, target: SnpMachine
) -> bytes:
    """Have the owner give the record that is returned."""
    flags = abi.MH_OWNER_STRICT * scenario.strict | abi.MH_OWNER_CONTEXT * source.moves_context
    record = Secret.fresh(abi.mh_protection.MH_PROTECTION_SEV_SNP.value, flags).table()
    root = Chain(source.platform.psp.chain).root
    owner = SnpOwner(trust(scenario.part, root, source, target, guest), record, key)
    messengers = (Messenger(side.rings[0], side.platform.psp.chain, scenario.part.name) for side in (source, target))
    fetch_records(owner, *messengers)
    return record


def _still_runs(machine: SnpMachine) -> bool:
    """Whether the guest executes anything, after its host has tried to have the helper start it again."""
    try:
        machine.start_guest()
    except HelperRefused as error:
        if error.status != abi.mh_status.MH_WRONG_STATE:
            raise
    return machine.run_guest(1).reason is not Reason.FAIL_ENTRY
