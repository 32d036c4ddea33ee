"""One side of a migration under SNP: a guest as KVM has launched it, with its helper in it, in a faithful host's hands.

The helper's vCPUs are those of the launch, at VMPL0. The guest's is made afterwards: it runs at VMPL1, by a VMSA that
the helper makes. A page is private from where it is launched, or where the target's host knows that it will come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import NoReturn

from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.firmware.snp import Imi, PageType, SnpPage, WholeLaunch, pages_at, pages_of_type
from mh_builder.paging import PAGE_BYTES
from mh_builder.save_area import SNP_ACTIVE, put
from mh_emulator.cpu import vmsa
from mh_emulator.cpu.registers import Registers
from mh_emulator.dram.process import Place
from mh_emulator.host.consent import Consent
from mh_emulator.host.installed import Installed
from mh_emulator.host.mirror import HELPER_SECONDS, enter
from mh_emulator.host.placement import Placement
from mh_emulator.host.ring import HelperRefused, HelperStopped, Request, Ring, Status
from mh_emulator.host.session import Batch, runs, share
from mh_emulator.kvm import SnpVm
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.host_memory import HostFaultError
from mh_emulator.kvm.image_vm import OF_IMAGE
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.snp_platform import SnpPlatform

GUEST_VMPL = 1
_CHUNK = 16
"""Pages that are lent, or launched, in one go."""
_LONGEST = 1 << 30
"""Pages of one run whose attributes are set: as many as there are."""
_REMEMBERED = 8
"""Helpers whose pages are listed once."""


def helper_pages(helper: Installed) -> Sequence[SnpPage]:
    """The helper's private memory as it is launched, in this order; the owner expects the same."""
    image = helper.image
    return _private_pages(helper.base, helper.code, len(image.data), image.snp_secrets_offset)


@lru_cache(_REMEMBERED)
def _private_pages(base: int, code: bytes, stored: int, secrets: int | None) -> Sequence[SnpPage]:
    zeros = pages_of_type(PageType.ZERO, base + stored, len(code) - stored)
    return (
        *pages_at(base, code[:stored]),
        *(SnpPage(PageType.SECRETS, page.gpa) if page.gpa - base == secrets else page for page in zeros),
    )


def neighbours(pages: Iterable[SnpPage], most: int) -> Iterator[list[SnpPage]]:
    """These pages in their order, those together, at most so many, that one command can launch."""
    run: list[SnpPage] = []
    for page in pages:
        if run and (len(run) == most or not _goes_on(run[-1], page)):
            yield run
            run = []
        run.append(page)
    if run:
        yield run


def _goes_on(page: SnpPage, after: SnpPage) -> bool:
    return (page.kind, page.imi, page.gpa + PAGE_BYTES) == (after.kind, after.imi, after.gpa)


def vmsa_gpa(image: HelperImage) -> int:
    """Where the VMSA of the guest's vCPU lies, behind those of the helper's."""
    return image.descriptor.ram_limit + image.descriptor.ring_count * PAGE_BYTES


def first_vmsa(image: HelperImage, registers: Registers) -> SnpPage:
    """Where the guest begins, with these registers: a page that the owner knows, and its helper makes a VMSA."""
    page = bytearray(vmsa.make(registers, fpu=True, features=SNP_ACTIVE))
    put(page, "vmpl", GUEST_VMPL)
    (found,) = pages_at(vmsa_gpa(image), bytes(page))
    return found


