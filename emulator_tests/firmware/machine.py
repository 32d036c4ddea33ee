"""A guest whose firmware starts the loader, and what the loader finds and leaves there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from mh_abi import abi
from mh_abi.image import HelperImage, parse_image
from mh_builder.firmware.driver import build_loader
from mh_builder.helper import build_helper
from mh_builder.paging import MIB, PAGE_BYTES, Geometry, Leaf, walk
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options
from mh_emulator.kvm import msrs
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.vm import Vm, VmType
from mh_emulator.platform import Platform
from mh_emulator.psp.policy import Policy
from mh_emulator.uefi.firmware import Firmware, Outcome, Setup
from mh_emulator.uefi.pool import MemoryType
from mh_emulator.uefi.services import Files

IMAGE_FILE = UUID(abi.MH_IMAGE_FILE_GUID)
OTHER_VOLUME: Files = {UUID(int=7): [b"something else"]}
FEATURE_MIGRATION_CONTROL = 1 << 17
GIVES_BACK = frozenset({"FreePages", "FreePool", "InstallConfigurationTable", "SetVariable"})
"""Services that nobody may use in vain: what they take back is known to who calls them."""


def small_image(scheme: str, ram_limit: int = 1 << 30) -> HelperImage:
    """With little memory for its bitmap."""
    return parse_image(build_helper(scheme, Options(ram_limit=ram_limit)).data)


def volume(blob: bytes, digest: bytes | None = None) -> Files:
    """A firmware volume with the image file in it."""
    return {IMAGE_FILE: [blob, hashlib.sha256(blob).digest() if digest is None else digest]}


class Ground(NamedTuple):
    """What a guest runs on."""

    kind: VmType
    part: str
    levels: int
    """Of the firmware's page tables."""


PLAIN = Ground(VmType.DEFAULT, "milan", 4)
GROUNDS: Mapping[str, Ground] = MappingProxyType(
    {"SEV, 4 levels": Ground(VmType.SEV, "milan", 4), "SEV-ES, 5 levels": Ground(VmType.SEV_ES, "genoa", 5)}
)
"""By their names in the documentation. Genoa is the first part that has 5 levels."""
SEV, ES = GROUNDS.values()


class Careless(Firmware):
    """Maps what one call of a service gives, (service, how often it was called before), without the C-bit."""

    shares: tuple[str, int] | None = None

    def _call(self, name: str, registers: Mapping[str, int], outcome: Outcome) -> int:
        is_shared = (name, outcome.calls.count(name)) == self.shares
        stacked = int.from_bytes(self.memory.read(registers["rsp"] + 40, 8), "little")
        place = {"AllocatePool": registers["r8"], "AllocatePages": registers["r9"]}.get(name, stacked)
        status = super()._call(name, registers, outcome)
        if is_shared:
            address = int.from_bytes(self.memory.read(place, 8), "little")
            self.map_shared(address & -PAGE_BYTES)
        return status

    def map_shared(self, address: int) -> None:
        """Clear the C-bit of a page that is mapped by an entry of its own."""
        leaf = walk(
            self.services._number, self.cr3, address, Geometry(52, self._c_mask.bit_length() - 1, self.setup.levels)
        )
        assert isinstance(leaf, Leaf)
        assert leaf.page_bytes == PAGE_BYTES
        _, entry, value = leaf.path[-1]
        self.memory.write(entry, (value & ~self._c_mask).to_bytes(8, "little"))


