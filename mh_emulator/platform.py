"""One server: DRAM, secure processor and KVM."""

from __future__ import annotations

import random
from collections.abc import Callable

from mh_builder.paging import GIB
from mh_builder.parts import Part
from mh_emulator.cpu.rdrand import Generator
from mh_emulator.dram.dram import Dram
from mh_emulator.dram.incoherent import IncoherentDram
from mh_emulator.dram.process import UserMemory
from mh_emulator.kvm import AsidPool, Vm, VmType
from mh_emulator.owner import Credentials
from mh_emulator.psp import amd
from mh_emulator.psp.firmware import Firmware
from mh_emulator.psp.vmsa import REGION_BYTES


class Platform:
    """A server of type `part` with `dram_bytes` of DRAM; `seed` decides all that is random in it.

    Another seed is another server, or the same after a reset: other keys, other tweaks, other addresses.
    """

    def __init__(self, part: Part, dram_bytes: int, seed: int) -> None:
        self.part = part
        highest = ((1 << part.system_bits) - dram_bytes) // GIB
        base = random.Random(f"base {seed}").randrange(1, highest) * GIB  # noqa: S311
        self.dram = (Dram if part.coherent else IncoherentDram)(dram_bytes, base, part, seed)
        self.psp = Firmware(self.dram, seed)
        # As the driver does (drivers/crypto/ccp/sev-dev.c): all ASIDs are dirty and there is no room for VMSAs before
        # the flush. The memory for their checksums is given to nothing else.
        self.psp.init(base - REGION_BYTES)
        self.psp.wbinvd()
        self.psp.df_flush()
        self._asids = AsidPool(part, self.psp)
        self.generator = Generator()
        """Behind RDRAND of all its CPUs."""
        self.watchers: list[Callable[[Vm], None]] = []
        """Called with every VM, before it is used."""

    def credentials(self) -> Credentials:
        """What the host shows a guest owner: certificates, AMD's too, and the version of the firmware."""
        pdh = self.psp.pdh_cert_export().pdh
        return Credentials(pdh, self.psp.full_chain, amd.root().chain, self.psp.platform_status().version)

    def memory(self, size: int) -> UserMemory:
        """Map `size` bytes of memory in the host process."""
        return UserMemory(self.dram, size)

    def create_vm(self, vm_type: VmType = VmType.DEFAULT) -> Vm:
        """KVM_CREATE_VM."""
        vm = Vm(self.dram, self.psp, self._asids, self.generator, vm_type)
        for watcher in self.watchers:
            watcher(vm)
        return vm
