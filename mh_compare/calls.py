"""Counts calls of KVM and commands of the secure processor while a guest is launched and its helper started."""

from __future__ import annotations

from collections import Counter

from mh_emulator.kvm import Vm
from mh_emulator.platform import Platform
from mh_emulator.psp.command import Command
from mh_emulator.psp.status import Status

_ABOUT_PLATFORMS = frozenset({Command.PLATFORM_STATUS, Command.PDH_CERT_EXPORT})
"""What a host asks for the owner, once for all guests: no part of what a layout costs."""

_OF_VCPUS = frozenset({"KVM_RUN", "KVM_GET_REGS", "KVM_SET_REGS"})
"""On the file descriptors of vCPUs: no part of how a layout is made."""


class Calls:
    """What happens on `platform` from now on."""

    def __init__(self, platform: Platform) -> None:
        self.firmware: Counter[str] = Counter()
        self.vms: list[Counter[str]] = []
        """Ioctls of each VM, in the order of KVM_CREATE_VM."""
        platform.psp.watchers.append(self._count_command)
        platform.watchers.append(self._count_vm)

    def _count_command(self, command: Command, _status: Status) -> None:
        if command not in _ABOUT_PLATFORMS:
            self.firmware[command.name] += 1

    def _count_vm(self, vm: Vm) -> None:
        counter = Counter({"KVM_CREATE_VM": 1})
        vm.watchers.append(lambda call: counter.update({call.name} - _OF_VCPUS))
        self.vms.append(counter)


def in_words(counts: Counter[str]) -> str:
    """Every call with its number, where that is not 1."""
    return ", ".join(f"{name} x {number}" if number > 1 else name for name, number in counts.items())