@dataclass
class Booted:
    """One boot. `failures` as in `Firmware`; `taken` are pages that somebody else has."""

    image: HelperImage
    ground: Ground = SEV
    driver: bytes = field(default_factory=build_loader)
    """The loader."""
    volumes: Sequence[Files] | None = None
    failures: Mapping[tuple[str, int], int] = field(default_factory=dict)
    taken: int | None = None
    largest_page: int = 2 * MIB
    shared: Sequence[int] = ()
    entry_bits: int = 0
    """Set in the entry that maps the hand-over page."""
    shares: tuple[str, int] | None = None
    """As in `Careless`."""
    open_level: int | None = None
    """Of the table entry on the way to the home that lacks the C-bit: the root's where there are fewer levels."""
    vm_type: type[Vm] = Vm
    svsm_bytes: int | None = None
    """As in `Setup`."""
    kvm_features: int = FEATURE_MIGRATION_CONTROL

    def __post_init__(self) -> None:
        kind, part = self.ground.kind, PARTS[self.ground.part]
        home = self.image.home or 0
        end = home + self.image.memory_bytes + 16 * PAGE_BYTES
        platform = Platform(part, 64 * MIB, seed=1)
        self.vm = self.vm_type(platform.dram, platform.psp, platform._asids, platform.generator, kind)
        self.vm.kvm_features = self.kvm_features
        self.memory = platform.memory(end)
        self.vm.set_user_memory_region(0, 0, end, self.memory, 0)
        self.vm.enable_user_space_msr(msrs.EXIT_FILTER)
        self.vm.set_msr_filter(frozenset({abi.MH_MSR_MIGRATION_CONTROL}))
        self.sev = kind is not VmType.DEFAULT
        self.c_bit = part.c_bit if self.sev else None
        volumes = [OTHER_VOLUME, volume(self.image.data)] if self.volumes is None else self.volumes
        setup = Setup(
            self.driver,
            volumes,
            end,
            self.ground.levels,
            self.largest_page,
            shared=self.shared,
            svsm_bytes=self.svsm_bytes,
        )
        self.firmware = Careless(setup, self.vm, 1 << part.c_bit if self.sev else 0)
        self._launch()
        _, entry, value = self.leaf(home + self.image.ring_offset).path[-1]
        self.firmware.memory.write(entry, (value | self.entry_bits).to_bytes(8, "little"))
        if self.open_level is not None:
            self._open(min(self.open_level, self.ground.levels))
        if self.taken is not None:
            self.firmware.map.take(MemoryType.LOADER_DATA, self.taken, 1)
        self.before = self.firmware.map.used()
        self.firmware.failures = self.failures
        self.firmware.shares = self.shares
        self.outcome = self.firmware.boot(self._run)

    def _open(self, level: int) -> None:
        path = {step[0]: step for step in self.leaf(self.home).path}
        _, entry, value = path[level]
        self.firmware.memory.write(entry, (value & ~(1 << self.vm.part.c_bit)).to_bytes(8, "little"))

    def _launch(self) -> None:
        if self.sev:
            self.vm.sev_init2()
            self.vm.sev_launch_start(Policy.ES if self.vm.es else 0)
        self.vcpu = self.vm.create_vcpu()
        self.vcpu.set_registers(self.firmware.start)
        for gpa, data in self.firmware.contents():
            self.memory.write_raw(gpa, data)
            if self.sev:
                self.vm.sev_launch_update_data(self.memory, gpa, len(data))
        if self.vm.es:
            self.vm.sev_launch_update_vmsa()
        if self.sev:
            self.vm.sev_launch_measure()
            self.vm.sev_launch_finish()

    def _run(self) -> Exit:
        exit_ = self.vcpu.run()
        if exit_.reason is Reason.MSR:
            self.at_msr = self.memory.read_raw(self.image.descriptor.home + self.image.ring_offset, PAGE_BYTES)
        return exit_

    @property
    def home(self) -> int:
        return self.image.home or 0

    def loaded(self) -> bytes:
        """The helper's pages as the guest sees them; the hand-over page as the host does, the secret's as zero."""
        data = bytearray(self.firmware.memory.read(self.home, self.image.memory_bytes))
        ring = self.image.ring_offset
        secret, length = self.image.descriptor.secret_offset, self.image.descriptor.secret_bytes
        data[secret : secret + length] = bytes(length)
        if self.image.regions():
            data[ring : ring + PAGE_BYTES] = self.memory.read_raw(self.home + ring, PAGE_BYTES)
        return bytes(data)

    def check_failed(self, step: int, status: int) -> None:
        """The driver says so, and nothing of it is left."""
        assert self.outcome.status == status
        assert self.outcome.debug == f"SEV-MH failed {step:02x} {status:016x}\n"
        assert self.firmware.map.used() == self.before
        assert not self.firmware.services.pools
        assert not self.firmware.services.tables
        assert not self.firmware.services.variables
        assert not {name for name, _ in self.outcome.refused} & GIVES_BACK
        assert self.outcome.msr_writes == []
        page = self.home + self.image.ring_offset
        assert self.leaf(page).private is (self.sev and page not in self.shared)

    def leaf(self, address: int) -> Leaf:
        """How the firmware's live tables map an address."""
        geometry = self.vm.part.geometry(encrypted=self.sev)._replace(levels=self.ground.levels)
        found = walk(self.firmware.services._number, self.firmware.cr3, address, geometry)
        assert isinstance(found, Leaf)
        return found
