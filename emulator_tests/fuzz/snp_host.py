"""What the host of an SNP guest does beside what any host can: pages, the kernel, the record, the guest's vCPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from emulator_tests.fuzz.ground import PAGE
from emulator_tests.fuzz.invariants import Invariants
from emulator_tests.fuzz.script import Step
from emulator_tests.fuzz.snp_ground import CHALLENGE, SnpGround
from emulator_tests.fuzz.stage import Stage, Violation
from emulator_tests.vmpl.pairs import KEY
from mh_abi import abi
from mh_emulator.attest.share import Binding, seal
from mh_emulator.kvm import KvmError
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.host_memory import HostFaultError
from mh_emulator.rmp.instructions import NewState

_OTHER_OWNER = X25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
_ALL = (1 << 64) - 1


class SnpHost:
    """One script's host; a method for each kind of step that is for SNP guests alone."""

    def __init__(self, stage: Stage, ground: SnpGround, invariants: Invariants) -> None:
        self._stage = stage
        self._ground = ground
        self._invariants = invariants
        self._machine = ground.machine

    def take(self, step: Step) -> None:
        """Take a step of a kind that is known here."""
        getattr(self, f"_{step.kind}")(step)

    # ---- steps ----

    def _kernel(self, step: Step) -> None:
        """How requests are carried, and exits answered, from now on."""
        kernel = self._ground.kernel
        kernel.message, kernel.exits = str(step["message"]), str(step["exits"])
        kernel.by, kernel.status = step.number("by"), step.number("status")

    def _owner(self, step: Step) -> None:
        """What the owner sends: a challenge, or a record for the share that the helper has shown, into a slot."""
        slot, wrong = step.number("slot") % abi.MH_RING_SLOTS, str(step["what"])
        ring = self._ground.rings[0]
        if wrong == "challenge":
            ring.put_packet(slot, CHALLENGE)
            return
        share = self._stage.block(0).field("vcpu.hello", size=abi.MH_SHARE_BYTES)
        role = abi.mh_role.MH_ROLE_TARGET if wrong == "other side" else abi.mh_role.MH_ROLE_SOURCE
        challenge = bytes(len(CHALLENGE)) if wrong == "other challenge" else CHALLENGE
        owner = _OTHER_OWNER if wrong == "other owner" else KEY
        try:
            sealed = bytearray(seal(self._stage.secret.table(), Binding(role, share, challenge), owner))
        except ValueError:
            return  # of a share of zeros: there is none yet
        if wrong == "bit":
            by = step.number("by")
            sealed[by % len(sealed)] ^= 1 << by % 8
        ring.put_packet(slot, bytes(sealed))

    def _told(self, step: Step) -> None:
        """Where the host says that the guest's context lies, into a slot of ring 0."""
        place = {
            "right": self._machine.context_spa,
            "the guest's page": self._machine.spa(self._ground.pages[0]),
            "the helper": self._ground.spa(0),
            "0": 0,
            "-1": _ALL,
            "1 << 63": 1 << 63,
            "odd": self._machine.context_spa + 1,
        }[str(step["context"])]
        self._ground.rings[0].put_packet(step.number("slot") % abi.MH_RING_SLOTS, place.to_bytes(8, "little"))

    def _pages(self, step: Step) -> None:
        """What the host does with a page of the guest's, or of the helper's."""
        named = str(step["page"])
        gpa = self._ground.state_page if named == "registers" else self._stage.addresses[named]
        what = str(step["what"])
        if not self._machine.vm._slots.covers(gpa):
            return
        self._ground.tampered |= what != "private"
        self._ground.harmed |= gpa in self._ground.helper_pages
        _CHANGES[what](self, gpa)
        self._invariants.wrote(*self._ground.own_pages())

    def _vcpu(self, step: Step) -> None:
        """Run the guest's vCPU, if it has one."""
        self.run_guest(1 + step.number("instructions"))
        self._invariants.wrote(*self._ground.own_pages())

    def asks_for_the_guest(self, enter: Callable[[int], None]) -> None:
        """Where the guest is here, and its host has harmed nothing, it can be had: there is never none."""
        whereabouts = self._invariants.whereabouts
        if whereabouts is None or self._ground.lives or not whereabouts.is_whole:
            return
        if self._ground.tampered or self._ground.harmed:
            return
        ring = self._ground.rings[0]
        number = ring._submitted
        ring.submit(abi.mh_submission(op=abi.mh_op.MH_OP_RUN, count=self._machine.number).dumps())
        enter(0)
        if ring.completion(number).status != abi.mh_status.MH_DONE:
            raise Violation(f"nobody has the guest: {ring.completion(number).status.name}")
        if self.run_guest(1).reason is Reason.FAIL_ENTRY:
            raise Violation("nobody has the guest: its vCPU does not run")

    def run_guest(self, instructions: int) -> Exit:
        """KVM_RUN, or what comes to the same where there is no VMSA."""
        try:
            exit_ = self._machine.run_guest(instructions)
        except KvmError:
            return Exit(Reason.FAIL_ENTRY)
        vcpu = self._machine.vcpu
        if exit_.reason is not Reason.FAIL_ENTRY and vcpu.vmsa_spa not in self._vmsas():
            raise Violation("the guest's vCPU runs by a page that is no VMSA of its own")
        return exit_

    def _vmsas(self) -> list[int]:
        pages = self._ground.own_pages()
        found = [page for page in pages if (entry := self._ground.entry(page)) is not None and entry.vmsa]
        return [self._machine.spa(page) for page in found]

    # ---- pages ----

    def _private(self, gpa: int) -> None:
        self._machine.vm.set_memory_attributes(gpa, PAGE, private=True)

    def _shared(self, gpa: int) -> None:
        self._machine.vm.set_memory_attributes(gpa, PAGE, private=False)

    def _taken(self, gpa: int) -> None:
        self._machine.vm.punch_hole(gpa, PAGE)

    def _replaced(self, gpa: int) -> None:
        """Another page of the guest's behind the GPA."""
        host, vm = self._machine.platform.host, self._machine.vm
        spa = host.page()
        host.make_private(spa, NewState(assigned=True, gpa=gpa, asid=vm.asid))
        vm.remap(gpa, spa)

    def _exchanged(self, gpa: int) -> None:
        """With the first page of the guest."""
        other = self._ground.pages[0]
        first, second = self._machine.spa(gpa), self._machine.spa(other)
        self._machine.vm.remap(gpa, second)
        self._machine.vm.remap(other, first)

    def _written(self, gpa: int) -> None:
        """The host writes there, which it cannot once the guest has the page."""
        try:
            self._machine.platform.host.write(self._machine.spa(gpa), b"host" * (PAGE // 4))
        except HostFaultError:
            return
        raise Violation(f"the host writes to the guest's page {gpa:#x}")

    def _as_vmsa(self, gpa: int) -> None:
        """The host has its vCPU go on by that page."""
        self._machine.vcpu.replace_vmsa(gpa)
        self._machine.vcpu.init()


_CHANGES: Mapping[str, Callable[[SnpHost, int], None]] = {
    "private": SnpHost._private,
    "shared": SnpHost._shared,
    "taken": SnpHost._taken,
    "replaced": SnpHost._replaced,
    "exchanged": SnpHost._exchanged,
    "written": SnpHost._written,
    "as a VMSA": SnpHost._as_vmsa,
}
"""By the names in a script."""
