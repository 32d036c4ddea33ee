"""SNP guests, whose helper is in them, at VMPL0; a launch is always the same."""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator, Sequence
from functools import cached_property, partial

from emulator_tests.fuzz.ground import PAGE, PAGES, RINGS, Ground, contents
from emulator_tests.fuzz.kernel import Kernel, PlayedVm
from emulator_tests.fuzz.saved import Restore, Saved, attribute, of_platform, of_vcpu
from emulator_tests.fuzz.statuses import SNP
from emulator_tests.helper.conftest import SECRET
from emulator_tests.vmpl.pairs import KEY, OWNER, RAM_LIMIT
from mh_abi import abi
from mh_abi.image import HelperImage
from mh_builder.firmware.snp import SnpPage, pages_of
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.image.vmsa import hosted
from mh_builder.paging import MIB
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options, Start
from mh_emulator.attest.share import Binding, seal
from mh_emulator.cpu.mmu import VECTOR_VC
from mh_emulator.cpu.rdrand import Generator, Repeating
from mh_emulator.dram.dram import Dram
from mh_emulator.guest.worker import Worker
from mh_emulator.host.migration import Scenario, boot_contents
from mh_emulator.host.placement import Placement, place
from mh_emulator.host.ring import Request, Ring
from mh_emulator.host.snp_context import ImageMachine
from mh_emulator.host.snp_machine import first_vmsa, vmsa_gpa
from mh_emulator.kvm import KvmError, Vcpu
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.psp.snp.context import SnpGuest
from mh_emulator.psp.snp.message import AES_256_GCM, HEADER_BYTES, HEADER_VERSION
from mh_emulator.psp.snp.secrets import VMPCK_OFFSET
from mh_emulator.rmp.entry import RmpEntry
from mh_emulator.secret import Secret
from mh_emulator.snp_platform import SnpPlatform

_PART = PARTS["milan"]
_DRAM_BYTES = 20 * MIB
_ROUNDS = 4
_WORK = 300
"""Instructions of the guest before a session begins."""
_MESSAGE = struct.pack("<BBH", AES_256_GCM, HEADER_VERSION, HEADER_BYTES)
CHALLENGE = bytes(range(50, 50 + abi.MH_CHALLENGE_BYTES))

Op = abi.mh_op

RECORD = Secret(SECRET.key, SECRET.guest, abi.mh_protection.MH_PROTECTION_SEV_SNP.value, abi.MH_OWNER_CONTEXT)
"""What the owner gives: the context may move."""


def image() -> Image:
    """The helper, for a guest with RAM above 4 GiB."""
    return build_helper("vmpl", Options(start=Start.SNP, owner=OWNER, ram_limit=RAM_LIMIT, vcpus=RINGS))


class PlayedMachine(ImageMachine):
    """A machine whose kernel does what a script wants."""

    def __init__(self, ground: SnpGround, placement: Placement, guest: Sequence[SnpPage], seed: int) -> None:
        self._ground = ground
        platform = SnpPlatform(_PART, _DRAM_BYTES, seed)
        platform.generator = Repeating(seed)
        super().__init__(platform, placement, ground.helper, guest)

    def _create_vm(self) -> PlayedVm:
        self._image_vm = self.played = self.platform.create(PlayedVm)
        return self.played

    def _start(self, number: int) -> Ring:
        self._ground.watch(self.helpers[number])
        return super()._start(number)

    def run_helper(self, number: int = 0) -> None:
        """Raises `HelperStopped` for another exit than HLT."""
        exit_ = self._ground.enter(self.helpers[number])
        if exit_.reason is not Reason.HLT:
            self._stopped(exit_)


