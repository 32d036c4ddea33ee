"""KVM, as far as encrypted guests and their mirrors go: what Linux refuses, this refuses with the same errno.

Source: Linux, arch/x86/kvm/svm/sev.c (v6.15), virt/kvm/kvm_main.c; SEV command ids in
Documentation/virt/kvm/x86/amd-memory-encryption.rst.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from mh_builder.paging import PAGE_BYTES, Geometry
from mh_emulator.dram import Dram
from mh_emulator.memory import UserMemory, pieces
from mh_emulator.parts import Part
from mh_emulator.psp.firmware import Firmware, GuestStatus, Measurement
from mh_emulator.psp.session import LaunchSession, Packet
from mh_emulator.psp.status import FirmwareError, Status
from mh_emulator.vcpu import Vcpu

T = TypeVar("T")

# Linux's SEV_FW_BLOB_MAX_SIZE.
FIRMWARE_BLOB_MAX = 16 << 10


class KvmError(OSError):
    """A failed ioctl: `errno`, the name of the ioctl, and the firmware's `status` where that is the cause."""

    def __init__(self, number: int, ioctl: str, status: Status | None = None) -> None:
        cause = "" if status is None else f" (firmware: {status.name})"
        super().__init__(number, f"{ioctl}: {errno.errorcode[number]}{cause}")
        self.ioctl = ioctl
        self.status = status

    def __str__(self) -> str:
        """Name errno and the ioctl."""
        return str(self.strerror)


class Slot(NamedTuple):
    """Guest-physical memory: `size` bytes at `gpa` are those of `memory` from `offset`."""

    gpa: int
    size: int
    memory: UserMemory
    offset: int


@dataclass(slots=True)
class Encryption:
    """What makes a VM an SEV guest; a mirror has the ASID and the handle of its owner."""

    asid: int
    handle: int = 0


class AsidPool:
    """ASIDs of plain SEV guests, as KVM hands them out."""

    def __init__(self, part: Part, psp: Firmware) -> None:
        self._psp = psp
        self._free = list(range(part.asids, part.min_asid - 1, -1))
        self._used_before: list[int] = []

    def take(self) -> int | None:
        """Return an ASID without an owner, or None."""
        if not self._free and self._used_before:
            # sev_flush_asids(): caches first, then the ASIDs are clean again.
            self._psp.wbinvd()
            self._psp.df_flush()
            self._free, self._used_before = self._used_before, []
        return self._free.pop() if self._free else None

    def give_back(self, asid: int) -> None:
        """Take an ASID back for later."""
        self._used_before.append(asid)


