"""The helper itself at VMPL0 of SNP guests that KVM has launched, their hosts and their owner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mh_abi import abi
from mh_builder.firmware.snp import PageType, SnpPage, snp_digest, vmsa_page
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.image.vmsa import write_vmsa
from mh_builder.paging import MIB, PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options, Start
from mh_emulator.attest.chain import Chain
from mh_emulator.attest.owner import ROLES, SnpOwner, Trust, TrustedPart
from mh_emulator.attest.share import Binding
from mh_emulator.cpu import vmsa
from mh_emulator.host.attest import Messenger
from mh_emulator.host.ring import Request, Ring
from mh_emulator.kvm.exits import Reason
from mh_emulator.psp.snp.context import KEY_BYTES, VMPCKS
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.psp.snp.secrets import VMPCK_OFFSET
from mh_emulator.psp.snp.tcb import FIRST_TCB
from mh_emulator.secret import Secret
from mh_emulator.snp_platform import SnpPlatform

HOME, RAM_BYTES, DRAM_BYTES, C_BIT = 2 * MIB, 12 * MIB, 32 * MIB, 51
PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
"""The owner's."""
OWNER = PRIVATE.public_key().public_bytes_raw()
SECRET = Secret(key=bytes(range(100, 132)), guest=bytes(range(200, 216)))
CHALLENGE = bytes(range(50, 66))
FIRMWARE = b"firmware".ljust(PAGE_BYTES, b"\xcc")
"""What the source has beside its helper: so the owner can tell the sides by their digests."""
SOURCE, TARGET = ROLES

Op, Status = abi.mh_op, abi.mh_status


@cache
def image_for(owner: bytes = OWNER, vcpus: int = 1) -> Image:
    """At its home in the guest."""
    options = Options(start=Start.SNP, owner=owner, home=HOME, ram_limit=RAM_BYTES, c_bit=C_BIT, vcpus=vcpus)
    return build_helper("vmpl", options)


class SnpHelper:
    """A guest and its host: the helper alone, or with a page of firmware; `data` is launched in the image's place.

    `starts` has EDI of each vCPU. The first one has run, and is at the ring.
    """

    def __init__(
        self,
        part: str = "milan",
        *,
        seed: int = 1,
        image: Image | None = None,
        data: bytes = b"",
        firmware: bytes = b"",
        policy: int = DEFAULT_POLICY,
        starts: Sequence[int] = (0,),
    ) -> None:
        self.image = image or image_for()
        self.platform = SnpPlatform(PARTS[part], DRAM_BYTES, seed)
        self.memory = self.platform.memory(RAM_BYTES)
        self.memory.write_raw(0, firmware)
        self.memory.write_raw(HOME, data or self.image.data)
        self._firmware, self._starts = firmware, starts
        self.vm = self.platform.create_vm()
        self._launch(policy)
        self.go_on_with(0)
        self.messenger = Messenger(self.ring, self.platform.psp.chain, part)

    def go_on_with(self, number: int) -> None:
        """Have that vCPU begin, and serve the ring from then on."""
        self.vcpu = self.vcpus[number]
        self.run()
        self.ring = Ring(self.memory, HOME + self.image.section(".ring").offset, self.run)

    def run(self) -> None:
        """Until it halts."""
        exit_ = self.vcpu.run()
        assert exit_.reason is Reason.HLT, exit_

    def ask(self, op: int, packet: bytes = b"", role: int = 0, slot: int = 0) -> abi.mh_status:
        """One operation with something in the packet's place; its status."""
        self.ring.put_packet(slot, packet)
        return self.ring.serve([Request(op, role=role, slot=slot)])[0].status

    def attest(self, role: int = SOURCE, slot: int = 0) -> abi.mh_status:
        """ATTEST with `CHALLENGE`."""
        return self.ask(Op.MH_OP_ATTEST, CHALLENGE, role, slot)

    def shown(self, slot: int = 0) -> tuple[bytes, bytes]:
        """Share and report that ATTEST has left."""
        shown = abi.mh_shown(self.ring.take_data(slot, len(abi.mh_shown)))
        return bytes(shown.share), bytes(shown.report)

    def private(self, section: str, offset: int = 0, size: int = PAGE_BYTES) -> bytes:
        """What the helper has in a section."""
        found, gpa = b"", HOME + self.image.section(section).offset + offset
        while size:
            count = min(size, PAGE_BYTES - gpa % PAGE_BYTES)
            found += self.platform.dram.read_private(self.vm.asid, self._spa(gpa), count)
            gpa, size = gpa + count, size - count
        return found

    def all_private(self) -> bytes:
        """All of its private memory but the secret page."""
        secret, end = self.image.section(".secret").offset, self.image.section(".ring").offset
        dram, asid = self.platform.dram, self.vm.asid
        pages = (HOME + offset for offset in range(0, end, PAGE_BYTES) if offset != secret)
        return b"".join(dram.read_private(asid, self._spa(gpa), PAGE_BYTES) for gpa in pages)

    def variable(self, name: str, size: int) -> bytes:
        """A variable of vCPU 0."""
        return self.private(".vcpu", self.image.symbol(name).value - self.image.section(".vcpu").va, size)

    @property
    def digest(self) -> bytes:
        """LD as the owner works it out: of what is launched, and of the registers with which the helper starts."""
        return snp_digest([*self._pages(), vmsa_page(write_vmsa(self.image, HOME, C_BIT))]).ld

    def _pages(self) -> Iterator[SnpPage]:
        if self._firmware:
            yield SnpPage(PageType.NORMAL, 0, self._firmware)
        secrets, stored = self.image.section(".snp_secrets").offset, len(self.image.data)
        for offset in range(0, self.image.section(".ring").offset, PAGE_BYTES):
            if offset < stored:
                data = self.memory.read_raw(HOME + offset, PAGE_BYTES)
                yield SnpPage(PageType.NORMAL, HOME + offset, data)
            else:
                yield SnpPage(PageType.SECRETS if offset == secrets else PageType.ZERO, HOME + offset)

    def _launch(self, policy: int) -> None:
        vm, pages = self.vm, list(self._pages())
        vm.set_user_memory_region(0, 0, RAM_BYTES, self.memory, 0)
        vm.sev_init2()
        for page in pages:
            vm.set_memory_attributes(page.gpa, PAGE_BYTES, private=True)
        self.vcpus = [vm.create_vcpu() for _ in self._starts]
        registers = vmsa.load(write_vmsa(self.image, HOME, C_BIT))
        for vcpu, edi in zip(self.vcpus, self._starts, strict=True):
            vcpu.set_registers(replace(registers, rdi=edi))
        vm.snp_launch_start(policy)
        for page in pages:
            vm.snp_launch_update(page.gpa, self.memory, page.gpa, PAGE_BYTES, page.kind)
        vm.snp_launch_finish()

    def _spa(self, gpa: int) -> int:
        spa = self.vm.private_spa(gpa)
        assert spa is not None
        return spa