class SnpGround(Ground):
    """The helper and a guest, or the helper alone where the guest is to come."""

    code = "vmpl"
    never_written = (".header", ".text", ".rodata", ".tables", ".owner")
    defined = ("MH_START_SNP",)
    statuses = SNP

    def __init__(self, guest: str, seed: int = 1) -> None:
        super().__init__(image(), RECORD)
        self._placement = place(PAGES * PAGE, self.helper)
        own = pages_of(boot_contents(self._scenario, self._placement, self._worker))
        ram = [content.gpa + at for content in self._placement.contents for at in range(0, content.size, PAGE)]
        self._own = [*ram, *(page.gpa for page in own if page.gpa not in ram)]
        self.has_guest = guest == "guest"
        self.tampered = False
        """Whether the host has taken, exchanged or replaced pages of the guest."""
        self.harmed = False
        """The same of the helper's own."""
        launched = [*own, self._first_vmsa] if self.has_guest else []
        self.machine = PlayedMachine(self, self._placement, launched, seed)
        self.rings = self.machine.rings
        self._spas = [self.machine.spa(self.home + at) for at in range(0, self.helper.ring_offset, PAGE)]
        self.roles = (abi.mh_role.MH_ROLE_SOURCE if self.has_guest else abi.mh_role.MH_ROLE_TARGET,)
        if not self.has_guest:
            self.expect()

    @cached_property
    def helper(self) -> HelperImage:
        """The image with its VMSA."""
        return hosted(self.image, _PART.c_bit)

    @property
    def _scenario(self) -> Scenario:
        return Scenario("vmpl", _PART, self.helper, 0, contents())

    @property
    def _worker(self) -> Worker:
        return self._placement.worker(_ROUNDS, self.helper, self.home)

    @property
    def _first_vmsa(self) -> SnpPage:
        return first_vmsa(self.helper, self._worker.start(1 << _PART.c_bit))

    def ready(self, role: int) -> None:
        """The owner believes, and the source's guest works."""
        self.attest(role)
        if self.has_guest:
            self.machine.lend(self._own)
            self.machine.start_guest()
            self.machine.run_guest(_WORK)

    def attest(self, role: int) -> None:
        """ATTEST and RECORD, with an owner who believes all."""
        ring = self.rings[0]
        ring.put_packet(0, CHALLENGE)
        ring.ask("attest", Request(Op.MH_OP_ATTEST, role=role))
        shown = abi.mh_shown(ring.take_data(0, len(abi.mh_shown)))
        binding = Binding(abi.mh_role(role), bytes(shown.share), CHALLENGE)
        ring.put_packet(0, seal(self.secret.table(), binding, KEY))
        ring.ask("record", Request(Op.MH_OP_RECORD))

    def expect(self) -> None:
        """Have all that is the guest's private."""
        self.machine.expect([*self._own, self.state_page])

    # ---- the machine ----

    @property
    def dram(self) -> Dram:
        """Memory, as it is stored."""
        return self.machine.platform.dram

    @property
    def generator(self) -> Generator:
        """Behind RDRAND."""
        return self.machine.platform.generator

    @property
    def vcpus(self) -> Sequence[Vcpu]:
        """The helper's, at VMPL0."""
        return self.machine.helpers

    @property
    def kernel(self) -> Kernel:
        """What stands between the helper and the secure processor."""
        return self.machine.played.kernel

    @property
    def ram_bytes(self) -> int:
        """Where RAM ends, as the guest has it."""
        return self._placement.topology.gpa_end

    @property
    def guest(self) -> SnpGuest:
        """What the secure processor knows of the guest."""
        return self.machine.platform.psp._sp.guests[self.machine.context_spa]

    def enter(self, vcpu: Vcpu, instructions: int | None = None) -> Exit:
        """KVM_RUN; where KVM itself gives up, an exit that it has no code for."""
        try:
            return super().enter(vcpu, instructions)
        except KvmError:
            return Exit(Reason.INTERNAL_ERROR)

    def brings_about(self, exit_: Exit) -> bool:
        """Where the host has given no page, or has taken one; anything at all where it was one of the helper's."""
        if self.harmed:
            return True
        reasons = {Reason.MEMORY_FAULT, Reason.MMIO, *([Reason.RMP_FAULT] if self.tampered else [])}
        return exit_.reason in reasons and exit_.gpa not in self.helper_pages and self.is_without_ram(exit_.gpa)

    def provokes(self, fault: abi.mh_fault) -> bool:
        """A page that nobody has validated, or one where there is no RAM: #VC."""
        return self.harmed or fault.vector == VECTOR_VC

    def at_peace(self) -> None:
        """Requests are carried again, and what is the guest's is private."""
        self.machine.played.kernel = Kernel()
        self.expect()

    def saved(self) -> Saved:
        """The machine as it is now."""
        return Saved(self._restores())

    def _restores(self) -> Iterator[Restore]:
        machine, platform = self.machine, self.machine.platform
        vcpus = [*machine.helpers, machine.vcpu]
        slots = {id(slot.memory): slot.memory for slot in machine.vm._slots._slots.values()}
        memories = [*slots.values(), *(vcpu.vmsa for vcpu in vcpus)]
        yield from of_platform(platform.dram, platform.generator, memories)
        yield attribute(self, "harmed")
        yield attribute(self, "tampered")
        yield attribute(platform.rmp, "_entries", dict)
        yield attribute(platform.host, "_free", list)
        yield attribute(platform.psp._sp, "guests", copy.deepcopy)
        yield attribute(machine.vm, "_private", set)
        yield attribute(machine.vm, "_gmem", dict)
        yield attribute(machine.consent, "shared", set)
        yield attribute(machine.consent, "allowed")
        yield attribute(machine.consent, "_has_allowed")
        yield attribute(machine.played, "kernel", copy.deepcopy)
        for vcpu in vcpus:
            yield from of_vcpu(vcpu)
            yield from (attribute(vcpu, name) for name in ("vmsa_spa", "_vmsa_gpa", "_waits_for_init", "_ghcb_gpa"))

    def ring(self, number: int) -> Ring:
        """A ring with nothing submitted."""
        place = self.machine.helper.ring(number)
        return Ring(place.memory, place.offset, partial(self.machine.run_helper, number))

    # ---- the guest's pages ----

    def own_pages(self) -> list[int]:
        """GPAs: what is launched or expected, and any other page that the guest has got."""
        known = [*self._own, self.state_page]
        return [*known, *sorted(self.machine.vm._gmem.keys() - self._helpers - {*known})]

    @cached_property
    def _helpers(self) -> frozenset[int]:
        return frozenset(range(self.helper_pages.start, self.helper_pages.stop, PAGE))

    def read(self, page: int) -> bytes:
        """What the guest sees there; zeros before it has the page, and where the RMP has another page."""
        spa = self.machine.vm._gmem.get(page)
        if spa is None or self.machine.platform.rmp.entry(spa).gpa != page:
            return bytes(PAGE)
        return self.dram.read_private(self.machine.vm.asid, spa, PAGE)

    def write(self, page: int, data: bytes) -> None:
        """What the guest writes there, if it has the page."""
        spa = self.machine.vm._gmem.get(page)
        if spa is not None:
            self.dram.write_private(self.machine.vm.asid, spa, data)

    def is_given(self, page: int) -> bool:
        """Whether it is of zeros as it is stored."""
        return self.dram.peek_raw(self.machine.spa(page)) == bytes(PAGE)

    @property
    def state_address(self) -> int:
        """Page of the guest's vCPU among VMSAs."""
        return self.machine.vmsa.address

    @property
    def state_page(self) -> int:
        """GPA of that page."""
        return vmsa_gpa(self.helper)

    def state(self) -> bytes:
        """That of a guest that has not begun."""
        return self._first_vmsa.contents

    def context(self) -> bytes:
        """One that the target's secure processor takes, with other keys."""
        guest = copy.deepcopy(self.guest)
        guest.digest.imd, guest.vmrk = guest.digest.ld, bytes(range(32))
        return guest.export()

    @property
    def lives(self) -> bool:
        """Whether a page is a VMSA of the guest's: whoever has one can run it."""
        entries = map(self.entry, self.own_pages())
        return any(entry is not None and entry.vmsa for entry in entries)

    def is_code(self, word: int) -> bool:
        """But for how a message to the secure processor begins."""
        return word.to_bytes(8, "little")[: len(_MESSAGE)] != _MESSAGE

    def entry(self, page: int) -> RmpEntry | None:
        """The RMP's of the page behind a GPA; None before the guest has one."""
        spa = self.machine.vm._gmem.get(page)
        return None if spa is None else self.machine.platform.rmp.entry(spa)

    # ---- the helper's memory ----

    @property
    def home(self) -> int:
        """GPA of the helper."""
        return self.helper.descriptor.link_base

    @property
    def base(self) -> int:
        """The same."""
        return self.home

    def spa(self, offset: int) -> int:
        """Of the helper's memory: whatever has become of the GPA since, this is what was launched."""
        if offset < self.helper.ring_offset:
            return self._spas[offset // PAGE] + offset % PAGE
        return self.machine.memory.spa(self.machine.helper.place.offset + offset)

    def helper_entries(self) -> Iterator[tuple[int, RmpEntry]]:
        """(distance from its base, entry) of all of its private pages."""
        for number, spa in enumerate(self._spas):
            yield number * PAGE, self.machine.platform.rmp.entry(spa)

    def read_helper(self, offset: int, size: int) -> bytes:
        """What the helper sees there."""
        return self.dram.read_private(self.machine.vm.asid, self.spa(offset), size)

    def secrets(self) -> list[bytes]:
        """Keys of the guest's messages, and what its context has."""
        guest = self.guest
        return [*guest.vmpcks, guest.vmrk, guest.oek, self._vmpcks]

    @property
    def _vmpcks(self) -> bytes:
        offset = self.helper.snp_secrets_offset
        assert offset is not None
        return self.read_helper(offset + VMPCK_OFFSET, abi.MH_VMPCKS_BYTES)
