"""One server for SNP guests: DRAM, RMP, secure processor and KVM."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from mh_builder.paging import GIB
from mh_builder.parts import Part
from mh_emulator.cpu.rdrand import Generator
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.process import UserMemory
from mh_emulator.kvm import AsidPool, SnpVm
from mh_emulator.kvm.host_memory import HostMemory
from mh_emulator.psp.snp.firmware import SnpFirmware
from mh_emulator.rmp.table import Rmp

V = TypeVar("V", bound=SnpVm)


class SnpPlatform:
    """A server of type `part` with `dram_bytes` of DRAM, which are made of 2 MiB, after SNP_INIT.

    Another `seed` is another server. With `hiding` the host reads no ciphertext. SEV and SEV-ES guests are not modelled
    beside SNP guests. Raises `ValueError` for a part without SEV-SNP.
    """

    def __init__(self, part: Part, dram_bytes: int, seed: int, *, hiding: bool = False) -> None:
        self.part = part
        highest = ((1 << part.system_bits) - dram_bytes) // GIB
        base = random.Random(f"base {seed}").randrange(1, highest) * GIB  # noqa: S311
        self.dram = Dram(dram_bytes, base, part, seed)
        self.rmp = Rmp(base, dram_bytes)
        self.psp = SnpFirmware(self.dram, self.rmp, seed)
        self.psp.init()
        self.psp.wbinvd()
        self.psp.df_flush()
        self.host = HostMemory(self.dram, self.rmp, self.psp, hiding=hiding)
        self.generator = Generator()
        """Behind RDRAND of all its CPUs."""
        self._asids = AsidPool(part, self.psp)
        self.watchers: list[Callable[[SnpVm], None]] = []
        """Called with every VM, before it is used."""

    def memory(self, size: int) -> UserMemory:
        """Map `size` bytes of memory in the host process."""
        return UserMemory(self.dram, size)

    def create_vm(self) -> SnpVm:
        """KVM_CREATE_VM with KVM_X86_SNP_VM."""
        return self.create(SnpVm)

    def create(self, kind: type[V]) -> V:
        """KVM_CREATE_VM of a KVM whose VMs for SNP are of that `kind`."""
        vm = kind(self.dram, self.rmp, self.psp, self.host, self._asids, self.generator)
        for watcher in self.watchers:
            watcher(vm)
        return vm