def keys_of(helper: SnpHelper) -> list[bytes]:
    """VMPCK0 to VMPCK3, which only the guest and the secure processor know."""
    data = helper.private(".snp_secrets", VMPCK_OFFSET, VMPCKS * KEY_BYTES)
    return [data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES)]


def attested(role: abi.mh_role = SOURCE, seed: int = 1, image: Image | None = None) -> tuple[SnpHelper, Binding]:
    """A helper that waits for its record, and what that has to be bound to."""
    helper = SnpHelper(seed=seed, image=image)
    assert helper.attest(role) == Status.MH_DONE
    return helper, Binding(role, helper.shown()[0], CHALLENGE)


def holds_nothing(helper: SnpHelper, *secrets: bytes) -> None:
    """Neither keys nor scalar are anywhere; there is no second report, and no record."""
    assert helper.variable("vcpu_scalar", KEY_BYTES) == bytes(KEY_BYTES)
    memory = helper.all_private()
    assert [secret.hex() for secret in secrets if secret in memory] == []
    assert helper.private(".secret") == bytes(PAGE_BYTES)
    assert helper.attest() == Status.MH_NO_KEY
    assert helper.ask(Op.MH_OP_RECORD, bytes(128)) == Status.MH_WRONG_STATE
    assert helper.ask(Op.MH_OP_HELLO) == Status.MH_NO_KEY


def trust_of(source: SnpHelper, target: SnpHelper) -> Trust:
    """What their owner expects, by what their launches have to be."""
    root = Chain(source.platform.psp.chain).root
    parts = {source.platform.part.name: TrustedPart(FIRST_TCB, root)}
    return Trust(DEFAULT_POLICY, {SOURCE: source.digest, TARGET: target.digest}, parts)


def owner_of(source: SnpHelper, target: SnpHelper) -> SnpOwner:
    """Who believes these two."""
    return SnpOwner(trust_of(source, target), SECRET.table(), PRIVATE)
