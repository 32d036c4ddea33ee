"""Counts calls of KVM and commands of the secure processor while a guest is launched and its helper started."""

from __future__ import annotations

from collections import Counter

from mh_emulator.dram.process import UserMemory
from mh_emulator.dram.ranges import Range
from mh_emulator.kvm import SnpVm, Vm
from mh_emulator.kvm.watched import Call
from mh_emulator.platform import Platform
from mh_emulator.psp.command import Command
from mh_emulator.psp.snp.command import SnpCommand
from mh_emulator.psp.status import Status
from mh_emulator.snp_platform import SnpPlatform

_ABOUT_PLATFORMS = frozenset({Command.PLATFORM_STATUS.name, Command.PDH_CERT_EXPORT.name})
"""What a host asks for the owner, once for all guests: no part of what a layout costs."""

_OF_VCPUS = frozenset({"KVM_RUN", "KVM_GET_REGS", "KVM_SET_REGS"})
"""On the file descriptors of vCPUs: no part of how a layout is made."""


class Calls:
    """What happens on `platform` from now on."""

    def __init__(self, platform: Platform | SnpPlatform) -> None:
        self.firmware: Counter[str] = Counter()
        self.vms: list[Counter[str]] = []
        """Ioctls of each VM, in the order of KVM_CREATE_VM."""
        self.slots: list[Range] = []
        """What was asked for, of whatever VM."""
        platform.psp.watchers.append(self._count_command)
        platform.watchers.append(self._count_vm)

    def _count_command(self, command: Command | SnpCommand, _status: Status) -> None:
        if command.name not in _ABOUT_PLATFORMS:
            self.firmware[command.name] += 1

    def _count_vm(self, vm: Vm | SnpVm) -> None:
        counter = Counter({"KVM_CREATE_VM": 1})

        def count(call: Call) -> None:
            counter.update({call.name} - _OF_VCPUS)
            match call.name, call.arguments:
                case "KVM_SET_USER_MEMORY_REGION", (_, int(gpa), int(size), UserMemory() as memory, int(offset)):
                    self.slots.append(Range(gpa, size, memory, offset))

        vm.watchers.append(count)
        self.vms.append(counter)


def in_words(counts: Counter[str]) -> str:
    """Every call with its number, where that is not 1."""
    return ", ".join(f"{name} x {number}" if number > 1 else name for name, number in counts.items())