class SnpMachine:
    """The helper, launched with these pages of a `guest`, or with none where one is to come."""

    incoming: Imi | WholeLaunch = Imi((), vmsas=False)
    """Which of the helper's own pages and VMSAs are launched as incoming image: none, for KVM as it is cannot."""
    moves_context = False

    def __init__(
        self,
        platform: SnpPlatform,
        placement: Placement,
        image: HelperImage,
        guest: Sequence[SnpPage],
        policy: int = DEFAULT_POLICY,
    ) -> None:
        """Raises `KvmError`."""
        self.platform = platform
        self.placement = placement
        self.image = image
        self.vm = self._create_vm()
        self.memory = platform.memory(placement.topology.ram_bytes)
        """What the guest shares."""
        home = placement.topology.ram_addr(image.descriptor.link_base)
        self.helper = Installed(image, Place(self.memory, home), image.descriptor.link_base, platform.part.c_bit)
        self.exits = 0
        """KVM_RUN calls of the helper's vCPUs."""
        self._show_memory()
        self.consent = Consent(self.vm, placement.topology, self._hears)
        self.vm.sev_init2()
        self.helpers = [self.vm.create_vcpu() for _ in range(self.helper.vcpus)]
        """The helper's."""
        self._launch(guest, policy)
        self.vcpu = self.vm.create_vcpu()
        """The guest's; without a VMSA before `start_guest`."""
        self.helper.clear_rings()
        self.rings = [self._start(number) for number in range(self.helper.vcpus)]

    def own_pages(self) -> list[SnpPage]:
        """The helper's private memory as it is launched, before the guest's and the VMSAs."""
        return self.incoming.marked(helper_pages(self.helper))

    @property
    def number(self) -> int:
        """APIC ID of the guest's vCPU, and the page of its VMSA."""
        return self.helper.vcpus

    @property
    def vmsa(self) -> Batch:
        """How a request names that page."""
        return Batch(address=self.number * PAGE_BYTES, count=1, flags=abi.MH_BATCH_VMSA)

    def run_helper(self, number: int = 0) -> None:
        """KVM_RUN of a helper's vCPU until it has nothing to do. Raises `HelperStopped` for any other exit."""
        exit_ = enter(self.helpers[number], HELPER_SECONDS)
        self.exits += 1
        if exit_.reason is not Reason.HLT:
            self._stopped(exit_)

    def _stopped(self, exit_: Exit) -> NoReturn:
        raise HelperStopped(f"helper left with {exit_}")

    def run_guest(self, max_instructions: int | None = None) -> Exit:
        """KVM_RUN of the guest's vCPU, until something else than a hypercall."""
        return self.consent.run(self.vcpu, max_instructions)

    def expect(self, pages: Iterable[int]) -> None:
        """Have these GPAs private; KVM gives the guest each page with the first touch."""
        for run in runs(sorted(pages), 1, _LONGEST):
            self.vm.set_memory_attributes(run.address, run.count * PAGE_BYTES, private=True)

    def lend(self, pages: Sequence[int]) -> None:
        """Have the helper let VMPL1 have these pages. Raises `HelperRefused`."""
        for batch in runs(pages, _CHUNK):
            for result in share(self.rings[0], replace(batch, flags=abi.MH_BATCH_PRIVATE)):
                if result.status != Status.MH_DONE:
                    raise HelperRefused("lend", result.status)

    def start_guest(self) -> None:
        """Have the helper start the guest's vCPU. Raises `HelperRefused`."""
        self.rings[0].ask("run", Request(abi.mh_op.MH_OP_RUN, count=self.number))

    def give_context(self, target: SnpMachine) -> None:
        """Have the guest's context move to `target`, once the guest has stopped: not with KVM as it is."""

    def read_pages(self, pages: Sequence[int]) -> bytes:
        """What the guest sees in the pages at these GPAs, one after the other."""
        return self.platform.dram.read_pages(self.vm.asid, [self.spa(gpa) for gpa in pages])

    def peek_pages(self, pages: Sequence[int]) -> bytes:
        """What the host reads of these pages."""
        return b"".join(self.platform.host.read(self.spa(gpa), PAGE_BYTES) for gpa in pages)

    def record_page(self) -> bytes:
        """What the helper has where the owner's record belongs."""
        return self.read_pages([self.helper.base + self.image.descriptor.secret_offset])

    def overwrite(self, gpa: int, data: bytes) -> bool:
        """Whether the host can write to a page of the guest."""
        try:
            self.platform.host.write(self.spa(gpa), data)
        except HostFaultError:
            return False
        return True

    def read_shared(self, gpa: int) -> bytes:
        """A page that the guest shares."""
        return self.memory.read_raw(self.placement.topology.ram_addr(gpa), PAGE_BYTES)

    def write_shared(self, gpa: int, data: bytes) -> None:
        """Fill a page that the guest shares."""
        self.memory.write_raw(self.placement.topology.ram_addr(gpa), data)

    def spa(self, gpa: int) -> int:
        """Where a private page is. Raises `ValueError` without a slot."""
        spa = self.vm.private_spa(gpa)
        if spa is None:
            raise ValueError(f"no slot at {gpa:#x}")
        return spa

    def close(self) -> None:
        """End the VM."""
        self.vm.close()

    def _create_vm(self) -> SnpVm:
        return self.platform.create_vm()

    def _show_memory(self) -> None:
        blocks = self.placement.topology.blocks
        for number, block in enumerate(blocks):
            self.vm.set_user_memory_region(number, block.gpa, block.size, self.memory, block.ram_addr)
        vmsas = self.platform.memory(abi.MH_VMSA_BYTES)
        self.vm.set_user_memory_region(len(blocks), self.image.descriptor.ram_limit, abi.MH_VMSA_BYTES, vmsas, 0)

    def _launch(self, guest: Sequence[SnpPage], policy: int) -> None:
        """What KVM copies from the process comes from a few pages of its own, for no slot holds contents here."""
        own = self.own_pages()
        carrier = self.platform.memory(_CHUNK * PAGE_BYTES)
        for number, vcpu in enumerate(self.helpers):
            vcpu.set_registers(self.helper.registers(number))
        self.vm.snp_launch_start(policy)
        pages = [*own, *guest]
        self.expect(page.gpa for page in pages)
        for first, *others in neighbours(pages, _CHUNK):
            carrier.write_raw(0, first.contents + b"".join(page.contents for page in others))
            size = (1 + len(others)) * PAGE_BYTES
            self.vm.snp_launch_update(first.gpa, carrier, 0, size, first.kind, OF_IMAGE * first.imi)
        self.vm.snp_launch_finish(flags=OF_IMAGE * own[0].imi)

    def _start(self, number: int) -> Ring:
        self.run_helper(number)
        place = self.helper.ring(number)
        return Ring(place.memory, place.offset, partial(self.run_helper, number))

    def _hears(self) -> None:
        """The guest allows its migration: where its helper lies is no news, for the host has launched it."""