class Vm:
    """One VM; its methods are the ioctls on its file descriptor and raise `KvmError`."""

    def __init__(self, dram: Dram, psp: Firmware, asids: AsidPool) -> None:
        self.dram = dram
        self.part = dram.part
        self.geometry: Geometry = self.part.geometry(encrypted=False)
        self.migration_allowed = True
        """MSR_KVM_MIGRATION_CONTROL bit 0."""
        self._psp = psp
        self._asids = asids
        self._slots: dict[int, Slot] = {}
        self._pages: dict[int, int] = {}
        self._vcpus: list[Vcpu] = []
        self._encryption: Encryption | None = None
        self._owner: Vm | None = None
        self._mirrors: list[Vm] = []

    @property
    def encrypted(self) -> bool:
        """Whether this is an SEV guest or a mirror of one."""
        return self._encryption is not None

    @property
    def asid(self) -> int:
        """ASID, 0 without SEV."""
        return self._encryption.asid if self._encryption else 0

    @property
    def handle(self) -> int:
        """The firmware's handle, 0 before the launch."""
        return self._encryption.handle if self._encryption else 0

    @property
    def key(self) -> bytes | None:
        """Memory key behind the ASID, None without SEV."""
        return self.dram.key(self._encryption.asid) if self._encryption else None

    @property
    def runnable(self) -> bool:
        """Whether a vCPU can enter the guest."""
        return self._encryption is None or self._psp.is_runnable(self._encryption.asid)

    def set_user_memory_region(self, slot: int, gpa: int, size: int, memory: UserMemory, offset: int) -> None:
        """KVM_SET_USER_MEMORY_REGION: make, move or, with `size` 0, delete a slot."""
        ioctl = "KVM_SET_USER_MEMORY_REGION"
        old = self._slots.get(slot)
        if size == 0:
            if old is None:
                raise KvmError(errno.EINVAL, ioctl)
            del self._slots[slot]
            self._forget_pages()
            return
        is_outside = gpa < 0 or offset < 0 or offset + size > memory.size or (gpa + size - 1) >> self.part.physical_bits
        if (gpa | size | offset) % PAGE_BYTES or is_outside:
            raise KvmError(errno.EINVAL, ioctl)
        if old is not None and (old.size, old.memory, old.offset) != (size, memory, offset):
            raise KvmError(errno.EINVAL, ioctl)
        for number, other in self._slots.items():
            if number != slot and gpa < other.gpa + other.size and other.gpa < gpa + size:
                raise KvmError(errno.EEXIST, ioctl)
        self._slots[slot] = Slot(gpa, size, memory, offset)
        self._forget_pages()

    def spa(self, gpa: int) -> int | None:
        """System physical address behind `gpa`, or None where no slot is."""
        page = self._pages.get(gpa // PAGE_BYTES)
        if page is None:
            slot = next((one for one in self._slots.values() if one.gpa <= gpa < one.gpa + one.size), None)
            if slot is None:
                return None
            page = slot.memory.spa(slot.offset + gpa // PAGE_BYTES * PAGE_BYTES - slot.gpa)
            self._pages[gpa // PAGE_BYTES] = page
        return page + gpa % PAGE_BYTES

    def create_vcpu(self) -> Vcpu:
        """KVM_CREATE_VCPU."""
        vcpu = Vcpu(self)
        self._vcpus.append(vcpu)
        return vcpu

    def sev_init(self) -> None:
        """KVM_SEV_INIT: give the VM an ASID."""
        ioctl = "KVM_SEV_INIT"
        if self._owner is not None or self._encryption is not None or self._vcpus:
            raise KvmError(errno.EINVAL, ioctl)
        asid = self._asids.take()
        if asid is None:
            raise KvmError(errno.EBUSY, ioctl)
        self._become(Encryption(asid))

    def sev_launch_start(self, policy: int, session: LaunchSession | None = None, handle: int = 0) -> int:
        """KVM_SEV_LAUNCH_START and the ACTIVATE it implies; return the guest's handle."""
        ioctl = "KVM_SEV_LAUNCH_START"
        own = self._sev(ioctl)
        new = self._firmware(ioctl, lambda: self._psp.launch_start(policy, session, handle))
        try:
            self._firmware(ioctl, lambda: self._psp.activate(new, own.asid))
        except KvmError:
            self._psp.decommission(new)
            raise
        own.handle = new
        return new

    def sev_launch_update_data(self, memory: UserMemory, offset: int, size: int) -> None:
        """KVM_SEV_LAUNCH_UPDATE_DATA: any memory of the process, in a slot or not."""
        ioctl = "KVM_SEV_LAUNCH_UPDATE_DATA"
        own = self._sev(ioctl)
        self._check_range(ioctl, memory, offset, size)
        for start, length in pieces(offset, size):
            spa = memory.spa(start)
            self._firmware(ioctl, partial(self._psp.launch_update_data, own.handle, spa, length))

    def sev_launch_measure(self) -> Measurement:
        """KVM_SEV_LAUNCH_MEASURE."""
        ioctl = "KVM_SEV_LAUNCH_MEASURE"
        own = self._sev(ioctl)
        return self._firmware(ioctl, lambda: self._psp.launch_measure(own.handle))

    def sev_launch_secret(self, packet: Packet, memory: UserMemory, offset: int, size: int | None = None) -> None:
        """KVM_SEV_LAUNCH_SECRET into `size` bytes, without it as many as `packet` has; physically contiguous."""
        ioctl = "KVM_SEV_LAUNCH_SECRET"
        size = len(packet.data) if size is None else size
        own = self._sev(ioctl)
        self._check_range(ioctl, memory, offset, size)
        if not 0 < len(packet.header) <= FIRMWARE_BLOB_MAX or not 0 < len(packet.data) <= FIRMWARE_BLOB_MAX:
            raise KvmError(errno.EINVAL, ioctl)
        spa = memory.spa(offset)
        if any(memory.spa(start) != spa + start - offset for start, _ in pieces(offset, size)):
            raise KvmError(errno.EINVAL, ioctl)
        self._firmware(ioctl, lambda: self._psp.launch_secret(own.handle, packet, spa, size))

    def sev_launch_finish(self) -> None:
        """KVM_SEV_LAUNCH_FINISH."""
        ioctl = "KVM_SEV_LAUNCH_FINISH"
        own = self._sev(ioctl)
        self._firmware(ioctl, lambda: self._psp.launch_finish(own.handle))

    def sev_guest_status(self) -> GuestStatus:
        """KVM_SEV_GUEST_STATUS; allowed on a mirror."""
        ioctl = "KVM_SEV_GUEST_STATUS"
        own = self._sev_or_mirror(ioctl)
        return self._firmware(ioctl, lambda: self._psp.guest_status(own.handle))

    def sev_dbg_decrypt(self, source: tuple[UserMemory, int], target: tuple[UserMemory, int], size: int) -> None:
        """KVM_SEV_DBG_DECRYPT between (memory, offset) pairs; allowed on a mirror."""
        self._debug("KVM_SEV_DBG_DECRYPT", self._psp.dbg_decrypt, source, target, size)

    def sev_dbg_encrypt(self, source: tuple[UserMemory, int], target: tuple[UserMemory, int], size: int) -> None:
        """KVM_SEV_DBG_ENCRYPT between (memory, offset) pairs; allowed on a mirror."""
        self._debug("KVM_SEV_DBG_ENCRYPT", self._psp.dbg_encrypt, source, target, size)

    def copy_enc_context_from(self, other: Vm) -> None:
        """KVM_CAP_VM_COPY_ENC_CONTEXT_FROM: become a mirror of `other`."""
        ioctl = "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM"
        source = other._encryption
        if self._encryption is not None or source is None or other._owner is not None or self._vcpus:
            raise KvmError(errno.EINVAL, ioctl)
        # The handle is copied as it is now: a mirror made before LAUNCH_START never gets one.
        self._become(Encryption(source.asid, source.handle))
        self._owner = other
        other._mirrors.append(self)

    def destroy(self) -> None:
        """Close the VM; one with mirrors lives on as long as they do, so they must go first (EBUSY)."""
        if self._mirrors:
            raise KvmError(errno.EBUSY, "close")
        for vcpu in self._vcpus:
            vcpu.close()
        self._vcpus.clear()
        if self._owner is not None:
            self._owner._mirrors.remove(self)  # noqa: SLF001
        elif self._encryption is not None:
            if self._encryption.handle:
                self._psp.deactivate(self._encryption.handle)
                self._psp.decommission(self._encryption.handle)
            self._asids.give_back(self._encryption.asid)
        self._encryption = self._owner = None

    def _become(self, encryption: Encryption) -> None:
        self._encryption = encryption
        self.geometry = self.part.geometry(encrypted=True)
        # Documentation/virt/kvm/x86/msr.rst: 0 for an encrypted guest until the guest says otherwise.
        self.migration_allowed = False

    def _sev_or_mirror(self, ioctl: str) -> Encryption:
        if self._encryption is None:
            raise KvmError(errno.ENOTTY, ioctl)
        return self._encryption

    def _sev(self, ioctl: str) -> Encryption:
        # is_cmd_allowed_from_mirror() comes before everything else.
        if self._owner is not None:
            raise KvmError(errno.EINVAL, ioctl)
        return self._sev_or_mirror(ioctl)

    def _debug(
        self,
        ioctl: str,
        command: Callable[[int, int, int, int], None],
        source: tuple[UserMemory, int],
        target: tuple[UserMemory, int],
        size: int,
    ) -> None:
        own = self._sev_or_mirror(ioctl)
        self._check_range(ioctl, *source, size)
        self._check_range(ioctl, *target, size)
        done = 0
        while done < size:
            start, end = source[1] + done, target[1] + done
            length = min(size - done, PAGE_BYTES - start % PAGE_BYTES, PAGE_BYTES - end % PAGE_BYTES)
            self._firmware(ioctl, partial(command, own.handle, source[0].spa(start), target[0].spa(end), length))
            done += length

    def _check_range(self, ioctl: str, memory: UserMemory, offset: int, size: int) -> None:
        if size <= 0 or offset < 0:
            raise KvmError(errno.EINVAL, ioctl)
        if offset + size > memory.size:
            raise KvmError(errno.EFAULT, ioctl)

    def _forget_pages(self) -> None:
        self._pages.clear()
        for vcpu in self._vcpus:
            vcpu.flush_translations()

    def _firmware(self, ioctl: str, command: Callable[[], T]) -> T:
        try:
            return command()
        except FirmwareError as error:
            raise KvmError(errno.EIO, ioctl, error.status) from error
