"""The helper itself at VMPL0 of an SNP guest that KVM has launched, and its owner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mh_builder.firmware.snp import PageType, SnpDigest
from mh_builder.helper import build_helper
from mh_builder.image.model import Image
from mh_builder.image.vmsa import write_vmsa
from mh_builder.paging import MIB, PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options, Start
from mh_emulator.cpu import vmsa
from mh_emulator.host.attest import Messenger
from mh_emulator.host.ring import Ring
from mh_emulator.kvm.exits import Reason
from mh_emulator.psp.snp.policy import DEFAULT_POLICY
from mh_emulator.secret import Secret
from mh_emulator.snp_platform import SnpPlatform

HOME, RAM_BYTES, DRAM_BYTES = 2 * MIB, 8 * MIB, 32 * MIB
OWNER = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
SECRET = Secret(key=bytes(range(100, 132)), guest=bytes(range(200, 216)))


def public(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


@cache
def image_for(owner: bytes) -> Image:
    """At its home in the guest."""
    return build_helper("alias-gpa", Options(start=Start.ES, owner=owner, home=HOME, ram_limit=RAM_BYTES, c_bit=51))


class SnpHelper:
    """A guest that is the helper alone, as its host has launched it."""

    def __init__(self, part: str = "milan", seed: int = 1, owner: bytes = public(OWNER)) -> None:
        self.image = image_for(owner)
        self.platform = SnpPlatform(PARTS[part], DRAM_BYTES, seed)
        self.memory = self.platform.memory(RAM_BYTES)
        self.memory.write_raw(HOME, self.image.data)
        self.vm = self.platform.create_vm()
        self.digest = self._launch()
        self.run()
        self.ring = Ring(self.memory, HOME + self.image.section(".ring").offset, self.run)
        self.messenger = Messenger(self.ring, self.platform.psp.chain, part)

    def run(self) -> None:
        """Until it halts."""
        exit_ = self.vcpu.run()
        assert exit_.reason is Reason.HLT, exit_

    def private(self, section: str, offset: int, size: int) -> bytes:
        """What the helper has there."""
        found, start = b"", HOME + self.image.section(section).offset + offset
        while size:
            count = min(size, PAGE_BYTES - start % PAGE_BYTES)
            spa = self.vm.private_spa(start)
            assert spa is not None
            found += self.platform.dram.read_private(self.vm.asid, spa, count)
            start, size = start + count, size - count
        return found

    def pages(self) -> Iterator[tuple[int, PageType]]:
        """What is launched, and how."""
        secrets = self.image.section(".snp_secrets").offset
        for offset in range(0, self.image.section(".ring").offset, PAGE_BYTES):
            kind = PageType.NORMAL if offset < len(self.image.data) else PageType.ZERO
            yield HOME + offset, PageType.SECRETS if offset == secrets else kind

    def _launch(self) -> bytes:
        vm, digest = self.vm, SnpDigest()
        vm.set_user_memory_region(0, 0, RAM_BYTES, self.memory, 0)
        vm.sev_init2()
        vm.set_memory_attributes(HOME, self.image.section(".ring").offset, private=True)
        self.vcpu = vm.create_vcpu()
        registers = vmsa.load(write_vmsa(self.image, HOME, vm.part.c_bit))
        self.vcpu.set_registers(replace(registers, cr3=registers.cr3))
        vm.snp_launch_start(DEFAULT_POLICY)
        for gpa, kind in self.pages():
            vm.snp_launch_update(gpa, self.memory, gpa, PAGE_BYTES, kind)
        vm.snp_launch_finish()
        return digest.ld
